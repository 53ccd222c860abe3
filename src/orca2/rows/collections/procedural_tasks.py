"""The generated task families of `orca2.tasks` as a collection: the rows of `orca2.data.procedural`, before they
are answered.

row 0 addition #0, row 1 boolean_logic #1, ...      families in turn, so that any prefix has their shares
lineage `addition level=1 seed=17 split=train index=0`  ──▶ problem_of(item) ──▶ the rule teacher
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from orca2.errors import ConfigError, DataError
from orca2.records import Rejected
from orca2.rows.items import TaskItem
from orca2.tasks.catalogue import families, family_turns
from orca2.tasks.family import Problem
from orca2.tasks.problems import SPLITS, ProblemSplit, make_problem

_LINEAGE = re.compile(r"(\w+) level=(\d+) seed=(-?\d+) split=(\w+) index=(\d+)")


@dataclass(frozen=True, kw_only=True)
class ProceduralTasks:
    """`size` problems; row r is problem number r of its family, as in `ProceduralSource`.

    Raises:
        ConfigError: a family, weight, split, level or size that does not exist.
    """

    name: str
    size: int
    seed: int
    level: int
    split: ProblemSplit = "train"
    families: Mapping[str, float] | None = None
    """Family to weight, exact to two decimals; None for all, each with its own share."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"tasks={self.name}: size is {self.size}; ask for at least 1 item")
        if self.split not in SPLITS:
            raise ConfigError(f"tasks={self.name}: split is {self.split!r}; allowed are {', '.join(SPLITS)}")
        for family in family_turns(self.families):
            if self.level not in family.levels:
                raise ConfigError(
                    f"tasks={self.name}: family {family.name!r} has levels {list(family.levels)}, not {self.level}"
                )

    def of_size(self, size: int) -> "ProceduralTasks":
        return replace(self, size=size)

    def stream(self) -> Iterator[TaskItem | Rejected]:
        turns = family_turns(self.families)
        for row in range(self.size):
            family = turns[row % len(turns)]
            problem = make_problem(family, self.seed, self.split, row, self.level)
            yield TaskItem(
                id=f"{self.name}/{family.name}/{self.split}-{self.seed}-{self.level}-{row}",
                collection=self.name,
                task=family.name,
                category=family.name,
                user=problem.question,
                gold=(problem.answer,),
                answer_kind=family.answer_kind,
                suggested=family.best,
                offered=family.strategies,
                licence="generated",
                lineage=f"{family.name} level={self.level} seed={self.seed} split={self.split} index={row}",
            )


def is_generated(item: TaskItem) -> bool:
    """Whether `problem_of` knows the problem behind an item."""
    return _LINEAGE.fullmatch(item.lineage) is not None


def problem_of(item: TaskItem) -> Problem[Any]:
    """The problem behind a generated item. Raises DataError for an item of another collection."""
    match = _LINEAGE.fullmatch(item.lineage)
    if match is None:
        raise DataError(f"item {item.id}: lineage {item.lineage!r} is not that of a generated task")
    name, level, seed, split, index = match.groups()
    return make_problem(families([name])[name], int(seed), cast(ProblemSplit, split), int(index), int(level))
