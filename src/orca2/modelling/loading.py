"""Big students: built without memory, sharded, then filled, each rank reading only what it keeps.

    defer_model -> meta parameters -> (StudentForLoss, sharding.shard) -> materialise -> shards on the device
                   real buffers                                           ^ rows of safetensors files, or
                                                                            random numbers, one parameter at a time

A rank's peak in host memory is its share of the weights, and one parameter where rows are random or new. Files are
read with `pread` into a small buffer: pages of a mapped file would count as the process's memory.

Random weights are the very numbers that the whole model would get. transformers draws them while it builds, so
the building is watched: each drawing in place is noted with the state of the generator before it, and repeated
when the parameter has its memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from orca2.errors import ModelError
from orca2.modelling.build import finish_model, model_config
from orca2.modelling.spec import ModelSpec
from orca2.modelling.weight_files import StoredTensor, stored_tensors

BLOCK_BYTES = 16 * 2**20
"""Read and converted at a time; large enough for any disk, small beside a parameter."""

Fill = Callable[[Tensor, int], None]
"""(rows, first): write the rows from number `first` of one parameter into `rows`, which is on any device."""


@dataclass(frozen=True)
class DeferredModel:
    """A model on the meta device, and how to fill each of its parameters."""

    model: PreTrainedModel
    fills: Mapping[str, Fill]
    """How each parameter is filled, by its name in `model`."""

    def materialise(self, root: nn.Module, device: torch.device) -> None:
        """Give the parameters their memory on `device` and their values; `root` holds the model, sharded or not.

        Without sharding every rank gets all of it. Raises ModelError for files that cannot be read.
        """
        tied = _tied(root)
        root._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))
        for (module, name), *others in tied:  # a tensor that leaves the meta device becomes another for each owner
            for other, name_there in others:
                other.register_parameter(name_there, module.get_parameter(name))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for name, parameter in self.model.named_parameters():
                local, first = _own_rows(name, parameter)
                if local.numel():
                    self.fills[name](local, first)


def defer_model(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, seed: int) -> DeferredModel:
    """What `build_model` makes, as a plan: fp32 parameters on the meta device, buffers on the CPU.

    Raises ModelError as `build_model` does, also for missing tensors and truncated files, of which only the
    headers are read.
    """
    config = model_config(spec, tokenizer)
    recorder = _Recorder()
    with torch.random.fork_rng(devices=[]), _parameters_on_meta():
        if spec.weights is None:
            torch.manual_seed(seed)
            with recorder:
                model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            fills = {name: recorder.fill(name, each) for name, each in model.named_parameters()}
        else:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            stored = stored_tensors(spec.weights)
            fills = {}
        finish_model(model, tokenizer)
    if spec.weights is not None:
        fills = _fills_from(spec.weights, stored, model)
    return DeferredModel(model, fills)


def _tied(root: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """The owners of each parameter that has several, as (module, attribute), in the order of the modules."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in root.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((module, name))
    return [places for places in owners.values() if len(places) > 1]


def _own_rows(name: str, parameter: Tensor) -> tuple[Tensor, int]:
    """This rank's rows of a parameter, in place, and the number of the first."""
    if not isinstance(parameter, DTensor):
        return parameter.detach(), 0
    first = 0
    for axis, placement in enumerate(parameter.placements):
        if placement.is_shard():
            if not placement.is_shard(0):
                raise ModelError(f"{name} is not cut by rows ({placement}), which loading does not know")
            ranks, rank = parameter.device_mesh.size(axis), parameter.device_mesh.get_local_rank(axis)
            first = min(rank * -(-parameter.shape[0] // ranks), parameter.shape[0])
    return parameter.to_local().detach(), first


# ---------------------------------------------------------------- from files


def _fills_from(weights: str, stored: Mapping[str, StoredTensor], model: PreTrainedModel) -> dict[str, Fill]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    grown = {id(parameter) for parameter in _embedding_parameters(model)}
    fills: dict[str, Fill] = {}
    missing, wrong = [], []
    for name, parameter in model.named_parameters():
        source = _find(stored, names[id(parameter)], model.base_model_prefix)
        if source is None:
            missing.append(name)
            continue
        rows, *rest = source.shape or [1]
        more = id(parameter) in grown and rows < parameter.shape[0]
        if rest != list(parameter.shape[1:]) or (rows != parameter.shape[0] and not more):
            wrong.append(f"{name} is {list(source.shape)} in the files and {list(parameter.shape)} in the model")
        fills[name] = _file_fill(source)
    if missing or wrong:
        found = f"{len(missing)} tensors are missing, such as {missing[0]}" if missing else wrong[0]
        raise ModelError(
            f"weights={weights!r}: {found}; the files are incomplete, of another kind of model, or of a kind whose "
            "tensors are converted when they are loaded, which needs the whole model: use trainer=ddp or one_gpu"
        )
    return fills


def _find(stored: Mapping[str, StoredTensor], names: Sequence[str], prefix: str) -> StoredTensor | None:
    """The tensor under one of a tied parameter's names, or saved from the model without its head."""
    candidates = [*names, *(name.removeprefix(f"{prefix}.") for name in names)]
    return next((stored[name] for name in candidates if name in stored), None)


def _embedding_parameters(model: PreTrainedModel) -> Iterator[Tensor]:
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if layer is not None:
            yield from layer.parameters()


def _file_fill(source: StoredTensor) -> Fill:
    stored_rows = source.shape[0] if source.shape else 1

    def fill(local: Tensor, first: int) -> None:
        there = max(0, min(len(local), stored_rows - first)) if local.ndim else 1
        flat = local.reshape(-1) if local.ndim == 0 else local
        source.read_into(flat[:there], first, BLOCK_BYTES)
        if there < len(flat):  # new entries of the vocabulary: see build.grow_embeddings
            everything = torch.empty(source.shape)
            source.read_into(everything, 0, BLOCK_BYTES)
            flat[there:] = everything.mean(0).to(flat.device)

    return fill


# ---------------------------------------------------------------- at random


@dataclass(frozen=True)
class _Draw:
    """One function that wrote into a parameter, or into a part of it, while the model was built."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    generator: Tensor
    """State of the CPU generator before."""
    part: tuple[torch.Size, tuple[int, ...], int] | None
    """Size, strides and offset of the part; None: the whole."""

    def __call__(self, whole: Tensor) -> None:
        torch.set_rng_state(self.generator)
        self.function(whole if self.part is None else whole.as_strided(*self.part), *self.arguments, **self.named)


class _Recorder(TorchFunctionMode):
    """Notes what is written in place to tensors on the meta device, and draws as many random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: dict[int, list[_Draw]] = {}
        self.kept: list[Tensor] = []
        """Keeps the noted tensors alive, so that no other gets their identity."""

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        written = args[0] if args else named.pop("tensor", None)
        if in_place and isinstance(written, Tensor) and written.is_meta:
            self._note(func, written, args[1:], named)
            return written
        return func(*args, **(kwargs or {}))

    def _note(self, function: Callable[..., Any], written: Tensor, rest: tuple[Any, ...], named: Any) -> None:
        base = written._base if written._base is not None else written
        self.kept.append(base)
        whole = written.shape == base.shape
        part = None if whole else (written.shape, written.stride(), int(written.storage_offset()))
        draw = _Draw(function, rest, named, torch.get_rng_state(), part)
        earlier = [] if whole else self.draws.get(id(base), [])
        self.draws[id(base)] = [*earlier, draw]
        with torch.no_grad():
            function(torch.empty(written.shape, dtype=written.dtype), *rest, **named)

    def fill(self, name: str, parameter: Tensor) -> Fill:
        """Raises ModelError where the parameter's first values came from elsewhere."""
        draws = self.draws.get(id(parameter), [])
        if not draws or draws[0].part is not None:
            raise ModelError(
                f"random weights: {name} gets its values in its constructor, which needs the whole model; use "
                "trainer=ddp or one_gpu"
            )
        shape = parameter.shape

        def fill(local: Tensor, first: int) -> None:
            whole = torch.empty(shape)
            for draw in draws:
                draw(whole)
            local.copy_(whole[first : first + len(local)] if local.ndim else whole)

        return fill


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Modules built in the block have parameters on the meta device, and buffers with their values."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            attributes = parameter.__dict__
            # Outside the watch of a recorder: nothing is written here.
            with torch._C.DisableTorchFunction():
                parameter = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
            parameter.__dict__.update(attributes)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
