"""What the teacher is told: one instruction per row, from its strategy and the category of its task.

    task217_rocstories_ordering   ──by_task──▶  story_ordering  ──▶ strategy recall_reason_generate
    category "Question Answering" ──by_category──▶ question_answering     + its own five-step text

    strategy chosen == the category's   the category's text, written for this kind of task
    strategy chosen otherwise           the strategy's general text

`InstructionLibrary` does this (Orca 2, arXiv 2311.11045, section 3: one instruction per sub-category);
`ExplanationTuning` draws one of Orca 1's sixteen kinds of system message (arXiv 2306.02707, table 2).
"""

import bisect
import fnmatch
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orca2.errors import ConfigError
from orca2.hashing import hash64
from orca2.rows.items import TaskItem
from orca2.strategies import StrategyChoice

Calls = Literal["one", "draft_then_check", "conversation_then_note"]
"""How many calls of the teacher an answer takes; see `orca2.synthesis.builders.plans`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What one row's teacher is told."""

    strategy: str
    """Label of the stored example."""
    system: str
    """The system message; may be empty (Orca 1's first message is)."""
    calls: Calls = "one"
    check: str = ""
    """The second user message of `draft_then_check`, or the note's instruction of
    `conversation_then_note`."""
    suggested: str | None = None
    """What the choice was told to be the task's own strategy; stored, so that training chooses alike."""


class InstructionSource(Protocol):
    """How rows get their instructions."""

    @property
    def name(self) -> str: ...

    def instruct(self, item: TaskItem, choice: StrategyChoice) -> Instruction | None:
        """The row's instruction; None if `choice` has no strategy for this task: the row is left out and counted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A kind of task with its assigned strategy and the instruction written for both.

    Raises:
        ConfigError: an empty text, or a second call without its text.
    """

    strategy: str
    instruction: str
    calls: Calls = "one"
    check: str = ""

    def __post_init__(self) -> None:
        if not self.instruction.strip() or not self.strategy.strip():
            raise ConfigError("a category needs a `strategy` and an `instruction` that are not empty")
        if (self.calls != "one") != bool(self.check.strip()):
            raise ConfigError(
                f"calls is {self.calls!r} and check is {self.check!r}; a second call needs a text in `check`"
            )


@dataclass(frozen=True, kw_only=True)
class InstructionLibrary:
    """Instructions by category; a row's category comes from its task, then from its collection's category.

    Raises:
        ConfigError: a table that names an unknown category, or a category with a missing or unknown key.
    """

    name: str
    categories: Mapping[str, Mapping[str, Any]]
    by_task: Mapping[str, str]
    """Pattern of task names, as `*_ordering_*`, to category; the first that fits decides."""
    by_category: Mapping[str, str]
    """A collection's own name of a category to ours; names that are ours need no entry."""
    _known: dict[str, Category] = field(default_factory=dict, init=False, repr=False, compare=False)
    _found: dict[tuple[str, str], Category | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """(task, category) of rows so far to their category: looking through all patterns takes longer than a rule takes
    to answer."""

    def __post_init__(self) -> None:
        known = sorted(self.categories)
        for table, entries in (("by_task", self.by_task), ("by_category", self.by_category)):
            for key, category in entries.items():
                if category not in self.categories:
                    raise ConfigError(f"instructions={self.name}: {table}.{key} is {category!r}; known: {known}")
        for name, values in self.categories.items():
            try:
                self._known[name] = Category(**values)
            except (TypeError, ConfigError) as error:
                raise ConfigError(f"instructions={self.name}: categories.{name}: {error}") from error

    def category_of(self, item: TaskItem) -> Category | None:
        """The category of a row; None for kinds of task that have no instruction of their own."""
        kind = item.task, item.category
        if kind not in self._found:
            self._found[kind] = self._find(*kind)
        return self._found[kind]

    def _find(self, task: str, category: str) -> Category | None:
        fitting = (name for pattern, name in self.by_task.items() if fnmatch.fnmatchcase(task, pattern))
        name = next(fitting, self.by_category.get(category, category))
        return self._known.get(name)

    def suggested(self, item: TaskItem) -> str | None:
        """The strategy that the mixture uses where it does not name the task: the source's own, then the
        category's."""
        if item.suggested is not None:
            return item.suggested
        category = self.category_of(item)
        return category.strategy if category is not None else None

    def instruct(self, item: TaskItem, choice: StrategyChoice) -> Instruction | None:
        suggested = self.suggested(item)
        strategy = choice.assign(item.task, item.id, item.offered, suggested)
        if strategy is None:
            return None
        category = self.category_of(item)
        if category is None or category.strategy != strategy.name:
            return Instruction(strategy=strategy.name, system=strategy.instruction, suggested=suggested)
        return Instruction(
            strategy=strategy.name,
            system=category.instruction,
            calls=category.calls,
            check=category.check,
            suggested=suggested,
        )


@dataclass(frozen=True, kw_only=True)
class ExplanationTuning:
    """Orca 1's system messages: each collection draws from its own, by weight and the row's id.

    The label of an example is the message's name; the strategy choice plays no part. A message of
    `choice_only`
    is drawn for multiple-choice questions alone, the others share its weight elsewhere.

    Raises:
        ConfigError: a collection or `choice_only` that names an unknown message, or a collection without
        messages.
    """

    name: str
    messages: Mapping[str, str]
    weights: Mapping[str, Mapping[str, float]]
    """Collection to message to weight; `default` is for collections that are not named."""
    choice_only: Mapping[str, bool]
    seed: int

    def __post_init__(self) -> None:
        if "default" not in self.weights:
            raise ConfigError(f"instructions={self.name}: weights has no `default` for other collections")
        for collection, weights in self.weights.items():
            unknown = sorted(set(weights) - set(self.messages))
            if unknown:
                raise ConfigError(
                    f"instructions={self.name}: weights.{collection} names {unknown}; known: {sorted(self.messages)}"
                )
            if not any(weight > 0 for key, weight in weights.items() if key not in self.choice_only):
                raise ConfigError(f"instructions={self.name}: weights.{collection} has no message for every question")
        if unknown := sorted(set(self.choice_only) - set(self.messages)):
            raise ConfigError(f"instructions={self.name}: choice_only names {unknown}; known: {sorted(self.messages)}")

    def instruct(self, item: TaskItem, choice: StrategyChoice) -> Instruction | None:
        if item.offered is not None:
            return None  # its teacher knows certain strategies only, and these messages are not among them
        weights = self.weights.get(item.collection, self.weights["default"])
        open_to = {
            key: weight
            for key, weight in sorted(weights.items())
            if item.answer_kind == "choice" or not self.choice_only.get(key, False)
        }
        point = hash64(f"{self.seed}/{item.id}") / 2**64 * sum(open_to.values())
        ends = list(itertools.accumulate(open_to.values()))
        drawn = list(open_to)[min(bisect.bisect_right(ends, point), len(ends) - 1)]
        return Instruction(strategy=drawn, system=self.messages[drawn])
