"""Strategies chosen from measured performance: few probes where the best is clear, more where it is not.

    group            strategies still in        round 1   round 2   round 3
    date_reasoning   direct                     0/4       out
                     step_by_step               3/4       5/8       out
                     recall_reason_generate     4/4       8/8       12/12    P(best) = 0.97: chosen

The paper chooses "guided by the performance of Orca" and gives no procedure (arXiv 2311.11045, section 3);
this one is
ours. Every strategy still in is asked the same items. Its accuracy has the posterior Beta(1 + right, 1 + not
right);
its score is the accuracy, averaged over the judges (teacher, student or both), less a cost per token.
"""

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orca2.answers.verification.checkers import Outcome
from orca2.errors import ConfigError, DataError
from orca2.rows.items import TaskItem

DRAWS = 4000
"""Draws of the posteriors per estimate of P(best): its standard error is below 0.008."""
UNCHECKED = "no item has an answer that a rule can check"


class Trial(NamedTuple):
    """One question asked under one strategy."""

    item: TaskItem
    strategy: str


class Measured(NamedTuple):
    """What became of a trial. An answer that was cut off, refused or cannot be read is of no use, so it counts as not
    right."""

    outcome: Outcome
    tokens: int
    """Length of the answer, in the judge's tokens."""


Judge = Callable[[Sequence[Trial]], Awaitable[Sequence[Measured]]]
"""Answers a round of trials of all groups together, so that a server sees many requests at once; same order."""
Rounds = Callable[[Mapping[str, "GroupEvidence"]], None]
"""Told of the evidence so far after each round, for a line of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGroup:
    """Tasks that share a strategy, the strategies that they can be answered under, and items to probe them
    with."""

    tasks: tuple[str, ...]
    strategies: tuple[str, ...]
    items: tuple[TaskItem, ...]


@dataclass(slots=True, kw_only=True)
class Trials:
    """Trials of one strategy by one judge."""

    asked: int = 0
    right: int = 0
    undecided: int = 0
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class StrategyEvidence:
    """What was found out about one strategy in one group."""

    tallies: dict[str, Trials]
    """Judge to its trials."""
    p_best: float = 0.0
    """Probability that no other strategy scores higher by more than the indifference, when last estimated."""
    status: Literal["in", "out", "chosen"] = "in"

    @property
    def score(self) -> float:
        """Posterior mean of the accuracy, averaged over judges."""
        return float(np.mean([(1 + tally.right) / (2 + tally.asked) for tally in self.tallies.values()]))

    @property
    def mean_tokens(self) -> float:
        asked = sum(tally.asked for tally in self.tallies.values())
        return sum(tally.tokens for tally in self.tallies.values()) / asked if asked else 0.0


@dataclass(slots=True, kw_only=True)
class GroupEvidence:
    """What was found out about one group; `reason` says why asking stopped."""

    tasks: tuple[str, ...]
    strategies: dict[str, StrategyEvidence]
    chosen: str | None = None
    reason: str = ""
    calls: int = 0
    full_grid: int = 0
    """Calls that every strategy on every item by every judge would have taken."""
    probed: int = field(default=0, repr=False)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Successive elimination over strategies.

    Raises:
        ConfigError: a value outside its range.
    """

    name: str
    probes: int = 128
    """Most items per group; ours. Few groups need as many, and with 64 the best was missed twice as often."""
    round_size: int = 4
    """Items that each strategy still in is asked per round; ours."""
    confidence: float = 0.97
    """P(best) at which a group is settled; ours."""
    hopeless: float = 0.01
    """P(best) below which a strategy is asked no more; ours."""
    indifference: float = 0.01
    """Difference in score that does not matter; ours."""
    token_cost: float = 0.02
    """Accuracy that 1,000 further tokens of an answer must earn; ours."""
    seed: int = 0

    def __post_init__(self) -> None:
        for key, low, high in (("confidence", 0.5, 1.0), ("hopeless", 0.0, 0.5), ("indifference", 0.0, 1.0)):
            if not low <= getattr(self, key) < high:
                raise ConfigError(
                    f"selection={self.name}: {key} is {getattr(self, key)}; {low} <= {key} < {high} is needed"
                )
        if not 1 <= self.round_size <= self.probes:
            raise ConfigError(
                f"selection={self.name}: round_size is {self.round_size}, probes is {self.probes}; "
                "1 <= round_size <= probes is needed"
            )
        if self.token_cost < 0:
            raise ConfigError(f"selection={self.name}: token_cost is {self.token_cost}; it may not be below 0")

    async def run(
        self, groups: Mapping[str, TaskGroup], judges: Mapping[str, Judge], after_round: Rounds | None = None
    ) -> dict[str, GroupEvidence]:
        """The evidence per group. Groups without a checkable item are not asked and get no strategy.

        Raises DataError for groups without strategies, ConfigError without judges or where one skips trials.
        """
        if not judges:
            raise ConfigError(f"selection={self.name}: no judge; measure with a teacher, a student or both")
        state = {name: self._start(name, group, judges) for name, group in groups.items()}
        items = {name: self._shuffled(name, group)[: self.probes] for name, group in groups.items()}
        while trials := self._round(state, items):
            for judge, ask in judges.items():
                measured = await ask([trial for _, trial in trials])
                if len(measured) != len(trials):
                    raise ConfigError(f"judge {judge!r} answered {len(measured)} of {len(trials)} trials")
                for (name, trial), result in zip(trials, measured, strict=True):
                    _add(state[name], trial.strategy, judge, result)
            for name in {name for name, _ in trials}:
                state[name].probed += min(self.round_size, len(items[name]) - state[name].probed)
                self._judge(state[name], len(items[name]), Random(f"{self.seed}/{name}/{state[name].probed}"))
            if after_round is not None:
                after_round(state)
        return state

    def grid(self, groups: Mapping[str, TaskGroup]) -> Iterator[Trial]:
        """All trials that a judge may be asked at most: every strategy on every item."""
        for name, group in groups.items():
            for item in self._shuffled(name, group)[: self.probes]:
                yield from (Trial(item, strategy) for strategy in group.strategies)

    def _start(self, name: str, group: TaskGroup, judges: Iterable[str]) -> GroupEvidence:
        if not group.strategies:
            raise DataError(f"selection: group {name!r} has no strategy to choose from")
        checkable = [item for item in group.items if _checkable(item)][: self.probes]
        tallies = {strategy: {judge: Trials() for judge in judges} for strategy in group.strategies}
        return GroupEvidence(
            tasks=group.tasks,
            strategies={strategy: StrategyEvidence(tallies=tally) for strategy, tally in tallies.items()},
            reason="" if checkable else UNCHECKED,
            full_grid=len(group.strategies) * len(checkable) * len(list(judges)),
        )

    def _shuffled(self, name: str, group: TaskGroup) -> list[TaskItem]:
        checkable = [item for item in group.items if _checkable(item)]
        Random(f"{self.seed}/{name}").shuffle(checkable)
        return checkable

    def _round(
        self, state: Mapping[str, GroupEvidence], items: Mapping[str, Sequence[TaskItem]]
    ) -> list[tuple[str, Trial]]:
        """The next items of every open group, under each of its strategies still in."""
        return [
            (name, Trial(item, strategy))
            for name, group in state.items()
            if not group.reason
            for item in items[name][group.probed : group.probed + self.round_size]
            for strategy, evidence in group.strategies.items()
            if evidence.status == "in"
        ]

    def _judge(self, group: GroupEvidence, items: int, rng: Random) -> None:
        """Drop what is hopeless, and settle the group where one is good enough or the items are used up."""
        alive = {name: one for name, one in group.strategies.items() if one.status == "in"}
        for name, chance in self._p_best(alive, rng).items():
            alive[name].p_best = chance
        # Equal chances go to the shorter answers.
        leader = max(alive, key=lambda name: (alive[name].p_best, -alive[name].mean_tokens, name))
        for name, one in alive.items():
            if name != leader and one.p_best < self.hopeless:
                one.status = "out"
        alone = all(one.status == "out" for name, one in alive.items() if name != leader)
        if alone or alive[leader].p_best >= self.confidence:
            group.reason = f"P(best) is {alive[leader].p_best:.2f}"
        elif group.probed >= items:
            group.reason = f"all {items} items were asked; P(best) is {alive[leader].p_best:.2f}"
        if group.reason:
            group.chosen = leader
            alive[leader].status = "chosen"

    def _p_best(self, alive: Mapping[str, StrategyEvidence], rng: Random) -> dict[str, float]:
        """P(score is within `indifference` of the best other's), by draws from the posteriors."""
        generator = np.random.default_rng(rng.getrandbits(64))
        scores: NDArray[np.float64] = np.stack(
            [
                np.mean(
                    [
                        generator.beta(1 + tally.right, 1 + tally.asked - tally.right, DRAWS)
                        for tally in one.tallies.values()
                    ],
                    axis=0,
                )
                - self.token_cost * one.mean_tokens / 1000
                for one in alive.values()
            ]
        )
        if len(alive) == 1:
            return dict.fromkeys(alive, 1.0)
        others = np.stack([np.delete(scores, place, axis=0).max(axis=0) for place in range(len(alive))])
        return dict(zip(alive, (scores >= others - self.indifference).mean(axis=1).tolist(), strict=True))


def group_items(
    items: Iterable[TaskItem], strategies: Sequence[str], by: Literal["task", "category"], most: int
) -> dict[str, TaskGroup]:
    """Groups of at most `most` items; each offers the strategies that all of its items can be answered under.

    `most` items are taken evenly over a group's tasks, in the order of the collection.
    """
    held: dict[str, dict[str, list[TaskItem]]] = defaultdict(lambda: defaultdict(list))
    offered: dict[str, tuple[str, ...]] = {}
    for item in items:
        group = item.task if by == "task" else item.category
        if len(held[group][item.task]) < most:
            held[group][item.task].append(item)
        allowed = offered.get(group, tuple(strategies))
        offered[group] = tuple(one for one in allowed if item.offered is None or one in item.offered)
    groups = {}
    for name, tasks in held.items():
        each = math.ceil(most / len(tasks))
        taken = tuple(item for rows in tasks.values() for item in rows[:each])
        groups[name] = TaskGroup(tasks=tuple(sorted(tasks)), strategies=offered[name], items=taken)
    return groups


def by_task(evidence: Mapping[str, GroupEvidence]) -> dict[str, str]:
    """Task to its chosen strategy; tasks that were not measured are left to the mixture."""
    return {task: one.chosen for one in evidence.values() if one.chosen is not None for task in one.tasks}


def _add(group: GroupEvidence, strategy: str, judge: str, measured: Measured) -> None:
    tally = group.strategies[strategy].tallies[judge]
    tally.asked += 1
    tally.right += measured.outcome == "right"
    tally.undecided += measured.outcome == "undecided"
    tally.tokens += measured.tokens
    group.calls += 1


def _checkable(item: TaskItem) -> bool:
    return bool(item.gold) and item.answer_kind != "text"
