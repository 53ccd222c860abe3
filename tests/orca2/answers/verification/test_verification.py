"""Checkers: gold is right in ten phrasings, and nothing but gold ever is."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from orca2.answers.verification.checkers import Verdict, Verifier
from orca2.answers.verification.expressions import ExpressionChecker, is_expression, rational
from orca2.answers.verification.presets import NOT_NEEDED, AnswerSample, Verification
from orca2.errors import ConfigError, DataError
from orca2.records import AnswerKind
from orca2.rows.collections.gym import entry_of
from orca2.rows.collections.mathematics import AquaRat, Gsm8k
from orca2.rows.items import Option, TaskItem

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[5] / "shared" / "data"))
PHRASINGS = (
    "{}", "Answer: {}", "The answer is {}.", "Let me think.\nFirst, the question.\n\nFinal answer: {}", "#### {}",
    "So the result is \\boxed{{{}}}.", "**Answer:** {}", "Therefore, the correct answer is **{}**.",
    "Step 1: look at it.\nStep 2: decide.\n\nAnswer: {}.", "The final answer is: {}",
)  # fmt: skip
CITIES = (Option("A", "Paris"), Option("B", "London"), Option("C", "Rome"), Option("D", "None of these"))


def item(kind: AnswerKind, gold: str, options: tuple[Option, ...] = ()) -> TaskItem:
    return TaskItem(
        id="x/y/1", collection="x", task="y", category="c", user="q?", gold=(gold,), answer_kind=kind, options=options
    )


@pytest.mark.parametrize(
    ("kind", "gold", "wrong"),
    [("number", "1,018", "1018.5"), ("choice", "B", "C"), ("yes_no", "yes", "no"), ("order", "34152", "34125"),
     ("word", "lamp", "cup"), ("list", "ox, ant", "ant, ox")],
)  # fmt: skip
def test_gold_is_right_and_wrong_is_wrong_in_ten_phrasings(kind: AnswerKind, gold: str, wrong: str) -> None:
    """A kind that reads one phrasing only, or compares after reading too little."""
    question = item(kind, gold, CITIES if kind == "choice" else ())
    with Verifier(timeout=5) as verifier:
        for phrasing in PHRASINGS:
            assert verifier.check(question, phrasing.format(wrong)).outcome != "right", phrasing
            if kind not in ("list",) or phrasing != "{}":
                assert verifier.check(question, phrasing.format(gold)).outcome == "right", phrasing


NOT_18 = (
    "", "I cannot answer. 18", "The answer is not 18.", "Answer: 18 or 19", "Answer: 18 million",
    "Answer: 18 dozens", "Answer: 18 thousands",
    "Answer: about 18", "Answer: 18 1/2", "Answer: 18/7", "Answer: 18\nWait, that is wrong.", "Answer: 17\nAnswer: 18",
    "Is the answer 18?", "If x is 2, the answer is 18.", "Answer: less than 18", "Answer: 18 is wrong", "Answer: -18",
    "Answer: 118", "17\n18", "Answer: 18 * 2", "Answer: 18^2", "Answer: sqrt(18)", "Answer: 18!", "Answer: [18, 19]",
    "The answer is 18 if we ignore the rest, otherwise 20.", "Answer: 18 (mod 20)", "Answer: 18x", "Answer: 18+",
    "Answer: unknown. Others claim 18.", "Answer: 18 minus 2", "Answer: negative 18", "Answer: 18 hours 30 minutes",
    "#### 18 #### 19", "Answer: 18\u200b9", "My first guess: the answer is 18. But no, the answer is 20.",
)  # fmt: skip
NOT_B = (
    "Answer: not B", "Answer: A or B", "(A)(B)(C)(D)", "B, C", "Answer: A\nAnswer: B", "B is incorrect",
    "Answer: B) Paris",
    "Both B and C", "Answer: B\nWait, actually C", "Answer: all but B", "Answer: B; C", "Answer: B. C.", "A\nB\nC\nD",
    "Answer: B?", "Answer: B isn't right", "Answer: Neither B nor C", "If it were London, the answer would be B",
)  # fmt: skip
NOT_YES = (
    "yes and no",
    "Yes... actually no",
    "Answer: yes if raining",
    "Answer: yes or no",
    "Yes, but then again no.",
    "Answer: yes\nAnswer: no",
    "No",
)


@pytest.mark.parametrize(
    ("question", "texts"),
    [(item("number", "18"), NOT_18), (item("choice", "B", CITIES), NOT_B), (item("yes_no", "yes"), NOT_YES)],
)
def test_adversarial_texts_are_never_right(question: TaskItem, texts: tuple[str, ...]) -> None:
    """An announcement that is taken back, doubted, doubled or scaled passes for the gold answer."""
    with Verifier(timeout=5) as verifier:
        assert [text for text in texts if verifier.check(question, text).outcome == "right"] == []


@pytest.mark.skipif(not (SHARED / "benchmarks").is_dir(), reason="the shared data are not here")
def test_shared_gold_answers_have_no_false_positive() -> None:
    """Real gold answers: every phrasing of gold is right; another item's gold, nothing or the question never."""
    collections = [
        list(Gsm8k(name="g", path=str(SHARED / "benchmarks/gsm8k/test.jsonl")).stream()),
        list(AquaRat(name="a", path=str(SHARED / "tasks/aqua_rat/dev.json")).stream()),
        list(AquaRat(name="a", path=str(SHARED / "tasks/aqua_rat/test.json")).stream()),
        agieval(),
    ]
    assert min(map(len, collections)) > 200 and sum(map(len, collections)) > 3000
    with Verifier(timeout=5) as verifier:
        for items in collections:
            golds = [row.gold[0] for row in items if isinstance(row, TaskItem)]
            for place, question in enumerate(items):
                assert isinstance(question, TaskItem)
                gold, labels = question.gold[0], {option.label for option in question.options}
                later = golds[place + 1 :] + golds
                shuffled = next(other for other in later if other != gold and (other in labels or not labels))
                for phrasing in PHRASINGS:
                    where = (question.id, phrasing)
                    assert verifier.check(question, phrasing.format(gold)).outcome == "right", where
                    assert verifier.check(question, phrasing.format(shuffled)).outcome == "wrong", where
                for text in ("", "Answer:", "I cannot answer that.", question.user):
                    assert verifier.check(question, text).outcome != "right", question.id


def agieval() -> list[TaskItem]:
    found = []
    for path in sorted((SHARED / "benchmarks/agieval").glob("*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines()):
            row = json.loads(line)
            options = tuple(
                Option(text[1], text[3:]) for text in row["options"] if text[:1] == "(" and text[2:3] == ")"
            )
            if row["label"] in {option.label for option in options}:
                found.append(
                    TaskItem(
                        id=f"agieval/{path.stem}/{number}", collection="agieval", task=path.stem, category="c",
                        user=f"{row['question']}\n" + "\n".join(row["options"]), gold=(row["label"],),
                        answer_kind="choice", options=options,
                    )
                )  # fmt: skip
    return found


def test_rationals_are_exact() -> None:
    """`3 3/19` read as 33/19, or a rounded decimal taken for a fraction."""
    assert rational("120/38") == rational("\\frac{60}{19}") == rational("60 / 19")
    assert rational("3 3/19") is None and rational("1/0") is None
    assert not is_expression("3:30") and not is_expression("x = 3") and not is_expression("not 3")


def test_expressions_in_a_process_that_can_be_killed() -> None:
    """A power tower hangs math-verify for good (huggingface/Math-Verify#65); the next check must still work."""
    pytest.importorskip("math_verify")
    with ExpressionChecker(timeout=120) as checker:
        assert checker.equal("4*sqrt(3)", "\\sqrt{48}") is True
        assert checker.equal("4*sqrt(3)", "4 sqrt(3)") is True
        assert checker.equal("4*sqrt(3)", "6.928") is False
        checker.timeout = 1
        assert checker.equal("4*sqrt(3)", "9999999999^9999999999") is None
        assert checker.kills == 1
        checker.timeout = 120
        assert checker.equal("4*sqrt(3)", "2*sqrt(12)") is True


@pytest.mark.parametrize("answer", ["not 7", "7 or 3", "maybe 7"])
def test_scorers_of_gym_are_not_asked_about_half_an_answer(answer: str) -> None:
    """Several of them read the first number that they find."""
    with Verifier(timeout=5) as verifier:
        verdict = verifier.check(item("gym", "7"), f"Answer: {answer}")
    assert verdict.outcome == "undecided" and "stands beside the value" in verdict.reason


@pytest.mark.slow
def test_a_scorer_of_gym_that_hangs_is_killed() -> None:
    """A scorer that takes minutes over a long answer holds up all other calls; one with `eval` may never be asked."""
    pytest.importorskip("reasoning_gym")
    question = replace(item("gym", "7"), lineage="chain_sum size=1 seed=0 index=0")
    with Verifier(timeout=60) as verifier:
        entry = entry_of(question.lineage)[1]
        assert verifier.check(question, f"Answer: {entry['answer']}.0").outcome == "right"
        assert verifier.check(question, "Answer: 0").outcome == "wrong"
        verifier.gym.timeout = 0.1
        sokoban = replace(question, lineage="sokoban size=1 seed=0 index=0")
        assert verifier.check(sokoban, f"Answer: {'RL' * 500_000}").outcome == "undecided"
        assert verifier.gym.kills == 1
        verifier.gym.timeout = 60
        assert verifier.check(question, "Answer: 0").outcome == "wrong"
    with pytest.raises(DataError, match="allowed generator"):
        entry_of("countdown size=1 seed=0 index=0")


def samples(*outcomes: str) -> list[AnswerSample]:
    return [
        AnswerSample(number=n, answer=f"a{n}", verdict=Verdict(outcome=outcome, reason="why", value=None))  # type: ignore[arg-type]
        for n, outcome in enumerate(outcomes)
    ]


def test_best_of_several_keeps_the_others_with_reasons() -> None:
    """Preference pairs need the rejected answers; the wrong one must not be kept for being first."""
    keep = {"right": True, "wrong": False, "undecided": False}
    preset = Verification(name="v", keep=keep, samples=4, timeout=1)
    chosen = preset.choose(samples("wrong", "right", "right", "undecided"))
    assert chosen.kept is not None and chosen.kept.number == 1
    assert [(turned.sample.number, turned.reason) for turned in chosen.rejected] == [
        (0, "wrong: why"), (2, NOT_NEEDED), (3, "undecided: why"),
    ]  # fmt: skip
    assert preset.choose(samples("wrong")).kept is None
    assert not preset.enough(samples("wrong")) and preset.enough(samples("wrong", "right"))
    with pytest.raises(ConfigError, match="keep is"):
        Verification(name="v", keep={"right": True}, samples=1, timeout=1)
