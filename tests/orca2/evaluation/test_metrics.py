"""Scores of single answers, intervals and paired differences."""

import math
from itertools import permutations
from random import Random

import pytest

from orca2.errors import ConfigError
from orca2.evaluation.metrics import (
    bleu,
    drop_normal,
    drop_scores,
    equal_numbers,
    equal_words,
    mcnemar,
    paired_bootstrap,
    rouge,
    wilson,
)


@pytest.mark.parametrize(
    ("predicted", "gold", "scores"),
    [
        (["the 35-yard"], ["35 yard"], (1.0, 1.0)),
        (["5."], ["5"], (1.0, 1.0)),
        (["7 points"], ["7"], (0.0, 0.67)),
        (["8 points"], ["7 points"], (0.0, 0.0)),
        (["Italy", "Spain"], ["Spain", "Italy"], (1.0, 1.0)),
        (["Burma"], ["Burma", "China"], (0.0, 0.5)),
        (["Burma", "China"], ["Burma and China"], (0.0, 0.25)),
        (["15,557 people"], ["15557 people"], (1.0, 1.0)),
        ([""], ["x"], (0.0, 0.0)),
    ],
)
def test_drop_scores(predicted: list[str], gold: list[str], scores: tuple[float, float]) -> None:
    """Values of the authors' own script on the same strings."""
    assert drop_scores(predicted, gold) == scores


@pytest.mark.timeout(30)
def test_endless_spans_are_scored_at_once() -> None:
    """Fails if a student in a loop, with spans by the thousand, holds up an evaluation: 1,000 once took 89 s."""
    assert drop_scores(["12 yards"] * 20_000, ["12 yards", "the second quarter"]) == (0.0, 0.0)


def test_drop_alignment_is_the_best_of_all() -> None:
    """A greedy alignment loses on spans that share words; here every alignment is tried."""
    rng, words = Random(0), ["red", "blue", "green", "grey", "pink"]
    for _ in range(200):
        ours, theirs = (
            [" ".join(rng.sample(words, rng.randint(1, 3))) for _ in range(rng.randint(1, 4))] for _ in range(2)
        )
        size = max(len(ours), len(theirs))
        single = [[drop_scores([one], [two])[1] for two in theirs + [""] * (size - len(theirs))] for one in ours]
        single += [[0.0] * size] * (size - len(ours))
        best = max(sum(single[row][place[row]] for row in range(size)) for place in permutations(range(size)))
        assert drop_scores(ours, theirs)[1] == pytest.approx(best / size, abs=0.011)


def test_drop_normal_form() -> None:
    """Articles, case and punctuation say nothing; numbers are compared as numbers."""
    assert drop_normal("The  Treaty-of Paris, 1,763 ") == "treaty of paris 1763.0"
    assert drop_normal("3.50") == "3.5"


def test_equalities() -> None:
    """Exact for numbers, forgiving only where the answer's meaning is the same."""
    assert equal_numbers("18", "18.0") and not equal_numbers("18", "18.0000001")
    # A real model ended an answer with "14/3", and the evaluation with a traceback of `decimal`.
    assert equal_numbers("14/3", "14/3") and not equal_numbers("14/3", "4") and not equal_numbers("4", "14/3")
    assert equal_words('"Signs."', "signs") and not equal_words("sign", "signs")


def test_wilson_interval() -> None:
    """Values of Wilson's formula; near 0 and 1 the bounds stay inside, unlike the normal interval's."""
    assert wilson(8, 10) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-6)
    assert wilson(0, 10)[1] == pytest.approx(0) and wilson(10, 10)[2] == pytest.approx(1)
    for wrong in ((1, 0), (5, 4), (-1, 4)):
        with pytest.raises(ConfigError, match="no share"):
            wilson(*wrong)


def test_mcnemar_is_the_binomial_test() -> None:
    """Two-sided p-value of a fair coin, never above 1."""
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0
    with pytest.raises(ConfigError):
        mcnemar(-1, 0)


def test_paired_bootstrap() -> None:
    """The difference is exact, its interval repeatable and around it."""
    first, second = [0.0, 1.0, 0.0, 1.0] * 25, [1.0, 1.0, 0.0, 1.0] * 25
    interval = paired_bootstrap(first, second, seed=3)
    assert interval.value == 0.25 and interval == paired_bootstrap(first, second, seed=3)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 100)
    assert interval.low == pytest.approx(0.25 - half, abs=0.03) and interval.high == pytest.approx(
        0.25 + half, abs=0.03
    )
    with pytest.raises(ConfigError, match="both sides"):
        paired_bootstrap([1.0], [])


def test_overlap_of_texts() -> None:
    """Identical texts score 1, disjoint ones 0, and the best of several references counts."""
    pytest.importorskip("rouge_score", reason="extra eval-text")
    pytest.importorskip("sacrebleu", reason="extra eval-text")
    text = "the patient has a mild fever and was sent home"
    assert rouge(text, ["nothing alike", text]) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert bleu(text, [text]) == pytest.approx(1.0)
    assert set(rouge("alpha", ["omega"]).values()) == {0.0} and bleu("alpha beta", ["omega psi"]) < 0.3
