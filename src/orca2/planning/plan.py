"""A plan: does one rank's share fit, how long will it take, and if it does not fit, what would.

Request --memory_of--> Memory --> fits? --no--> remedies: the same request with one thing changed, or several
        --work_of----> a StageWork for each stage
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from orca2.data.loader import StepShape
from orca2.errors import ConfigError
from orca2.modelling.recompute import ActivationCheckpointing
from orca2.planning.memory import ADAM_STATES, BF16, FP32, Memory, Parallelism, Setting, memory_of
from orca2.planning.shape import LoraSize, ModelShape
from orca2.planning.work import StageOutline, StageWork, work_of

LARGEST_CLUSTER = 1024
"""Most GPUs that a remedy names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What a plan supposes where nothing can be counted. One file of `conf/planning/`."""

    name: str
    tokens_per_example: int | None
    """Tokens; None: measured on a sample, or what the source states."""
    rows: int | None
    """Examples of an epoch; None: the source's own."""
    sample_rows: int
    """Rows that are rendered to measure lengths."""
    free_share: float
    """Share of the GPU's memory left for what is not counted; see `planning.memory`."""
    utilisation: float
    """Useful tokens as a share of all."""

    def __post_init__(self) -> None:
        found = [
            f"{key} = {getattr(self, key)}: must be at least 1"
            for key in ("tokens_per_example", "rows", "sample_rows")
            if getattr(self, key) is not None and getattr(self, key) < 1
        ]
        if not 0 <= self.free_share < 1:
            found.append(f"free_share = {self.free_share}: a share, from 0 to below 1")
        if not 0 < self.utilisation <= 1:
            found.append(f"utilisation = {self.utilisation}: a share, above 0 and at most 1")
        if found:
            raise ConfigError(f"planning {self.name!r}: " + "; ".join(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The devices of a run; all alike."""

    device: str
    """What one rank computes on, for people."""
    memory: int | None
    """Bytes of one device; None: unknown."""
    usable: int | None
    """Bytes that a plan may fill."""
    operations_per_second: float | None
    """Expected speed of one device: its peak times the share that is reached. None: unknown."""
    ranks: int
    nodes: int
    is_gpu: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What is to be run."""

    shape: ModelShape
    compute: Literal["fp32", "bf16"]
    master: Literal["fp32", "bf16"]
    parallelism: Parallelism
    shards: int
    checkpointing: ActivationCheckpointing
    fused_attention: bool
    on_cuda: bool
    pack_tokens: int
    packs_per_step: int
    packs_per_micro_batch: int
    label_share: float
    """Tokens that carry loss, as a share of all."""
    lora: LoraSize | None
    """Size of the adapters; None: all weights are trained."""
    quantized: bool
    with_lora: LoraSize
    """What would be trained if LoRA were switched on."""

    def setting(self, ranks: int) -> Setting:
        """The setting of one of `ranks`."""
        own = max(1, self.packs_per_step // ranks)
        packs = StepShape(packs_per_step=own, packs_per_micro_batch=self.packs_per_micro_batch).micro_batch
        tokens = self.pack_tokens * packs
        return Setting(
            tokens=tokens,
            label_tokens=round(tokens * self.label_share),
            micro_batches=own // packs,
            compute=self.compute,
            master=self.master,
            parallelism=self.parallelism,
            shards=self.shards if self.parallelism == "fsdp" else 1,
            checkpointing=self.checkpointing,
            fused_attention=self.fused_attention,
            on_cuda=self.on_cuda,
            lora=self.lora,
            quantized=self.quantized,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that `plan=true` prints."""

    request: PlanRequest
    machine: Machine
    memory: Memory
    stages: tuple[StageWork, ...]
    checkpoint: int
    """Bytes of one checkpoint: what is trained, and the optimizer's state of it."""
    student: int
    """Bytes of the exported student."""
    remedies: tuple[str, ...]
    """Overrides of the command line that would make it fit; empty where it fits or nothing would."""

    @property
    def fits(self) -> bool:
        return self.machine.usable is None or self.memory.peak <= self.machine.usable


def make_plan(
    request: PlanRequest,
    machine: Machine,
    stages: Sequence[StageOutline],
    utilisation: float,
    elsewhere: Machine | None = None,
) -> Plan:
    """Plan `stages` for `request` on `machine`; a run too large for CPUs is told what it takes on `elsewhere`."""
    memory = memory_of(request.shape, request.setting(machine.ranks))
    kept = FP32 if request.master == "fp32" else BF16
    speed = machine.operations_per_second
    works = tuple(
        work_of(
            stage,
            request.shape,
            utilisation,
            None if speed is None else speed * machine.ranks,
            request.lora,
        )
        for stage in stages
    )
    fits = machine.usable is None or memory.peak <= machine.usable
    return Plan(
        request=request,
        machine=machine,
        memory=memory,
        stages=works,
        checkpoint=kept * (1 + ADAM_STATES) * request.shape.trained(request.lora),
        student=kept * request.shape.parameters,
        remedies=() if fits else (*remedies(request, machine), *on_gpus(request, machine, elsewhere)),
    )


def remedies(request: PlanRequest, machine: Machine) -> Iterator[str]:
    """Up to three ways to make it fit: settings alone, more GPUs, training adapters only."""
    assert machine.usable is not None
    changes = list(_changes(request, machine))
    if (found := _smallest(request, machine, changes)) is not None:
        yield found
    else:
        yield from _more_gpus(request, machine, changes)
    if request.lora is None:
        whole: Parallelism = "ddp" if machine.ranks > 1 else "one"
        lora = replace(request, lora=request.with_lora, parallelism=whole, shards=1)
        text = "lora=default trainer=ddp" if request.parallelism == "fsdp" else "lora=default"
        for small in (lora, replace(lora, quantized=True)) if machine.is_gpu else (lora,):
            change = text if small is lora else f"{text} lora.quantization=4bit"
            frugal = [option for option in _changes(small, machine) if "trainer" not in option[0]]
            found = "" if _fits(small, machine.ranks, machine.usable) else _smallest(small, machine, frugal)
            if found is not None:
                yield f"{change} {found}".strip()
                return


def on_gpus(request: PlanRequest, machine: Machine, elsewhere: Machine | None) -> Iterator[str]:
    """Ways to run on GPUs like `elsewhere` what does not fit a CPU; the overrides name them for another plan."""
    if machine.is_gpu or elsewhere is None:
        return
    assert elsewhere.usable is not None
    there = replace(request, compute="bf16", parallelism="one", shards=1, fused_attention=True, on_cuda=True)
    ways = [""] if _fits(there, elsewhere.ranks, elsewhere.usable) else remedies(there, elsewhere)
    for way in ways:
        trainer = "" if "trainer=" in way else "trainer=one_gpu "
        yield f"gpu={elsewhere.device} {trainer}{way}".strip()


def _changes(request: PlanRequest, machine: Machine) -> Iterator[tuple[str, PlanRequest]]:
    """Single changes, cheapest first."""
    if request.packs_per_micro_batch > 1:
        yield "packs_per_micro_batch=1", replace(request, packs_per_micro_batch=1)
    modes: tuple[ActivationCheckpointing, ...] = ("none", "selective", "full")
    for mode in modes[modes.index(request.checkpointing) + 1 :]:
        yield f"model.activation_checkpointing={mode}", replace(request, checkpointing=mode)
    if machine.ranks > 1 and request.parallelism != "fsdp":
        yield "trainer=fsdp", replace(request, parallelism="fsdp", shards=machine.ranks // machine.nodes)
    if request.parallelism == "fsdp" and request.shards < machine.ranks:
        yield f"trainer.data_parallel_size={machine.ranks}", replace(request, shards=machine.ranks)


def _smallest(request: PlanRequest, machine: Machine, changes: list[tuple[str, PlanRequest]]) -> str | None:
    """The fewest of `changes` that fit together; each sets other fields than the others, the last one wins."""
    assert machine.usable is not None
    for count in range(1, len(changes) + 1):
        for chosen in combinations(changes, count):
            keys = [text.partition("=")[0] for text, _ in chosen]
            if len(set(keys)) == count and _fits(_combined(request, chosen), machine.ranks, machine.usable):
                return " ".join(text for text, _ in chosen)
    return None


def _combined(request: PlanRequest, chosen: Sequence[tuple[str, PlanRequest]]) -> PlanRequest:
    fields = ("packs_per_micro_batch", "checkpointing", "parallelism", "shards", "lora")
    changed = {
        field: getattr(one, field)
        for _, one in chosen
        for field in fields
        if getattr(one, field) != getattr(request, field)
    }
    return replace(request, **changed)


def _more_gpus(request: PlanRequest, machine: Machine, changes: list[tuple[str, PlanRequest]]) -> Iterator[str]:
    """The smallest power of two of GPUs over which the weights, cut and recomputed, would fit."""
    if not machine.is_gpu:
        return
    assert machine.usable is not None
    frugal = replace(request, packs_per_micro_batch=1, checkpointing="full", parallelism="fsdp")
    texts = [text for text, _ in changes if "micro" in text or text.endswith("full")]
    ranks = 2 * machine.ranks
    while ranks <= LARGEST_CLUSTER:
        steps = ranks * math.ceil(request.packs_per_step / ranks)
        if _fits(replace(frugal, shards=ranks, packs_per_step=steps), ranks, machine.usable):
            where = f"trainer.devices={min(ranks, 8)}" + (f" trainer.nodes={ranks // 8}" if ranks > 8 else "")
            size = f" trainer.data_parallel_size={ranks}" if ranks > 8 else ""
            packs = [] if steps == request.packs_per_step else [f"packs_per_step={steps}"]
            yield " ".join(["trainer=fsdp", where + size, *texts, *packs])
            return
        ranks *= 2


def _fits(request: PlanRequest, ranks: int, usable: int) -> bool:
    return memory_of(request.shape, request.setting(ranks)).peak <= usable
