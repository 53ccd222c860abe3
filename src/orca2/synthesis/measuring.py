"""`strategy=measured`: a few items are asked under every strategy, and each group of tasks gets the one that did best.

    tasks ──▶ groups ──▶ rounds of probes ──▶ teacher ┐
                                          └▶ student ┴▶ verdicts ──▶ evidence ──▶ <out_dir>/strategy/<name>.yaml
                                                                                  read again when the run resumes

A probe is sent as the synthesis would send it, so the answers under the chosen strategy are paid for once. The
teacher's probes count against the budget of the data set; the student's own do not.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from orca2.answers.verification.checkers import OUTCOMES, Verifier
from orca2.answers.verification.presets import Verification
from orca2.asking.budget import Budget
from orca2.asking.cache import Cache
from orca2.asking.engine import Asking, asking
from orca2.asking.model import Model
from orca2.errors import ConfigError, DataError
from orca2.rows.items import TaskItem
from orca2.serving.outcomes import FailureKind
from orca2.serving.retries import Retry
from orca2.strategies import Strategy, StrategyMixture
from orca2.synthesis.answering import Answering, AskedItem, ItemOutcome
from orca2.synthesis.evidence import FOLDER, outcome_path, read_outcome, write_selection
from orca2.synthesis.instructions import InstructionSource
from orca2.synthesis.items_line import ProbesLine
from orca2.synthesis.selection import (
    GroupEvidence,
    Measured,
    Selection,
    TaskGroup,
    Trial,
    by_task,
    group_items,
)

PASSING: frozenset[FailureKind] = frozenset({"exhausted", "invalid", "missing"})
"""Failures of the server or the settings, not of the strategy: as evidence they would call it bad for good."""

FINDINGS: tuple[FailureKind, ...] = ("truncated",)
"""A weak student that ends no answer has been measured; a server that gives none has not."""


@dataclass(frozen=True, kw_only=True)
class MeasuredStrategy:
    """A strategy choice that is still to be measured; `measure` turns it into a mixture. The numbers are `Selection`'s.

    Raises:
        ConfigError: nobody is asked, a member or the default that does not fit, or a number outside its range.
    """

    name: str
    members: Mapping[str, Strategy]
    default: str
    """Strategy of tasks that cannot be measured, as no rule checks their answers, and whose kind suggests none."""
    by: Literal["task", "category"]
    """What shares a strategy: `task` for few large tasks, `category` for many small ones."""
    ask_teacher: bool
    probes: int
    round_size: int
    confidence: float
    hopeless: float
    indifference: float
    token_cost: float
    seed: int
    student: Model | None = None
    """A checkpoint that is asked as well; it should have seen the strategies, so train it with erasing=keep."""
    selection: Selection = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Checks members and default.
        self.mixture({})
        if not self.ask_teacher and self.student is None:
            raise ConfigError(
                f"strategy={self.name}: nobody is asked; set strategy.ask_teacher=true, or name a student such as "
                "teacher@strategy.student=local strategy.student.path=runs/x/student"
            )
        if self.by not in ("task", "category"):
            raise ConfigError(f"strategy={self.name}: by is {self.by!r}; allowed are task and category")
        selection = Selection(
            name=self.name,
            probes=self.probes,
            round_size=self.round_size,
            confidence=self.confidence,
            hopeless=self.hopeless,
            indifference=self.indifference,
            token_cost=self.token_cost,
            seed=self.seed,
        )
        object.__setattr__(self, "selection", selection)

    def mixture(self, by_task: Mapping[str, str], name: str | None = None) -> StrategyMixture:
        """The choice once it is measured."""
        return StrategyMixture(name or self.name, self.members, dict(by_task), self.default)

    def assign(
        self, task: str, key: str, offered: Collection[str] | None = None, suggested: str | None = None
    ) -> Strategy | None:
        raise self._unmeasured()

    def accepts(self, task: str, label: str, suggested: str | None = None) -> bool:
        raise self._unmeasured()

    def _unmeasured(self) -> ConfigError:
        return ConfigError(
            f"strategy={self.name} has yet to be measured, which `python synthesize.py strategy={self.name}` does; "
            f"then name its outcome: strategy=<out_dir>/{FOLDER}/<name>.yaml"
        )


class AskedJudge:
    """Answers trials through an engine, as the synthesis itself would."""

    def __init__(
        self,
        asked: Asking,
        answering: Answering,
        instructions: InstructionSource,
        members: Mapping[str, Strategy],
        line: ProbesLine | None,
    ) -> None:
        self._asked, self._answering = asked, answering
        self._instructions, self._members = instructions, members
        self._line = line

    async def __call__(self, trials: Sequence[Trial]) -> list[Measured]:
        """Raises ConfigError where the instructions do not follow the strategy, DataError where a probe got no answer
        for a reason that may pass, and what the engine raises."""
        items = [as_asked(trial, self._instructions, self._members) for trial in trials]
        answers = []
        async for _, answered in self._asked.map(items, self._answering):
            answers.append(answered)
            if self._line is not None:
                self._line.add()
        # Raised after the round, so that none of its answers is lost.
        return [_measured(answered) for answered in answers]


def as_asked(trial: Trial, instructions: InstructionSource, members: Mapping[str, Strategy]) -> AskedItem:
    """A trial with what its teacher is told. Raises ConfigError where the instructions do not follow the strategy."""
    instruction = instructions.instruct(trial.item, members[trial.strategy])
    if instruction is None or instruction.strategy != trial.strategy:
        raise ConfigError(
            "strategies cannot be measured under instructions that do not follow them; take instructions=orca2"
        )
    return AskedItem(trial.item, instruction)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What measuring needs of a synthesis."""

    strategy: MeasuredStrategy
    instructions: InstructionSource
    teacher: Model
    cache: Cache
    budget: Budget
    retry: Retry
    timeout: float
    """Seconds for comparing two expressions."""

    async def evidence(
        self, groups: Mapping[str, TaskGroup], run: str, line: ProbesLine | None = None
    ) -> dict[str, GroupEvidence]:
        """Ask until each group is settled. `run` names the teacher's account; `line` shows what has come.

        Raises BudgetStop at a cap, and the errors of the teacher.
        """
        plan = Verification(name="probes", keep=dict.fromkeys(OUTCOMES, True), samples=1, timeout=self.timeout)
        judges: dict[str, AskedJudge] = {}
        async with AsyncExitStack() as stack:
            verifier = stack.enter_context(Verifier(self.timeout))
            for name, teacher, budget, account in self._judges(run):
                opened = asking(teacher, self.cache, budget, account, self.retry, evidence=FINDINGS)
                asked = await stack.enter_async_context(opened)
                answering = Answering(teacher, plan, verifier, ())
                judges[name] = AskedJudge(asked, answering, self.instructions, self.strategy.members, line)
            return await self.strategy.selection.run(groups, judges, line.rounds if line is not None else None)

    def groups(self, items: Iterable[object]) -> dict[str, TaskGroup]:
        """The groups of a stream of items, with as many items each as may be probed.

        Raises DataError where none can be measured.
        """
        rows = (row for row in items if isinstance(row, TaskItem))
        strategy = self.strategy
        groups = group_items(rows, list(strategy.members), strategy.by, strategy.probes)
        if not groups:
            raise DataError(f"strategy={strategy.name}: the tasks have no items to probe")
        return groups

    def grid(self, items: Iterable[object]) -> Iterator[AskedItem]:
        """Every request that measuring may send to the teacher: all probes under all strategies.

        Raises as `groups`, and ConfigError where the instructions do not follow the strategy.
        """
        if self.strategy.ask_teacher:
            for trial in self.strategy.selection.grid(self.groups(items)):
                yield as_asked(trial, self.instructions, self.strategy.members)

    def most(self, groups: Mapping[str, TaskGroup]) -> int:
        """The full grid: every strategy on every item, for each judge."""
        return sum(1 for _ in self.strategy.selection.grid(groups)) * len(self._judges(""))

    def _judges(self, run: str) -> list[tuple[str, Model, Budget, str]]:
        judges = [("teacher", self.teacher, self.budget, run)] if self.strategy.ask_teacher else []
        if self.strategy.student is not None:
            judges.append(("student", self.strategy.student, Budget(), f"student of {run}"))
        return judges

    def write(self, evidence: Mapping[str, GroupEvidence], name: str, folder: Path) -> Path:
        """Write the outcome; returns the path of its config."""
        return write_selection(evidence, name, list(self.strategy.members), self.strategy.default, folder)


def measured_mixture(
    measurement: Measurement, items: Iterable[object], name: str, folder: Path, run: str, console: Console
) -> StrategyMixture:
    """The mixture that an earlier process measured in this folder, or measure it now. Says what was chosen.

    Raises as `Measurement.groups` and `Measurement.evidence`, and DataError where the stored outcome is damaged.
    """
    config = outcome_path(folder, name)
    if config.is_file():
        console.print(f"strategies were measured before: {config}")
        return measurement.strategy.mixture(read_outcome(config), name)
    groups = measurement.groups(items)
    with ProbesLine(console, measurement.most(groups), len(groups)) as line:
        evidence = asyncio.run(measurement.evidence(groups, run, line))
    config = measurement.write(evidence, name, folder)
    calls, grid = (sum(getattr(one, key) for one in evidence.values()) for key in ("calls", "full_grid"))
    chosen = Counter(one.chosen or "not measured" for one in evidence.values())
    console.print(
        f"strategies measured with {calls:,} probes of the {grid:,} of the full grid: "
        f"{', '.join(f'{strategy} {count:,}' for strategy, count in chosen.most_common())}; "
        f"evidence: {config.with_suffix('.md')}"
    )
    return measurement.strategy.mixture(by_task(evidence), name)


def _measured(answered: object) -> Measured:
    assert isinstance(answered, ItemOutcome)
    if answered.kept is None:
        for _, failure in answered.failures:
            if failure.kind in PASSING:
                raise DataError(
                    f"a probe of {answered.item.id} under {answered.strategy} has no answer: {failure.kind}: "
                    f"{failure.reason}; that says nothing about the strategy, so nothing is chosen. Mend it and run "
                    "the same command again: what was answered is in the cache"
                )
        return Measured("wrong", sum(failure.usage.completion_tokens for _, failure in answered.failures))
    verdict, usage = answered.kept.verdict, answered.kept.usage
    outcome = next(one for one in OUTCOMES if one == verdict)
    return Measured(outcome, usage["completion_tokens"] if usage else 0)
