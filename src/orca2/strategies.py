"""Strategies, and the choice of a strategy for each task.

A strategy is an instruction that only the teacher sees. A user's `strategy=` is a
`StrategyChoice`: it assigns a strategy to each row of a generated task, and says which examples of stored
data are used.

    strategy=direct   every row is answered under `direct`; of stored data, the examples labelled `direct`
    strategy=mixed    each task has its own strategy;       the examples labelled with their task's strategy
    strategy=random   each row draws one of the members;    all examples
    strategy=any      (answers nothing)                     all examples

Examples labelled `UNLABELLED` (gold answers) are used under every choice.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orca2.errors import ConfigError
from orca2.hashing import hash64
from orca2.records import UNLABELLED


class StrategyChoice(Protocol):
    """Decides which strategy answers which task."""

    @property
    def name(self) -> str: ...

    def assign(
        self, task: str, key: str, offered: Collection[str] | None = None, suggested: str | None = None
    ) -> "Strategy | None":
        """The strategy under which a row is answered; None where this choice has none, and the row is left
        out.

        `key` identifies the row and seeds a random choice. `offered` names the strategies that the task can
        be answered under (None: any). `suggested` is the task's own strategy.
        """
        ...

    def accepts(self, task: str, label: str, suggested: str | None = None) -> bool:
        """Whether a stored example that was made under the strategy `label` is used."""
        ...


@dataclass(frozen=True)
class Strategy:
    """One way of reasoning that the teacher is told to use, for every task.

    Raises:
        ConfigError: the name or the instruction is empty, or the name is the label of examples without a
            strategy.
    """

    name: str
    instruction: str

    def __post_init__(self) -> None:
        if not self.name.strip() or self.name == UNLABELLED:
            raise ConfigError(
                f"strategy name {self.name!r} cannot be used: it must not be empty, nor {UNLABELLED!r}, the "
                "label of examples that no strategy made; rename the strategy and its file"
            )
        if not self.instruction.strip():
            raise ConfigError(f"strategy {self.name!r} has an empty instruction; write what the teacher is told")

    def assign(
        self, task: str, key: str, offered: Collection[str] | None = None, suggested: str | None = None
    ) -> "Strategy | None":
        return self if offered is None or self.name in offered else None

    def accepts(self, task: str, label: str, suggested: str | None = None) -> bool:
        return label in (self.name, UNLABELLED)


@dataclass(frozen=True)
class StrategyMixture:
    """Each task has its strategy: `by_task` decides, then the task's own suggestion, then `default`.

    The paper chooses by hand, per sub-category of tasks (arXiv 2311.11045, section 3), so tasks are named
    one by one.

    Raises:
        ConfigError: no members, a member under another name than its own, or a task or the default mapped
            to a
            strategy that is not a member.
    """

    name: str
    members: Mapping[str, Strategy]
    by_task: Mapping[str, str]
    default: str

    def __post_init__(self) -> None:
        _check_members(self.name, self.members)
        _check_is_member(f"strategy={self.name}: default", self.default, self.members)
        for task, strategy in self.by_task.items():
            _check_is_member(f"strategy={self.name}: by_task.{task}", strategy, self.members)

    def assign(
        self, task: str, key: str, offered: Collection[str] | None = None, suggested: str | None = None
    ) -> Strategy | None:
        chosen = self._strategy_of(task, suggested)
        return self.members[chosen] if offered is None or chosen in offered else None

    def accepts(self, task: str, label: str, suggested: str | None = None) -> bool:
        return label in (self._strategy_of(task, suggested), UNLABELLED)

    def _strategy_of(self, task: str, suggested: str | None) -> str:
        if task in self.by_task:
            return self.by_task[task]
        if suggested is not None and suggested in self.members:
            return suggested
        return self.default


@dataclass(frozen=True)
class RandomStrategy:
    """Each row draws one of the members that its task offers, evenly, by its key: the control for `mixed`.

    Raises:
        ConfigError: no members, or a member under another name than its own.
    """

    name: str
    members: Mapping[str, Strategy]
    seed: int
    _sorted_names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_members(self.name, self.members)
        # Sorted, so that the order of the YAML file does not change the draw.
        object.__setattr__(self, "_sorted_names", tuple(sorted(self.members)))

    def assign(
        self, task: str, key: str, offered: Collection[str] | None = None, suggested: str | None = None
    ) -> Strategy | None:
        names = [name for name in self._sorted_names if offered is None or name in offered]
        if not names:
            return None
        return self.members[names[hash64(f"{self.seed}/{task}/{key}") % len(names)]]

    def accepts(self, task: str, label: str, suggested: str | None = None) -> bool:
        return True


@dataclass(frozen=True)
class AnyStrategy:
    """Every stored example, whatever strategy made it. It answers no generated task: it has no instruction."""

    name: str

    def assign(
        self, task: str, key: str, offered: Collection[str] | None = None, suggested: str | None = None
    ) -> Strategy | None:
        return None

    def accepts(self, task: str, label: str, suggested: str | None = None) -> bool:
        return True


def _check_members(choice: str, members: Mapping[str, Strategy]) -> None:
    if not members:
        raise ConfigError(f"strategy={choice} has no members; gather some in its defaults list")
    for key, member in members.items():
        if key != member.name:
            raise ConfigError(
                f"strategy={choice}: members.{key} holds the strategy {member.name!r}; "
                f"write `{member.name}@members.{member.name}` in the defaults list"
            )


def _check_is_member(where: str, strategy: str, members: Iterable[str]) -> None:
    names = sorted(members)
    if strategy in names:
        return
    near = difflib.get_close_matches(strategy, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(
        f"{where} is {strategy!r}, which is not a member; members are {', '.join(names)}{hint} "
        "Name a member, or add the strategy to the defaults list"
    )
