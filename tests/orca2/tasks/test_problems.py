"""Problems by number: exact problems, disjoint splits, and spaces that are large enough."""

import pytest

from orca2.errors import ConfigError, DataError
from orca2.tasks.catalogue import families
from orca2.tasks.family import Draw, Family
from orca2.tasks.problems import make_problem, split_of
from orca2.tasks.traces import explanation, steps

NAMES = sorted(families())


def tiny(questions: int) -> Family[None]:
    """A family with so many questions."""
    return Family(
        name="tiny",
        answer_kind="number",
        best="direct",
        draw=lambda rng, level: Draw(f"Question {rng.randrange(questions)}", "1", None),
        teachers={"step_by_step": lambda _: steps(["x"]), "explain_then_answer": lambda _: explanation("x")},
    )


def test_problem_is_the_same_for_ever() -> None:
    """Published results name problems by number; a change here changes every generated data set."""
    problem = make_problem(families()["addition"], 0, "train", 0, 1)
    assert (problem.question, problem.answer) == ("What is 885 + 645?", "1530")


def test_split_is_fixed_by_the_question() -> None:
    """A split that depended on the process, the seed or the level would leak."""
    held_out = [number for number in range(40) if split_of(f"Question {number}") == "held_out"]
    assert held_out == [0, 2, 12, 22, 26, 32]


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_question(name: str) -> None:
    """Held-out accuracy means nothing if a seed can bring a training question into the test."""
    family = families()[name]
    train = {make_problem(family, seed, "train", i, 1).question for seed in (0, 1) for i in range(150)}
    held_out = {make_problem(family, seed, "held_out", i, 1).question for seed in (0, 1) for i in range(150)}
    assert len(train) > 250 and len(held_out) > 250
    assert not train & held_out


@pytest.mark.parametrize("name", NAMES)
def test_question_space_is_large(name: str) -> None:
    """A small space would let a student learn answers by heart.

    2,000 draws from the 7/8 of 10^5 questions hold about 2000^2 / (2 * 87,500) = 23 repeats.
    """
    family = families()[name]
    questions = [make_problem(family, 0, "train", index, 1).question for index in range(2000)]
    assert len(set(questions)) >= 1970


def test_space_without_the_split_is_an_error() -> None:
    """A family with too few questions must say so and not loop forever."""
    assert split_of("Question 0") == "held_out"
    with pytest.raises(DataError, match="'tiny' at level 1 has no question of split 'train'"):
        make_problem(tiny(1), 0, "train", 0, 1)


def test_bad_arguments_are_refused() -> None:
    """A wrong split name would otherwise end in the misleading error about a small space."""
    family = tiny(1000)
    with pytest.raises(ConfigError, match="unknown split 'test'"):
        make_problem(family, 0, "test", 0, 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="index -1"):
        make_problem(family, 0, "train", -1, 1)
