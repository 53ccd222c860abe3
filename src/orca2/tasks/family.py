"""What a task family is: a drawer of problems and one teacher per strategy.

Draw(question, answer, state)        what a family's `draw` returns
Problem(family, level, ...)          the same, with its origin
Family(name, ..., draw, teachers)    `problem(rng, level)`, `trace(problem, strategy)`
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Generic, NamedTuple, TypeVar

from orca2.errors import ConfigError
from orca2.records import AnswerKind
from orca2.tasks.traces import final_form, final_line

State = TypeVar("State")

LEVELS = (1, 2, 3)
"""1 is what a student of about a million parameters learns in minutes; 2 and 3 are longer chains."""

DIRECT = "direct"
REQUIRED = frozenset({"step_by_step", "explain_then_answer"})
STRATEGIES = (
    DIRECT,
    "step_by_step",
    "explain_then_answer",
    "recall_then_generate",
    "recall_reason_generate",
    "extract_then_generate",
    "guess_and_check",
)
"""The strategies whose layout `traces.py` fixes, and so the only ones a family can offer."""


class Draw(NamedTuple, Generic[State]):
    """One drawn question, its answer, and what the teachers need to explain it."""

    question: str
    answer: str
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Generic[State]):
    """One checkable question."""

    family: str
    level: int
    question: str
    answer: str
    state: State
    """The family's own record of the truth behind the question; a family's teachers read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Generic[State]):
    """A kind of question, how to draw one, and how to answer it under each strategy.

    Raises ConfigError when a strategy is unknown, a required one is missing, or `best` is not offered, or when no final
    line can hold an answer of its kind.
    """

    name: str
    answer_kind: AnswerKind
    best: str
    """The strategy that a small student needs; the mixture gives it to this family."""
    draw: Callable[[Random, int], Draw[State]]
    """(rng, level) -> Draw. All randomness comes from `rng`."""
    teachers: Mapping[str, Callable[[Problem[State]], str]]
    """Strategy name -> the body of the answer, without the final line. `direct` needs no entry."""
    levels: tuple[int, ...] = LEVELS
    share: int = 1
    """Rows in each turn through the families; 2 for one that a tiny student is slow to learn."""

    def __post_init__(self) -> None:
        final_form(self.answer_kind)
        unknown = sorted(set(self.teachers) - set(STRATEGIES[1:]))
        if unknown:
            raise ConfigError(
                f"task family {self.name!r} has teachers for {unknown}; allowed are {list(STRATEGIES[1:])}"
            )
        missing = sorted(REQUIRED - set(self.teachers))
        if missing:
            raise ConfigError(
                f"task family {self.name!r} has no teacher for {missing}; "
                "add one, every family needs these so that single-strategy ablations cover it"
            )
        if self.best not in self.strategies:
            raise ConfigError(
                f"task family {self.name!r} names {self.best!r} as its best strategy, "
                f"but offers only {list(self.strategies)}"
            )

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the strategies offered, in the order of `STRATEGIES`."""
        return tuple(name for name in STRATEGIES if name == DIRECT or name in self.teachers)

    def problem(self, rng: Random, level: int) -> Problem[State]:
        """Draw a problem. Raises ConfigError for a level that the family does not have."""
        if level not in self.levels:
            raise ConfigError(f"task family {self.name!r} has levels {list(self.levels)}, not {level!r}")
        question, answer, state = self.draw(rng, level)
        return Problem(family=self.name, level=level, question=question, answer=answer, state=state)

    def trace(self, problem: Problem[State], strategy: str) -> str:
        """The teacher's full answer under `strategy`. Raises ConfigError for one that is not offered."""
        if strategy == DIRECT:
            return final_line(problem.answer)
        if strategy not in self.teachers:
            raise ConfigError(
                f"task family {self.name!r} cannot be answered under {strategy!r}; it offers {list(self.strategies)}"
            )
        return f"{self.teachers[strategy](problem)}\n{final_line(problem.answer)}"
