"""Sampling draws as Algorithm 1 does; instructions fit the task."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from orca2.errors import ConfigError, DataError
from orca2.rows.items import TaskItem
from orca2.strategies import Strategy, StrategyMixture
from orca2.synthesis.instructions import ExplanationTuning, InstructionLibrary
from orca2.synthesis.sampling import Sampled, TaskMix, split_by_share, uniform_over_tasks


def item(task: str, number: int, **fields: object) -> TaskItem:
    values = {"collection": "c", "category": "k", "user": "q", "gold": ("1",), "answer_kind": "number"} | fields
    return TaskItem(id=f"c/{task}/{number}", task=task, **values)  # type: ignore[arg-type]


class Rows:
    name = "c"

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def stream(self) -> Iterator[TaskItem]:
        yield from (item(task, number) for task, count in self.counts.items() for number in range(count))


def test_algorithm_1_is_uniform_over_tasks_until_one_runs_dry() -> None:
    """Drawing rows instead of tasks would let the large tasks swamp the small ones."""
    drawn = uniform_over_tasks({"a": 900, "b": 20, "c": 90_000}, 600, random.Random(0))
    assert drawn["b"] == 20 and sum(drawn.values()) == 600 and 240 < drawn["a"] < 340


def test_sampled_rows_are_exact_in_number_and_repeatable() -> None:
    """A cap that is passed, a row drawn twice, or another draw at the second reading."""
    reader = Sampled(name="s", reader=Rows({"a": 50, "b": 3, "c": 500}), seed=1, size=80, per_task=40)
    first, second = list(reader.stream()), list(reader.stream())
    counts = Counter(row.task for row in first if isinstance(row, TaskItem))
    assert first == second and sum(counts.values()) == 80 and max(counts.values()) <= 40 and counts["b"] == 3
    assert len({row.id for row in first if isinstance(row, TaskItem)}) == 80
    with pytest.raises(DataError, match="81 items are wanted"):
        list(Sampled(name="s", reader=Rows({"a": 80}), seed=1, size=81).stream())


def test_mix_reads_by_share_and_leaves_few_shot_to_the_builder() -> None:
    """A part of share 0 must not be read: its files may be absent."""
    mix = TaskMix(
        name="m", parts={"x": Rows({"a": 100}), "y": Rows({"b": 100}), "z": Rows({})},
        shares={"x": 3, "y": 1, "z": 0, "few_shot": 1}, caps={}, size=50, seed=0,
    )  # fmt: skip
    assert Counter(row.task for row in mix.stream() if isinstance(row, TaskItem)) == {"a": 30, "b": 10}
    assert mix.few_shot == 10
    assert split_by_share(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    with pytest.raises(ConfigError, match="no share"):
        TaskMix(name="m", parts={"x": Rows({})}, shares={"few_shot": 1}, caps={}, size=5, seed=0)


MEMBERS = {name: Strategy(name, f"general {name}") for name in ("direct", "step_by_step")}
MIXED = StrategyMixture("mixed", MEMBERS, {}, "direct")


def test_instructions_by_task_then_category_then_strategy() -> None:
    """The task-specific text under another strategy than its own would contradict it."""
    library = InstructionLibrary(
        name="l", categories={"sums": {"strategy": "step_by_step", "instruction": "add up"}},
        by_task={"task*_sum_*": "sums"}, by_category={"Mathematics": "sums"},
    )  # fmt: skip
    for question in (item("task1_sum_x", 1), item("t", 1, category="Mathematics"), item("t", 1, category="sums")):
        instruction = library.instruct(question, MIXED)
        assert instruction is not None and (instruction.strategy, instruction.system) == ("step_by_step", "add up")
        other = library.instruct(question, MEMBERS["direct"])
        assert other is not None and (other.strategy, other.system) == ("direct", "general direct")
    assert library.instruct(item("t", 1, offered=("step_by_step",)), MEMBERS["direct"]) is None
    with pytest.raises(ConfigError, match=r"by_task\.x"):
        InstructionLibrary(name="l", categories={}, by_task={"x": "sums"}, by_category={})


def test_explanation_tuning_keeps_choice_messages_for_choices() -> None:
    """Message 8 asks why the other options are wrong; a question without options has none."""
    messages = {"m1": "", "m8": "why not the others"}
    tuning = ExplanationTuning(
        name="o", messages=messages, weights={"default": {"m1": 1, "m8": 1}}, choice_only={"m8": True}, seed=0
    )
    free = Counter(tuning.instruct(item("t", n), MIXED).strategy for n in range(200))  # type: ignore[union-attr]
    assert free == {"m1": 200}
    from orca2.rows.items import Option

    options = {"answer_kind": "choice", "options": (Option("1", "x"),)}
    choice = Counter(tuning.instruct(item("t", n, **options), MIXED).strategy for n in range(200))  # type: ignore[union-attr]
    assert 70 < choice["m8"] < 130
