"""FSDP2: which modules are sharded together, over which mesh, in which precision.

StudentForLoss              root: embeddings, last norm, output layer; stays gathered from forward to backward,
└─ model                    since the loss reads the output weight directly
   └─ layers[i]             one unit each: gathered for its forward, again for its backward

mesh   (replicas, shards)   weights are cut over `shards` ranks; gradients are summed over all
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from orca2.modelling.student_model import StudentForLoss, decoder_layers


def build_mesh(device_type: str, shards: int) -> DeviceMesh:
    """The ranks in rows of `shards`; neighbouring ranks share a row, so a row can be a machine.

    `shards` must divide the number of ranks.
    """
    shape = (dist.get_world_size() // shards, shards)
    return init_device_mesh(device_type, shape, mesh_dim_names=("replicate", "shard"))


def shard(student: StudentForLoss, mesh: DeviceMesh, compute_dtype: torch.dtype) -> None:
    """Cut the student over the mesh, in place; weights may be on the meta device.

    Weights, gradients and their sums keep the dtype that the weights have; they are gathered, and matrix products
    computed, in `compute_dtype`.
    """
    dtype = next(student.parameters()).dtype
    policy = MixedPrecisionPolicy(
        param_dtype=compute_dtype if compute_dtype != dtype else None,
        reduce_dtype=torch.float32,
        output_dtype=None,
        # Activations have the weights' dtype anyway, and casting copies every dataclass on its way: the cache that a
        # layer fills would stay empty.
        cast_forward_inputs=False,
    )
    mesh = mesh if mesh.size(0) > 1 else mesh["shard"]
    for layer in decoder_layers(student.model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(student, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    student.compute_dtype = compute_dtype


def is_sharded(module: nn.Module) -> bool:
    return isinstance(module, FSDPModule)


@contextmanager
def root_gathered(student: nn.Module) -> Iterator[None]:
    """Within the block the model inside the student may be called directly; layers are gathered one at a time.

    Every rank must then call it equally often. Nothing happens where the student is not sharded.
    """
    if not isinstance(student, FSDPModule):
        yield
        return
    student.unshard()
    try:
        yield
    finally:
        student.reshard()


@contextmanager
def gathered(student: nn.Module) -> Iterator[None]:
    """Within the block every rank holds all weights, in the compute dtype, and runs the model on its own.

    Takes the memory of a whole copy on each rank: for the time after training. Nothing happens where the student is
    not sharded.
    """
    units = [module for module in student.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not student, recurse=False)


def full_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All stored weights by name, gathered one after the other; sharded or not.

    Each step is a collective call: every rank must go to the end. Tied weights appear once, under their first name.
    """
    for name, tensor in _stored(model):
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        yield name, full.detach()


def weight_shapes(model: nn.Module) -> Iterator[tuple[str, torch.Size, torch.dtype]]:
    """Name, whole shape and dtype of what `full_weights` gathers."""
    return ((name, tensor.shape, tensor.dtype) for name, tensor in _stored(model))


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    stored = set(model.state_dict())
    buffers = ((name, buffer) for name, buffer in model.named_buffers() if name in stored)
    return chain(model.named_parameters(), buffers)
