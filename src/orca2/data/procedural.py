"""Generated tasks as a source: rows are made when they are read, and answered by the rule teacher.

row r  ->  family r % families  ->  problem number r  ->  strategy by choice  ->  trace
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from orca2.errors import ConfigError
from orca2.records import Example, Question, Rejected
from orca2.rows.source import Survey
from orca2.strategies import StrategyChoice
from orca2.tasks.catalogue import family_turns
from orca2.tasks.family import Family
from orca2.tasks.problems import ProblemSplit, make_problem

TEACHER = "rule"


@dataclass(frozen=True, kw_only=True)
class ProceduralSource:
    """`size` generated problems. Raises ConfigError for unknown families, weights or sizes that make no
    sense.
    """

    name: str
    size: int
    """Rows of an epoch. Every epoch visits the same rows."""
    seed: int
    split: ProblemSplit
    level: int
    """Difficulty, 1 to 3."""
    families: Mapping[str, float] | None = None
    """Family -> weight, exact to two decimals. None: all families, each with its own share."""
    _turns: tuple[Family[Any], ...] = field(init=False, repr=False, compare=False)
    """The families of consecutive rows; then it starts over."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"source {self.name!r}: size={self.size}; it must be 1 or more rows")
        try:
            turns = family_turns(self.families)
        except ConfigError as error:
            raise ConfigError(f"source {self.name!r}: {error}") from error
        object.__setattr__(self, "_turns", turns)

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        """Problem `row`, answered under the strategy that `choice` assigns to it."""
        family = self._turns[row % len(self._turns)]
        key = f"{self.name}/{row}"
        strategy = choice.assign(task=family.name, key=key, offered=family.strategies, suggested=family.best)
        if strategy is None:
            reason = f"strategy {choice.name!r} does not answer task {family.name!r}"
            return Rejected(source=self.name, row=key, kind="left_out", reason=reason)
        problem = make_problem(family, self.seed, self.split, row, self.level)
        return Example(
            id=key,
            source=self.name,
            task=family.name,
            strategy=strategy.name,
            system=strategy.instruction,
            user=problem.question,
            answer=family.trace(problem, strategy.name),
            teacher=TEACHER,
            gold=problem.answer,
        )

    def survey(self, choice: StrategyChoice) -> Survey:
        """Counts by family, from one row of each: a choice decides by task whether it answers."""
        rounds, rest = divmod(self.size, len(self._turns))
        kept, left_out = 0, Counter[str]()
        for turn, family in enumerate(self._turns):
            rows = rounds + (turn < rest)
            if choice.assign(family.name, f"{self.name}/{turn}", family.strategies, family.best) is not None:
                kept += rows
            elif rows:
                left_out[f"{family.name}/{choice.name}"] += rows
        return Survey(kept, left_out)

    def questions(self, per_task: int) -> list[Question]:
        """`per_task` held-out problems of each family; by construction no training row asks the same."""
        asked = []
        for family in {family.name: family for family in self._turns}.values():
            for index in range(per_task):
                problem = make_problem(family, self.seed, "held_out", index, self.level)
                asked.append(
                    Question(
                        id=f"{self.name}/held_out/{family.name}/{index}",
                        task=family.name,
                        user=problem.question,
                        gold=problem.answer,
                        kind=family.answer_kind,
                    )
                )
        return asked

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        # Families hold functions of their modules; a worker process finds them again by name.
        return _rebuild, (self.name, self.size, self.seed, self.split, self.level, self.families)


def _rebuild(
    name: str, size: int, seed: int, split: ProblemSplit, level: int, weights: Mapping[str, float] | None
) -> ProceduralSource:
    return ProceduralSource(name=name, size=size, seed=seed, split=split, level=level, families=weights)
