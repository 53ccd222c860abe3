"""Rows that are held out of training, so that the loss on them tells what the student has learnt for others.

    source ──seed──▶ numbers of the held-out rows ──read, render, pack──▶ micro-batches, the same at every measurement
                     └▶ training rejects these rows, and all that ask the same question

The choice depends on (seed, size of the source) alone, for each member of a mixture by itself: a resumed run, any
number of ranks and every stage that visits the same source hold out the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from orca2.data.collate import collate
from orca2.data.packing import Packer, PackingSpec
from orca2.data.rendered_rows import HeldOut, Rendered, RowRenderer, question_key
from orca2.errors import ConfigError, DataError
from orca2.records import Example, MicroBatch, Rejected
from orca2.rows.order import Permutation
from orca2.rows.source import ComposedSource, MapSource, Source
from orca2.strategies import StrategyChoice

EPOCH = -1
"""Epoch of the order that the rows are taken from; training counts from 0."""


@dataclass(frozen=True, kw_only=True)
class ValidationSpec:
    """How many rows validate, and how often. Raises ConfigError for numbers that make no sense."""

    name: str
    rows: int
    """Rows of each source that do not train; 0 switches validation off."""
    every_steps: int
    """Optimizer steps from one measurement to the next; it is also measured before the first and after the last."""

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ConfigError(f"validation.rows = {self.rows}: must not be negative")
        if self.every_steps < 1:
            raise ConfigError(f"validation.every_steps = {self.every_steps}: must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRows:
    """The held-out rows of a source."""

    held: HeldOut = field(default_factory=HeldOut)
    """What training leaves out for their sake."""
    taken: int = 0
    """Rows that were taken out of the source."""
    rendered: tuple[Rendered, ...] = ()
    """Those of them that can be measured: the strategy uses them, and they fit into a pack."""


def leaves(source: Source) -> list[tuple[int, Source]]:
    """The sources that a mixture is made of, each with the number of its first row; any other source is one leaf."""
    if not isinstance(source, ComposedSource):
        return [(0, source)]
    return [(first + offset, leaf) for first, part in source.parts() for offset, leaf in leaves(part)]


def hold_out(source: Source, rows: int, seed: int, choice: StrategyChoice, render: RowRenderer) -> ValidationRows:
    """Take `rows` rows of each leaf of `source` out of its training; only these rows are read.

    Erasing is that of the first epoch. Raises DataError where nothing would be left to train on, or to measure.
    """
    if not rows:
        return ValidationRows()
    numbers: list[int] = []
    items: list[Example | Rejected] = []
    for first, leaf in leaves(source):
        if isinstance(leaf, MapSource):
            own = _numbers(leaf, rows, seed)
            numbers += [first + row for row in own]
            items += [leaf.read(row, choice) for row in own]
        else:
            items += islice(leaf.stream(seed, 0, 0, choice), rows)
    examples = [item for item in items if isinstance(item, Example)]
    rendered = [row for row in (render(example, 0) for example in examples) if isinstance(row, Rendered)]
    if not rendered:
        raise DataError(
            f"source {source.name!r}: none of the {len(items)} rows that were held out for validation can be measured: "
            "they are broken, too long, or left out by the strategy; raise validation.rows, or set it to 0"
        )
    held = HeldOut(numbers=frozenset(numbers), questions=frozenset(map(question_key, examples)))
    return ValidationRows(held=held, taken=len(items), rendered=tuple(rendered))


def _numbers(leaf: MapSource, rows: int, seed: int) -> list[int]:
    if rows >= leaf.size:
        raise DataError(
            f"validation.rows = {rows}, but source {leaf.name!r} has {leaf.size} rows: nothing would be left to train "
            "on; hold out fewer"
        )
    return [int(row) for row in Permutation(leaf.size, seed, EPOCH).rows(0, rows)]


def validation_batches(
    rendered: Sequence[Rendered], packing: PackingSpec, packs_per_micro_batch: int, pad_id: int
) -> list[MicroBatch]:
    """The rows in packs, some packs in each micro-batch; the same for any number of ranks."""
    packer: Packer[int] = Packer(packing.length, packing.waiting)
    packs: list[list[Rendered]] = []
    for number, row in enumerate(rendered):
        packer.add(number, len(row.ids))
        while (keys := packer.pop(flush=number == len(rendered) - 1)) is not None:
            packs.append([rendered[key] for key in keys])
    return [
        collate(packs[begin : begin + packs_per_micro_batch], packing.length, pad_id, packing.isolate)
        for begin in range(0, len(packs), packs_per_micro_batch)
    ]
