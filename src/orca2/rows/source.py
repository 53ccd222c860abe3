"""What a source is.

A *map-style* source has numbered rows and reads any of them; the order of an epoch is computed from
(seed, epoch). A *stream-style* source can only be read in its own order, which it shuffles itself.

    position (epoch, k)  --order-->  row  --read-->  Example | Rejected
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from orca2.errors import DataError
from orca2.records import Example, Question, Rejected
from orca2.rows.conversations import Note
from orca2.rows.order import Permutation
from orca2.strategies import StrategyChoice


@dataclass(frozen=True, slots=True)
class Survey:
    """How many rows a strategy choice keeps, before any is read in full."""

    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """`<task>/<label>` -> rows."""

    def __add__(self, other: "Survey") -> "Survey":
        return Survey(self.kept + other.kept, self.left_out + other.left_out)


class Order(Protocol):
    """The rows of one epoch."""

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Rows at the positions start, ..., stop - 1."""
        ...

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows at any positions."""
        ...


@runtime_checkable
class MapSource(Protocol):
    """Rows with numbers; any can be read at any time, in any process."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """Rows that an epoch visits."""
        ...

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        """One row; a broken or left-out one as `Rejected`, never as an exception."""
        ...


@runtime_checkable
class OrderedSource(Protocol):
    """A map-style source that orders its epochs itself, such as a mixture."""

    def order(self, seed: int, epoch: int) -> Order:
        """The rows of one epoch, a pure function of the arguments."""
        ...


@runtime_checkable
class ComposedSource(Protocol):
    """A map-style source that is made of others."""

    def parts(self) -> "list[tuple[int, MapSource]]":
        """Its members, each with the number that its first row has here."""
        ...


@runtime_checkable
class StreamSource(Protocol):
    """Rows that can only be read one after the other."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None:
        """Rows of an epoch, None if nobody knows."""
        ...

    def stream(self, seed: int, epoch: int, start: int, choice: StrategyChoice) -> Iterator[Example | Rejected]:
        """The rows of an epoch from position `start`; the same for every rank and worker."""
        ...


@runtime_checkable
class PreparedSource(Protocol):
    """A source with work to do once, before the ranks read it: importing, downloading, checking."""

    def prepare(self) -> None:
        """Raises DataError when the source cannot be used at all."""
        ...


@runtime_checkable
class SurveyedSource(Protocol):
    """A source that can count what a choice keeps without reading whole rows."""

    def survey(self, choice: StrategyChoice) -> Survey:
        """Counts over one epoch's rows, in constant memory."""
        ...


@runtime_checkable
class AskingSource(Protocol):
    """A source that has held-out questions of its own."""

    def questions(self, per_task: int) -> list[Question]:
        """`per_task` questions of each task, none of which any training row can be."""
        ...


@runtime_checkable
class NotingSource(Protocol):
    """A map-style source that can say what of a row is left out or not used."""

    def notes(self, row: int) -> tuple[Note, ...]: ...


@runtime_checkable
class DigestedSource(Protocol):
    """A source that can tell whether its rows are still the same."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """The same for the same rows. Raises DataError where they cannot be read."""
        ...


@runtime_checkable
class PinnedSource(Protocol):
    """A source whose rows others can change, unless it names a version of them."""

    def unpinned(self) -> list[str]:
        """Reasons why the rows could change under the same settings; none where they cannot."""
        ...


Source = MapSource | StreamSource


def rows_over(size: int, first: int, spread: int) -> list[int]:
    """The first rows of a source, and others evenly spread over all of it; each once, in order."""
    return sorted({*range(min(first, size)), *(at * size // spread for at in range(spread) if size)})


def order_of(source: MapSource, seed: int, epoch: int) -> Order:
    """The order of an epoch: the source's own, or a random one."""
    if isinstance(source, OrderedSource):
        return source.order(seed, epoch)
    return Permutation(source.size, seed, epoch)


def survey(source: Source, choice: StrategyChoice) -> Survey | None:
    """What `choice` keeps of a source; None where only reading it tells.

    Raises DataError for a source without rows and for a choice that leaves no example.
    """
    if source.size == 0:
        raise DataError(f"source {source.name!r} has no rows")
    if not isinstance(source, SurveyedSource):
        return None
    counts = source.survey(choice)
    if counts.kept == 0:
        raise DataError(
            f"strategy {choice.name!r} leaves no example of source {source.name!r}; it would leave out "
            f"{dict(counts.left_out.most_common(8))} (task/label: rows). Choose another strategy or source"
        )
    return counts
