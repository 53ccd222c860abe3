"""Selection finds the best strategy with few calls, and writes what it found as a strategy config."""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from orca2.errors import ConfigError, DataError
from orca2.rows.items import TaskItem
from orca2.synthesis.evidence import evidence_markdown, evidence_table, read_outcome, write_selection
from orca2.synthesis.selection import GroupEvidence, Judge, Measured, Selection, TaskGroup, Trial, by_task, group_items
from orca2.tasks.catalogue import families


def item(task: str, number: int, **fields: object) -> TaskItem:
    values = {"collection": "c", "category": "k", "user": "q", "gold": ("1",), "answer_kind": "number"} | fields
    return TaskItem(id=f"c/{task}/{number}", task=task, **values)  # type: ignore[arg-type]


def run(selection: Selection, groups: dict[str, TaskGroup], **judges: Judge) -> dict[str, GroupEvidence]:
    return asyncio.run(selection.run(groups, judges))


async def always_right(trials: Sequence[Trial]) -> list[Measured]:
    return [Measured("right", 10_000 if one.strategy == "long" else 10) for one in trials]


def simulate(seed: int, gap: float) -> tuple[int, int, int, int]:
    """(families whose best was found, families, calls, full grid) for a teacher of known error rates."""
    rng, known = random.Random(seed), families()
    errors: dict[tuple[str, str], float] = {}
    for name, family in known.items():
        least, best = rng.uniform(0.02, 0.2), rng.choice(family.strategies)
        for strategy in family.strategies:
            worse = least + gap + rng.uniform(0, 0.95 - least - gap)
            errors[name, strategy] = least if strategy == best else worse
    groups = {
        name: TaskGroup(tasks=(name,), strategies=one.strategies, items=tuple(item(name, n) for n in range(128)))
        for name, one in known.items()
    }

    async def judge(trials: Sequence[Trial]) -> list[Measured]:
        draws = [random.Random(f"{seed}/{one.item.id}/{one.strategy}").random() for one in trials]
        return [
            Measured("right" if draw >= errors[one.item.task, one.strategy] else "wrong", 100)
            for one, draw in zip(trials, draws, strict=True)
        ]

    evidence = run(Selection(name="measured", seed=seed), groups, teacher=judge)
    found = sum(
        errors[name, str(one.chosen)] == min(errors[name, strategy] for strategy in one.strategies)
        for name, one in evidence.items()
    )
    return found, len(evidence), sum(e.calls for e in evidence.values()), sum(e.full_grid for e in evidence.values())


def test_known_best_is_found_with_less_than_half_of_the_grid() -> None:
    """The acceptance of measured selection, over several simulated teachers."""
    found, groups, calls, grid = (
        sum(column) for column in zip(*(simulate(seed, 0.15) for seed in range(3)), strict=True)
    )
    assert found >= 0.95 * groups
    assert calls < 0.5 * grid


def test_tokens_cost_accuracy_and_unmeasurable_groups_are_left_alone() -> None:
    """Ten thousand tokens for the same accuracy, or a strategy chosen without evidence."""
    groups = {
        "t": TaskGroup(tasks=("t", "u"), strategies=("long", "short"), items=tuple(item("t", n) for n in range(40))),
        "free": TaskGroup(tasks=("f",), strategies=("long",), items=(item("f", 1, gold=(), answer_kind="text"),)),
    }
    evidence = run(Selection(name="measured"), groups, teacher=always_right, student=always_right)
    assert by_task(evidence) == {"t": "short", "u": "short"}
    assert evidence["free"].calls == 0 and evidence["free"].chosen is None


def test_both_judges_count() -> None:
    """A strategy that only the teacher masters must lose to one that both do."""
    group = TaskGroup(tasks=("t",), strategies=("a", "b"), items=tuple(item("t", n) for n in range(64)))

    async def student(trials: Sequence[Trial]) -> list[Measured]:
        return [Measured("wrong" if one.strategy == "a" else "right", 10) for one in trials]

    evidence = run(Selection(name="measured"), {"t": group}, teacher=always_right, student=student)
    assert by_task(evidence) == {"t": "b"}
    assert set(evidence["t"].strategies["b"].tallies) == {"teacher", "student"}


def test_groups_offer_what_all_their_items_can_be_answered_under() -> None:
    """A strategy that a generated task has no answers for would fail on each probe."""
    items = [item("t", 1, offered=("a", "b")), item("u", 1, offered=("b", "c")), item("v", 1, category="other")]
    groups = group_items(items, ["a", "b", "c"], "category", 8)
    assert groups["k"].strategies == ("b",) and groups["k"].tasks == ("t", "u")
    assert groups["other"].strategies == ("a", "b", "c")


def test_a_judge_that_skips_trials_is_found_out() -> None:
    """Answers paired with the wrong questions."""
    group = TaskGroup(tasks=("t",), strategies=("a",), items=(item("t", 1),))

    async def lazy(trials: Sequence[Trial]) -> list[Measured]:
        return []

    with pytest.raises(ConfigError, match="answered 0 of 1"):
        run(Selection(name="measured"), {"t": group}, lazy=lazy)


def test_written_selection_is_a_strategy_config(tmp_path: Path) -> None:
    """`train.py strategy=<its path>` must find what a hand-written mixture has."""
    group = TaskGroup(tasks=("t",), strategies=("direct",), items=(item("t", 1),))
    evidence = run(Selection(name="measured"), {"t": group}, teacher=always_right)
    config = write_selection(evidence, "measured_x", ["direct", "step_by_step"], "step_by_step", tmp_path)
    assert config == tmp_path / "strategy" / "measured_x.yaml"
    assert yaml.safe_load(config.read_text()) == {
        "defaults": ["direct@members.direct", "step_by_step@members.step_by_step", "_self_"],
        "_target_": "orca2.strategies.StrategyMixture", "name": "measured_x",
        "by_task": {"t": "direct"}, "default": "step_by_step",
    }  # fmt: skip
    assert json.loads(config.with_suffix(".json").read_text()) == json.loads(json.dumps(evidence_table(evidence)))
    assert read_outcome(config) == {"t": "direct"}
    config.write_text("by_task: [1")
    with pytest.raises(DataError, match="delete it to measure again"):
        read_outcome(config)


def test_evidence_can_be_read() -> None:
    """The table is why anybody would believe the choice."""
    group = TaskGroup(tasks=("t",), strategies=("long", "short"), items=tuple(item("t", n) for n in range(8)))
    text = evidence_markdown(run(Selection(name="measured"), {"t": group}, teacher=always_right), "measured_x")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "| strategy | teacher | tokens | score | P(best) | |"
    assert rows[1].startswith("| short | ") and rows[1].endswith("| **chosen** |")
    assert rows[2].startswith("| long | ")
