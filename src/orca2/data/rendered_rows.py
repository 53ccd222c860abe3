"""Positions -> rendered rows, in worker processes.

Rows are read in chunks of consecutive positions. Chunk n is the work of worker n % W, and the
DataLoader hands chunks over in turn, so the sequence is the same for any number of workers and no row
is tokenized twice on a rank.

    worker 0   chunk 0         chunk 2         chunk 4
    worker 1           chunk 1         chunk 3
    rank       0       1       2       3       4            packed by the main process, see loader.py
"""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch.utils.data
from numpy.typing import NDArray
from typing_extensions import override

from orca2.erasing import Erasing
from orca2.errors import DataError, Orca2Error
from orca2.hashing import hash64
from orca2.records import Example, ExampleInfo, Rejected
from orca2.rendering.renderer import Renderer
from orca2.rows.source import MapSource, Order, Source, order_of
from orca2.strategies import StrategyChoice
from orca2.thinking import DROP, Thinking

Position = tuple[int, int]
"""(epoch, position within the epoch)."""

CHUNK_ROWS = 32
"""Rows that travel from a worker at once; measured: below 16 the queue costs more than the rendering."""

ORDER_ROWS = 4096
"""Positions whose rows are computed at once."""


class Rendered(NamedTuple):
    """One example as tokens, small enough to wait for a fitting pack."""

    info: ExampleInfo
    ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]


class Row(NamedTuple):
    """What became of one position."""

    position: Position
    item: Rendered | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What does not train because it validates; see validation_rows.py."""

    numbers: frozenset[int] = frozenset()
    """Rows of a map-style source."""
    questions: frozenset[int] = frozenset()
    """`question_key` of the rows that validate: another row with the same question is as good as the row itself."""

    def without(self, item: Example | Rejected) -> Example | Rejected:
        """The row, or its rejection where its question validates."""
        if not self.questions or isinstance(item, Rejected) or question_key(item) not in self.questions:
            return item
        reason = "the question is one of those held out for validation"
        return Rejected(source=item.source, row=item.id, kind="held_out", reason=reason)


def question_key(example: Example) -> int:
    """A hash of what the user says, earlier turns included, without spaces around it."""
    earlier = "".join(f"{turn.user}\n{turn.answer}\n" for turn in example.history)
    return hash64(earlier + example.user.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRenderer:
    """Erases and tokenizes one example; one that is broken or too long is rejected, never cut."""

    renderer: Renderer
    erasing: Erasing
    length: int
    """Tokens of a pack."""
    loss_on_history: bool
    thinking: Thinking = DROP

    def __call__(self, example: Example | Rejected, epoch: int) -> Rendered | Rejected:
        """`epoch` counts from 0; an erasing may depend on it."""
        if isinstance(example, Rejected):
            return example
        system = self.erasing.system(example, epoch)
        try:
            ids, loss_mask = self.renderer.example(
                system,
                example.user,
                example.answer,
                example.history,
                self.loss_on_history,
                self.thinking.trace(example),
            )
        except DataError as error:
            return Rejected(source=example.source, row=example.id, kind="broken", reason=str(error))
        if len(ids) > self.length:
            reason = f"{len(ids)} tokens do not fit into a pack of {self.length}"
            return Rejected(source=example.source, row=example.id, kind="too_long", reason=reason)
        info = ExampleInfo(
            id=example.id,
            source=example.source,
            task=example.task,
            strategy=example.strategy,
            useful_tokens=len(ids),
            label_tokens=sum(loss_mask[1:]),
        )
        return Rendered(info, np.array(ids, dtype=np.int32), np.array(loss_mask, dtype=np.bool_))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """The positions that a rank reads: the rest of its lanes, after the examples that wait for a pack."""

    source: Source
    choice: StrategyChoice
    seed: int
    epochs: int
    lanes: int
    """Lanes in all; position k of an epoch belongs to lane k % lanes."""
    starts: Mapping[int, Position]
    """Lane of this rank -> the first position not yet settled."""
    replay: frozenset[Position]
    """Positions before those, whose examples wait for a pack."""
    held: HeldOut = field(default_factory=HeldOut)

    def chunks(self) -> Iterator[list[tuple[Position, int | Example | Rejected]]]:
        """Positions with what is known of them so far: a row number, or the row that a stream gave."""
        return self._map_chunks(self.source) if isinstance(self.source, MapSource) else self._stream_chunks()

    def read(self, row: int | Example | Rejected) -> Example | Rejected:
        """Fetch a row by its number; the rows of a stream are here already. A row that validates is rejected."""
        if not isinstance(row, int):
            return self.held.without(row)
        if row in self.held.numbers:
            reason = "held out for validation"
            return Rejected(source=self.source.name, row=f"row {row}", kind="held_out", reason=reason)
        return self.held.without(self.source.read(row, self.choice))  # type: ignore[union-attr]

    @property
    def _span(self) -> int:
        return CHUNK_ROWS * self.lanes // len(self.starts)

    def _wanted(self, epoch: int, index: int) -> bool:
        start = self.starts.get(index % self.lanes)
        return start is not None and ((epoch, index) >= start or (epoch, index) in self.replay)

    def _map_chunks(self, source: MapSource) -> Iterator[list[tuple[Position, int | Example | Rejected]]]:
        orders: dict[int, Order] = {}
        replay = sorted(self.replay)
        for begin in range(0, len(replay), CHUNK_ROWS):
            chunk = replay[begin : begin + CHUNK_ROWS]
            for epoch in {epoch for epoch, _ in chunk} - set(orders):
                orders[epoch] = order_of(source, self.seed, epoch)
            yield [(at, int(orders[at[0]].at(np.array([at[1]]))[0])) for at in chunk]
        first_epoch, first = min(self.starts.values())
        for epoch in range(first_epoch, self.epochs):
            order = order_of(source, self.seed, epoch)
            for block in range(first if epoch == first_epoch else 0, source.size, ORDER_ROWS):
                rows = order.rows(block, min(block + ORDER_ROWS, source.size)).tolist()
                for begin in range(0, len(rows), self._span):
                    yield [
                        ((epoch, index), row)
                        for index, row in enumerate(rows[begin : begin + self._span], block + begin)
                        if self._wanted(epoch, index) and (epoch, index) not in self.replay
                    ]

    def _stream_chunks(self) -> Iterator[list[tuple[Position, int | Example | Rejected]]]:
        first_epoch, first = min([*self.starts.values(), *self.replay])
        for epoch in range(first_epoch, self.epochs):
            start = first if epoch == first_epoch else 0
            chunk: list[tuple[Position, int | Example | Rejected]] = []
            index = start
            for row in self.source.stream(self.seed, epoch, start, self.choice):  # type: ignore[union-attr]
                if self._wanted(epoch, index):
                    chunk.append(((epoch, index), row))
                index += 1
                if len(chunk) == CHUNK_ROWS:
                    yield chunk
                    chunk = []
            yield chunk


class RenderedRows(torch.utils.data.IterableDataset[list[Row] | Orca2Error]):
    """The chunks of a plan, rendered. An error that the user can mend is an item, not an exception:
    the DataLoader would bury it in a worker's traceback."""

    def __init__(self, plan: ReadPlan, render: RowRenderer) -> None:
        self.plan = plan
        self.render = render

    @override
    def __iter__(self) -> Iterator[list[Row] | Orca2Error]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        try:
            for index, chunk in enumerate(self.plan.chunks()):
                if index % workers == number:
                    yield [Row(at, self.render(self.plan.read(row), at[0])) for at, row in chunk]
        except Orca2Error as error:
            yield error


def read_rows(plan: ReadPlan, render: RowRenderer, workers: int) -> Iterator[Row]:
    """Every position of the plan once, in its order. Raises what the source raises."""
    loader = torch.utils.data.DataLoader(
        RenderedRows(plan, render),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_quiet_worker,
    )
    for chunk in loader:
        if isinstance(chunk, Orca2Error):
            raise chunk
        yield from chunk


def _as_it_is(chunk: list[Row] | Orca2Error) -> list[Row] | Orca2Error:
    return chunk


def _quiet_worker(_worker: int) -> None:
    # A forked `tokenizers` library warns at every call unless it is told not to start threads.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # A scheduler and a terminal signal every process of a run; only the rank may act. A worker ends with its rank.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
