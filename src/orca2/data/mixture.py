"""Several map-style sources as one, interleaved by weight.

Every epoch takes a fixed number of examples of each member. Example number c of a member with weight w has
the time (c + u) / w with a random 0 <= u < 1, and the epoch goes through the members in order of time. So the
shares hold everywhere, the order is a pure function of (seed, epoch), and any position is found without
walking there.

    a, weight 2    a0 ·   a1     a2  ·  a3        time  ->
    b, weight 1      b0      ·      b1   ·
    epoch          a0 b0  a1     a2 b1  a3

    when_exhausted   an epoch holds
    continue         every example of every member once; the weights say how fast each is used up
    stop             what is used until the first member is used up
    repeat           what is used until every member was seen; the others start over, in a new order
    first            the first member once; the others at their rates beside it, starting over where they end
"""

import heapq
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orca2.errors import ConfigError, DataError
from orca2.records import Example, Question, Rejected
from orca2.rows.order import uniform
from orca2.rows.source import (
    AskingSource,
    MapSource,
    Order,
    PinnedSource,
    PreparedSource,
    Survey,
    SurveyedSource,
    order_of,
)
from orca2.strategies import StrategyChoice

_MODES = ("continue", "stop", "repeat", "first")
_HALVINGS = 64
"""Enough to exhaust the precision of a float; what is left is walked."""
_LAP_SEED = 2**40
"""Far from any seed that a user writes."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Rows of all members, one member after the other; `order` interleaves them.

    Raises ConfigError for no members, members that are streams or share a name, and weights that do not fit.
    """

    name: str
    members: Mapping[str, MapSource]
    when_exhausted: Literal["continue", "stop", "repeat", "first"]
    weights: Mapping[str, float] | None = None
    """Member -> relative rate. None: in proportion to the sizes, so that all end together."""
    rows: int | None = None
    """With `repeat`: about this many rows an epoch, dealt by the rates, instead of enough to see every member."""
    tokens_per_example: int | None = None
    """Mean length of a rendered example, for plans, where members are elsewhere."""

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError(f"mixture {self.name!r} has no members")
        if self.when_exhausted not in _MODES:
            raise ConfigError(
                f"mixture {self.name!r}: when_exhausted={self.when_exhausted!r}; allowed are {list(_MODES)}"
            )
        # Not isinstance(member, MapSource): before Python 3.12 that asks for `size`, and so downloads or imports.
        streams = sorted(key for key, member in self.members.items() if not hasattr(member, "read"))
        if streams:
            raise ConfigError(
                f"mixture {self.name!r}: members {streams} are streams, whose rows have no numbers; "
                "download them (conf/source/hub.yaml) to mix them"
            )
        repeated = [name for name, count in Counter(each.name for each in self.members.values()).items() if count > 1]
        if repeated:
            raise ConfigError(f"mixture {self.name!r}: members share the names {repeated}; give each its own `name`")
        if self.weights is not None and set(self.weights) != set(self.members):
            raise ConfigError(
                f"mixture {self.name!r}: weights are given for {sorted(self.weights)}, "
                f"members are {sorted(self.members)}; give each member one weight"
            )
        if self.weights is not None and min(self.weights.values()) <= 0:
            raise ConfigError(f"mixture {self.name!r}: weights {dict(self.weights)} must be above 0")
        if self.rows is not None and (self.rows < 1 or self.when_exhausted != "repeat"):
            raise ConfigError(
                f"mixture {self.name!r}: rows={self.rows} must be at least 1, and goes with when_exhausted=repeat only"
            )

    @property
    def size(self) -> int:
        """Examples of an epoch."""
        return sum(self._counts)

    def unpinned(self) -> list[str]:
        """Why members could change."""
        return [reason for member in self._sources if isinstance(member, PinnedSource) for reason in member.unpinned()]

    def prepare(self) -> None:
        """Prepare every member. Raises DataError for one that cannot be used or is empty."""
        for key, member in self.members.items():
            if isinstance(member, PreparedSource):
                member.prepare()
            if member.size == 0:
                raise DataError(f"mixture {self.name!r}: member {key!r} has no rows")

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        """Row of the member that it falls into."""
        number = bisect_right(self._offsets, row) - 1
        return self._sources[number].read(row - self._offsets[number], choice)

    def survey(self, choice: StrategyChoice) -> Survey:
        """Sums over the members' rows, in proportion where an epoch takes more or fewer than a member has.

        Members that cannot count are taken to keep all.
        """
        counts = Survey()
        for member, taken in zip(self._sources, self._counts, strict=True):
            own = member.survey(choice) if isinstance(member, SurveyedSource) else Survey(member.size)
            share = taken / member.size
            left_out = Counter({label: round(rows * share) for label, rows in own.left_out.items()})
            counts += Survey(round(own.kept * share), left_out)
        return counts

    def questions(self, per_task: int) -> list[Question]:
        """The held-out questions of the members that have some; a task in several takes the first one's."""
        asked: dict[str, list[Question]] = {}
        for member in self._sources:
            own = member.questions(per_task) if isinstance(member, AskingSource) else []
            new = [question for question in own if question.task not in asked]
            for question in new:
                asked.setdefault(question.task, []).append(question)
        return [question for questions in asked.values() for question in questions]

    def parts(self) -> list[tuple[int, MapSource]]:
        """The members, each with the number of its first row."""
        return list(zip(self._offsets, self._sources, strict=True))

    def order(self, seed: int, epoch: int) -> Order:
        """The interleaving of one epoch."""
        return Interleaving(seed, epoch, self._sources, tuple(self._counts), tuple(self._rates), tuple(self._offsets))

    @cached_property
    def _sources(self) -> tuple[MapSource, ...]:
        return tuple(self.members.values())

    @cached_property
    def _offsets(self) -> list[int]:
        return list(accumulate((member.size for member in self._sources[:-1]), initial=0))

    @cached_property
    def _rates(self) -> list[float]:
        if self.weights is None:
            return [float(member.size) for member in self._sources]
        return [float(self.weights[key]) for key in self.members]

    @cached_property
    def _counts(self) -> list[int]:
        sizes = [member.size for member in self._sources]
        if self.when_exhausted == "continue":
            return sizes
        durations = [size / rate for size, rate in zip(sizes, self._rates, strict=True)]
        if self.rows is not None:
            duration = self.rows / math.fsum(self._rates)
        elif self.when_exhausted == "first":
            duration = durations[0]
        else:
            duration = min(durations) if self.when_exhausted == "stop" else max(durations)
        return [round(duration * rate) for rate in self._rates]


@dataclass(frozen=True)
class Interleaving:
    """The order of one epoch of a mixture."""

    seed: int
    epoch: int
    members: tuple[MapSource, ...]
    counts: tuple[int, ...]
    """Examples that the epoch takes of each member."""
    rates: tuple[float, ...]
    offsets: tuple[int, ...]
    """The mixture's row number of each member's row 0."""

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Rows at the positions start, ..., stop - 1."""
        taken = self._taken(start)
        heap = [(self._time(m, c), m, c) for m, c in enumerate(taken) if c < self.counts[m]]
        heapq.heapify(heap)
        turns: list[tuple[int, int]] = []
        for _ in range(sum(taken), stop):
            _, m, c = heap[0]
            turns.append((m, c))
            if c + 1 < self.counts[m]:
                heapq.heapreplace(heap, (self._time(m, c + 1), m, c + 1))
            else:
                heapq.heappop(heap)
        return self._rows_of(turns[start - sum(taken) :])

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows at any positions."""
        return np.concatenate([self.rows(position, position + 1) for position in positions.tolist()])

    def _taken(self, position: int) -> list[int]:
        """How many examples of each member are within a prefix of the epoch that ends at or just before
        `position`.
        """
        early, late = 0.0, max(count / rate for count, rate in zip(self.counts, self.rates, strict=True))
        taken = [0] * len(self.members)
        for _ in range(_HALVINGS):
            middle = (early + late) / 2
            until = [self._until(m, middle) for m in range(len(self.members))]
            if sum(until) > position:
                late = middle
            else:
                early, taken = middle, until
        return taken

    def _time(self, m: int, c: int) -> float:
        return (c + uniform(self.seed, self.epoch, self.members[m].name, c)) / self.rates[m]

    def _until(self, m: int, time: float) -> int:
        """Examples of member m whose time is not after `time`."""
        count = min(math.floor(time * self.rates[m]), self.counts[m])
        while count < self.counts[m] and self._time(m, count) <= time:
            count += 1
        while count > 0 and self._time(m, count - 1) > time:
            count -= 1
        return count

    def _rows_of(self, turns: list[tuple[int, int]]) -> NDArray[np.int64]:
        rows = np.empty(len(turns), dtype=np.int64)
        for m, member in enumerate(self.members):
            where = np.array([at for at, turn in enumerate(turns) if turn[0] == m], dtype=np.int64)
            laps, positions = np.divmod(np.array([turns[at][1] for at in where], dtype=np.int64), member.size)
            for lap in np.unique(laps).tolist():
                # Another seed for each lap: a member that starts over comes in a new order.
                order = order_of(member, self.seed + lap * _LAP_SEED, self.epoch)
                rows[where[laps == lap]] = order.at(positions[laps == lap]) + self.offsets[m]
        return rows
