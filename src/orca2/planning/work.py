"""Tokens, optimizer steps, arithmetic and hours of each stage of a run.

Arithmetic of one token, forward and backward together, after the convention of PaLM (arXiv 2204.02311, appendix B):
two operations for each weight of a matrix forward and four backward; attention as the lengths of the documents have
it and not the length of the pack; what activation checkpointing computes again does not count. Two savings of this
project are subtracted: logits are made for label tokens only, and a query attends to the half before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orca2.planning.shape import LoraSize, ModelShape

PAPER_GPUS = 32
"""A100 of 80 GB (arXiv 2311.11045, section 4.2)."""
PAPER_HOURS = {"flan": 17, "chatgpt": 40, "gpt4": 23}
"""Approximate hours of the paper's stages for 13B (same section), by name in `conf/stage/`; not reported for 7B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of rendered examples, in tokens."""

    mean: float
    mean_square: float
    """Mean of the squares: what attention costs."""
    label_share: float
    """Tokens that carry loss, as a share of all."""
    origin: str
    """Origin of the numbers, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutline:
    """What is known of a stage before it runs. A single run is one stage."""

    name: str
    rows: int
    """Examples of an epoch that are trained on."""
    epochs: float
    """Passes over them."""
    lengths: Lengths
    tokens_per_step: int
    """Tokens of all packs of an optimizer step, padding included."""
    validation_rows: int = 0
    """Rows that are measured and not trained on."""
    validation_every_steps: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """What a stage takes."""

    name: str
    rows: int
    """Examples, all epochs."""
    tokens: int
    """Useful tokens, all epochs."""
    steps: int
    """Optimizer steps."""
    operations: float
    """Floating-point operations of the model, all ranks."""
    hours: float | None
    """Hours of the stage; None if the speed of the GPU is not known."""
    origin: str
    paper_hours: float | None
    """What the paper reports of this stage for 13B on `PAPER_GPUS` A100; None for other stages."""


def operations_per_token(shape: ModelShape, lengths: Lengths, lora: LoraSize | None) -> float:
    """Floating-point operations of one useful token, forward and backward; see the head of this file.

    Matrices that are frozen with LoRA need no gradient of their own, which saves two of the six operations.
    """
    matrices = shape.layers * shape.layer_weights
    per_weight = 6 if lora is None else 4
    of_head = 6 if lora is None or lora.embeddings else 4
    attended = lengths.mean_square / lengths.mean / 2
    attention = 12 * shape.layers * shape.queries * attended
    head = of_head * shape.head_weights * lengths.label_share
    return per_weight * matrices + attention + head + (0 if lora is None else 6 * lora.matrices)


def work_of(
    stage: StageOutline,
    shape: ModelShape,
    utilisation: float,
    operations_per_second: float | None,
    lora: LoraSize | None,
) -> StageWork:
    """`utilisation`: useful tokens as a share of all; `operations_per_second`: of all GPUs together."""
    rows = round(stage.rows * stage.epochs)
    tokens = round(rows * stage.lengths.mean)
    steps = max(1, round(tokens / (stage.tokens_per_step * utilisation)))
    operations = tokens * operations_per_token(shape, stage.lengths, lora)
    origin = stage.lengths.origin
    if stage.validation_rows:
        times = 2 + (steps - 1) // stage.validation_every_steps  # before the first step and after the last
        measured = round(stage.validation_rows * stage.lengths.mean) * times
        # Forward only: two of the six operations.
        operations += measured * operations_per_token(shape, stage.lengths, None) / 3
        origin += f"; validation on {stage.validation_rows:,} rows, {times:,} times: {measured:,} tokens, forward only"
    return StageWork(
        name=stage.name,
        rows=rows,
        tokens=tokens,
        steps=steps,
        operations=operations,
        hours=None if operations_per_second is None else operations / operations_per_second / 3600,
        origin=origin,
        paper_hours=PAPER_HOURS.get(stage.name),
    )


def total(stages: Sequence[StageWork]) -> StageWork:
    """All stages as one; a sum with an unknown part is unknown."""
    hours = [stage.hours for stage in stages if stage.hours is not None]
    paper = [stage.paper_hours for stage in stages if stage.paper_hours is not None]
    return StageWork(
        name="all",
        rows=sum(stage.rows for stage in stages),
        tokens=sum(stage.tokens for stage in stages),
        steps=sum(stage.steps for stage in stages),
        operations=sum(stage.operations for stage in stages),
        hours=sum(hours) if len(hours) == len(stages) else None,
        origin="",
        paper_hours=sum(paper) if len(paper) == len(stages) else None,
    )
