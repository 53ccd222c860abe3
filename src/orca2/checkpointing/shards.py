"""Tensors on disk: safetensors files that torch's distributed checkpoint plans, divides and reshards.

    rank 0, 1 --DefaultSavePlanner--> who writes which piece --ShardWriter--> shard-00001.safetensors, -00002
    any ranks <--DefaultLoadPlanner-- which pieces overlap mine <--HuggingFaceStorageReader-- all files

The files are those of torch's `HuggingFaceStorageWriter(save_distributed=True)`, so its reader and its tool for
consolidation read them. That writer is not used because it makes every shard once more in memory before it
writes, and returns no checksum. torch's own format has a pickle among its files.
"""

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future
from typing_extensions import override

from orca2.checkpointing.folder import FileRecord
from orca2.errors import CheckpointError
from orca2.files import fresh

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of the safetensors format: https://huggingface.co/docs/safetensors"""

_WRITE_BYTES = 16 * 2**20


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors themselves, not copies, of a model and its optimizer, by names that no sharding changes.

    `model.<parameter>` and `optimizer.<parameter>.<state>`. An optimizer that has not stepped gets its
    zeros. Its numbers, such as the learning rate, are not here: the config and the schedule set them. Frozen
    parameters are not here either (nor what belongs to them, as the scales of 4-bit ones): loading made them.
    """
    fresh = not optimizer.state
    weights, moments = get_state_dict(model, optimizer)
    if fresh:  # it makes the zeros by a step without gradients, which AdamW's bias correction would count
        for state in optimizer.state.values():
            state["step"].zero_()
    # A tied weight has two names.
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    kept = (name for name in weights if name not in frozen and name.rpartition(".")[0] not in frozen)
    tensors = {f"model.{name}": weights[name] for name in kept}
    for name, state in moments["state"].items():  # type: ignore[union-attr]
        tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}  # type: ignore[union-attr]
    return tensors  # type: ignore[return-value]


class ShardWriter(StorageWriter):
    """Writes one file for each rank, tensor by tensor, and computes its checksum on the way.

    When all ranks have written, `publish` is called on the first with the records of all files.
    """

    def __init__(self, folder: Path, publish: Callable[[dict[str, FileRecord]], None]) -> None:
        self.folder = folder
        self.publish = publish

    @override
    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    @override
    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @override
    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    @override
    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [dataclasses.replace(plan, storage_data=number) for number, plan in enumerate(plans, start=1)]

    @override
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results: list[WriteResult] = []
        if plan.items:
            name = f"shard-{plan.storage_data:05d}.safetensors"
            # The largest elements first keep every tensor aligned, as safetensors itself does.
            items = sorted(plan.items, key=lambda item: (-_data(item).properties.dtype.itemsize, item.index.fqn))
            record = _write_safetensors(self.folder / name, items, planner)
            results = [WriteResult(item.index, _size(item), (name, record)) for item in items]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    @override
    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self.publish(dict(result.storage_data for rank in results for result in rank))

    @classmethod
    @override
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


def _data(item: WriteItem) -> Any:
    assert item.tensor_data is not None, f"{item.index.fqn} is not a tensor"
    return item.tensor_data


def _size(item: WriteItem) -> int:
    data = _data(item)
    return int(data.chunk.sizes.numel() * data.properties.dtype.itemsize)


def _write_safetensors(path: Path, items: Sequence[WriteItem], planner: SavePlanner) -> FileRecord:
    header: dict[str, Any] = {}
    end = 0
    for item in items:
        begin, end = end, end + _size(item)
        assert item.index.fqn not in header, f"two pieces of {item.index.fqn} on one rank"
        header[item.index.fqn] = {
            "dtype": _DTYPES[_data(item).properties.dtype],
            "shape": list(_data(item).chunk.sizes),
            "data_offsets": [begin, end],
        }
    offsets = {item.index.fqn: {"saved_offsets": list(_data(item).chunk.offsets)} for item in items}
    # The keys under which torch's HuggingFaceStorageReader looks for the place of each piece.
    header["__metadata__"] = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest, total = hashlib.sha256(), 0
    blocks: Iterator[bytes | memoryview] = chain(
        (struct.pack("<Q", len(text)), text), (_bytes(item, planner) for item in items)
    )
    with fresh(path) as file:
        for block in blocks:
            for start in range(0, len(block), _WRITE_BYTES):  # small blocks: hashing reads what is still cached
                part = block[start : start + _WRITE_BYTES]
                digest.update(part)
                file.write(part)
            total += len(block)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(total, digest.hexdigest())


def _bytes(item: WriteItem, planner: SavePlanner) -> memoryview:
    tensor = planner.resolve_data(item)
    assert isinstance(tensor, Tensor)
    data: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(data)


def misfit(path: Path, tensors: Mapping[str, Tensor]) -> str | None:
    """How the tensors of a checkpoint differ in name, shape or type from those to be loaded; None if they fit."""
    saved = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    for name, tensor in tensors.items():
        entry = saved.get(name)
        if not isinstance(entry, TensorStorageMetadata):
            return f"{path}: no tensor {name}; it belongs to another model or optimizer"
        if entry.size != tensor.shape or entry.properties.dtype != tensor.dtype:
            return (
                f"{path}: {name} is {list(entry.size)} of {entry.properties.dtype}, and {list(tensor.shape)} of "
                f"{tensor.dtype} in this run; it belongs to another model"
            )
    if extra := sorted(set(saved) - set(tensors)):
        return f"{path}: {extra[0]} is not a tensor of this run; it belongs to another model or optimizer"
    return None


def load_tensors(path: Path, tensors: Mapping[str, Tensor], group: ProcessGroup | None = None) -> None:
    """Fill `tensors` in place, each rank its own pieces, however many ranks wrote them.

    A collective call under `group`, a group with a CPU backend. Raises CheckpointError.
    """
    reader = HuggingFaceStorageReader(str(path))
    try:
        load(dict(tensors), storage_reader=reader, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        raise CheckpointError(f"{path} cannot be read: {first_failure(error)}") from error


def first_failure(error: CheckpointException) -> str:
    """The cause on the first rank that failed, in one line."""
    rank, (cause, _) = min(error.failures.items())
    return f"{cause or type(cause).__name__} (rank {rank})"
