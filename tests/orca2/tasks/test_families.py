"""Every family, found by name: format, levels, truth of the traces, and a seed that fixes everything."""

import re
from random import Random

import pytest

from orca2.answers.grading import Grade, detect_strategy, grade
from orca2.errors import ConfigError
from orca2.tasks.catalogue import families
from orca2.tasks.family import LEVELS, STRATEGIES, Draw, Family
from orca2.tasks.problems import make_problem
from orca2.tasks.traces import explanation, steps

NAMES = sorted(families())
SAMPLES = 40


def test_best_strategies_cover_all_and_some_are_direct() -> None:
    """A mixture in which one strategy fits all families could not show the paper's claim."""
    best = [family.best for family in families().values()]
    assert len(best) >= 10
    assert set(best) == set(STRATEGIES)
    assert 2 <= best.count("direct") <= 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_every_trace_has_its_layout_and_the_right_answer(name: str, level: int) -> None:
    """A teacher whose answer or labels are off would teach the student the wrong thing."""
    family = families()[name]
    for index in range(SAMPLES):
        problem = make_problem(family, 3, "train", index, level)
        for strategy in family.strategies:
            text = family.trace(problem, strategy)
            assert grade(problem.answer, family.answer_kind, text) == Grade(True, True, problem.answer), text
            assert detect_strategy(text) == strategy, text
            assert text.isascii() and text == text.strip() and "  " not in text, text


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_problems(name: str) -> None:
    """Resuming and comparing runs row by row need problem i to be the same in every process."""
    family = families()[name]
    once, again = (make_problem(family, 7, "train", 5, 2) for _ in range(2))
    assert once == again
    assert make_problem(family, 8, "train", 5, 2).question != once.question


@pytest.mark.parametrize("name", NAMES)
def test_levels_get_harder(name: str) -> None:
    """Levels that draw alike would make a curriculum over levels void; longer text means longer chains."""
    family = families()[name]
    lengths = [
        sum(len(make_problem(family, 0, "train", index, level).question) for index in range(SAMPLES))
        for level in LEVELS
    ]
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_sums_in_traces_are_true(name: str, level: int) -> None:
    """A false statement in a trace would be learnt; every `a + b - c = d` is computed again."""
    family = families()[name]
    for index in range(SAMPLES):
        problem = make_problem(family, 3, "held_out", index, level)
        for strategy in family.strategies:
            text = family.trace(problem, strategy)
            for left, right in re.findall(r"((?<![\w+-])\d+(?:[+-]\d+)+)=(-?\d+)", text):
                signed = re.findall(r"([+-]?)(\d+)", left)
                assert sum(int(sign + digits) for sign, digits in signed) == int(right), text


def test_sum_check_sees_sums() -> None:
    """Guards the test above against a pattern that matches nothing."""
    summing = [
        name
        for name, family in families().items()
        if re.search(r"\d[+-]\d.*=\d", family.trace(make_problem(family, 0, "train", 0, 1), family.best))
    ]
    assert len(summing) >= 4


def test_unknown_family_names_the_nearest() -> None:
    """A typing mistake in a config must end in the right name, not in an empty run."""
    with pytest.raises(ConfigError, match="did you mean 'sorting'"):
        families(["sortnig"])
    with pytest.raises(ConfigError, match="no task families"):
        families([])
    with pytest.raises(ConfigError, match="one text"):
        families("sorting")
    assert list(families(["sorting", "addition"])) == ["addition", "sorting"]


def make(**changes: object) -> Family[int]:
    """A sound family of one file, with some fields changed."""
    values = {
        "name": "echo",
        "answer_kind": "number",
        "best": "direct",
        "draw": lambda rng, level: Draw(f"Say {rng.randint(0, 9)}", "1", level),
        "teachers": {
            "step_by_step": lambda _: steps(["x"]),
            "explain_then_answer": lambda _: explanation("x"),
        },
    }
    return Family(**(values | changes))  # type: ignore[arg-type]


def test_family_refuses_what_it_cannot_offer() -> None:
    """A family file with a slip must fail when it is imported, with the remedy, not during a run."""
    family = make()
    with pytest.raises(ConfigError, match="offers only"):
        make(best="guess_and_check")
    with pytest.raises(ConfigError, match="no teacher for"):
        make(teachers={})
    with pytest.raises(ConfigError, match="teachers for \\['think'\\]"):
        make(teachers=family.teachers | {"think": lambda _: "x"})
    with pytest.raises(ConfigError, match="kind 'choice'; allowed are number, word, list, yes_no"):
        make(answer_kind="choice")
    with pytest.raises(ConfigError, match="levels \\[1, 2, 3\\], not 4"):
        family.problem(Random(0), 4)
    with pytest.raises(ConfigError, match="cannot be answered under 'guess_and_check'"):
        family.trace(family.problem(Random(0), 1), "guess_and_check")
