"""How many items of which task: caps, uniform sampling over tasks, and the mixture of collections.

    Algorithm 1 of Orca 1 (arXiv 2306.02707): draw a task uniformly, draw one of its rows without replacement,
    a task that runs dry is removed, until the quota is met.

Drawn in two passes in constant memory: the first counts the rows of each task, the algorithm then runs on the
counts alone, and the second pass picks that many rows of each task, every set of rows equally likely.

    rows of task   a: 900   b: 20   c: 900        size 600
    drawn          a: 290   b: 20   c: 290        b ran dry; kept rows stay in the collection's order
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol, runtime_checkable

from orca2.errors import ConfigError, DataError
from orca2.records import Rejected
from orca2.rows.items import TaskItem, TaskReader


def uniform_over_tasks(rows: Mapping[str, int], size: int, rng: Random) -> dict[str, int]:
    """How many rows of each task Algorithm 1 draws; fewer than `size` in all only where every task runs
    dry."""
    left = {task: count for task, count in rows.items() if count}
    tasks = sorted(left)
    drawn: Counter[str] = Counter()
    for _ in range(size):
        if not tasks:
            break
        place = rng.randrange(len(tasks))
        task = tasks[place]
        drawn[task] += 1
        left[task] -= 1
        if not left[task]:
            # The order of the rest does not matter, so removing is one exchange.
            tasks[place] = tasks[-1]
            tasks.pop()
    return dict(drawn)


def split_by_share(size: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`size` in whole numbers proportional to `shares`; what rounding leaves goes to the largest
    fractions."""
    total = sum(shares.values())
    exact = {part: size * share / total for part, share in shares.items()}
    whole = {part: math.floor(value) for part, value in exact.items()}
    by_fraction = sorted(exact, key=lambda part: (whole[part] - exact[part], part))
    for part in by_fraction[: size - sum(whole.values())]:
        whole[part] += 1
    return whole


@runtime_checkable
class Resizable(TaskReader, Protocol):
    """A collection that can be had at any size: generated, or mixed by shares."""

    def of_size(self, size: int) -> TaskReader: ...


def sized(reader: TaskReader, size: int | None, seed: int, per_task: int | None = None) -> TaskReader:
    """The collection cut to `size` items and `per_task` a task; None leaves it whole."""
    if size is not None and isinstance(reader, Resizable):
        reader, size = reader.of_size(size), None
    if size is None and per_task is None:
        return reader
    return Sampled(name=reader.name, reader=reader, seed=seed, size=size, per_task=per_task)


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A collection with at most `per_task` rows a task, and `size` rows in all drawn uniformly over tasks.

    Rejected rows are passed on and count nowhere.
    """

    name: str
    reader: TaskReader
    seed: int
    size: int | None = None
    per_task: int | None = None

    def __post_init__(self) -> None:
        for key in ("size", "per_task"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"tasks={self.name}: {key} is {value}; give at least 1, or null for no limit")

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where the collection has fewer rows than `size`."""
        rows = Counter(row.task for row in self.reader.stream() if isinstance(row, TaskItem))
        wanted = {task: min(count, self.per_task or count) for task, count in rows.items()}
        if self.size is not None:
            if sum(wanted.values()) < self.size:
                raise DataError(
                    f"tasks={self.name}: {self.size} items are wanted, but {len(rows)} tasks of "
                    f"{self.reader.name} "
                    f"give only {sum(wanted.values())} (at most {self.per_task or 'all'} a task); "
                    "lower the size or share"
                )
            wanted = uniform_over_tasks(wanted, self.size, Random(f"{self.seed}/{self.reader.name}"))
        yield from self._pick(rows, wanted)

    def _pick(self, rows: Mapping[str, int], wanted: Mapping[str, int]) -> Iterator[TaskItem | Rejected]:
        seen: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        rngs = {task: Random(f"{self.seed}/{self.reader.name}/{task}") for task in rows}
        for row in self.reader.stream():
            if isinstance(row, Rejected):
                yield row
                continue
            need = wanted.get(row.task, 0) - taken[row.task]
            # Selection sampling (Knuth, volume 2, algorithm S): exactly `wanted` rows, each set equally
            # likely.
            if rngs[row.task].random() * (rows[row.task] - seen[row.task]) < need:
                taken[row.task] += 1
                yield row
            seen[row.task] += 1


FEW_SHOT = "few_shot"
"""Name of the share that is not read but built from answered examples, by `builders.few_shot`."""


@dataclass(frozen=True, kw_only=True)
class TaskMix:
    """Collections mixed by share, at any size; one after the other, so that a teacher meets a task's rows
    together.

    Raises:
        ConfigError: a share without a part, a negative share, shares that are all 0, or a cap for an unknown
        part.
    """

    name: str
    parts: Mapping[str, TaskReader]
    shares: Mapping[str, float]
    """Part to its share of all examples, in any unit; 0 leaves it out. `few_shot` has no part."""
    caps: Mapping[str, int]
    """Part to the most rows that one of its tasks gives."""
    size: int
    seed: int
    few_shot_from: Mapping[str, bool] = field(default_factory=dict)
    """Parts whose answered examples few-shot ones are built from; empty for all of them."""

    def __post_init__(self) -> None:
        named_in = {"shares": set(self.shares) - {FEW_SHOT}, "caps": set(self.caps)}
        for key, named in (named_in | {"few_shot_from": set(self.few_shot_from)}).items():
            if unknown := sorted(named - set(self.parts)):
                raise ConfigError(f"tasks={self.name}: {key} names {unknown}; parts are {sorted(self.parts)}")
        if missing := sorted(set(self.parts) - set(self.shares)):
            raise ConfigError(f"tasks={self.name}: parts {missing} have no share; give each one, 0 to leave it out")
        if min(self.shares.values()) < 0 or not any(self.shares[part] for part in self.parts):
            raise ConfigError(f"tasks={self.name}: shares are {dict(self.shares)}; none may be below 0, nor all be 0")
        if self.size < 1:
            raise ConfigError(f"tasks={self.name}: size is {self.size}; ask for at least 1 example")

    @property
    def few_shot(self) -> int:
        """How many few-shot examples are to be built from the answered ones."""
        return self.sizes.get(FEW_SHOT, 0)

    @property
    def few_shot_sources(self) -> frozenset[str]:
        """Names of the collections that few-shot examples are built from."""
        wanted = [part for part, used in self.few_shot_from.items() if used] or list(self.parts)
        return frozenset(self.parts[part].name for part in wanted)

    @property
    def sizes(self) -> dict[str, int]:
        """Examples of each part."""
        return split_by_share(self.size, self.shares)

    def of_size(self, size: int) -> "TaskMix":
        return replace(self, size=size)

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where a part has fewer rows than its share."""
        for part, size in self.sizes.items():
            if size and part != FEW_SHOT:
                yield from sized(self.parts[part], size, self.seed, self.caps.get(part)).stream()
