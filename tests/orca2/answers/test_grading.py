"""Grading and strategy detection: exact verdicts on plain and on hostile texts."""

import pytest

from orca2.answers.grading import Grade, detect_strategy, extract_final, grade


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Answer: 7", "7"),
        ("Step 1: 3 + 4 = 7\nAnswer: 7\n", "7"),
        ("Answer:  7  \n\n", "7"),
        ("I will write Answer: 5 below\nAnswer: 7", "7"),
        ("Answer: Answer: 7", "Answer: 7"),
        ("", None),
        (" \n\n", None),
        ("7", None),
        ("Answer:", None),
        ("Answer: ", None),
        ("Answer:7", None),
        ("answer: 7", None),
        (" Answer: 7", None),
        ("Answer: 7\nAnswer: 8", None),
        ("Answer: 7\nAnswer: 7", None),
        ("Answer: 7\nso it is seven", None),
        ("so Answer: 7", None),
        ("Answer: 7\x0cAnswer: 8", "7\x0cAnswer: 8"),
    ],
)
def test_extract_final_takes_only_a_single_last_marker(text: str, value: str | None) -> None:
    """A lenient rule would let a text that names several answers be graded by the lucky one."""
    assert extract_final(text) == value


@pytest.mark.parametrize(
    ("answer", "kind", "text", "verdict"),
    [
        ("42", "number", "Answer: 42", Grade(True, True, "42")),
        ("42", "number", "Answer: 41", Grade(False, True, "41")),
        ("42", "number", "Answer: 42.", Grade(False, False, "42.")),
        ("1000", "number", "Answer: 1,000", Grade(False, False, "1,000")),
        ("7", "number", "Answer: 07", Grade(False, False, "07")),
        ("7", "number", "Answer: +7", Grade(False, False, "+7")),
        ("7", "number", "Answer: 7.0", Grade(False, False, "7.0")),
        ("7", "number", "Answer: \u0667", Grade(False, False, "\u0667")),
        ("-3", "number", "Answer: -3", Grade(True, True, "-3")),
        ("0", "number", "Answer: -0", Grade(False, True, "-0")),
        ("key", "word", "Answer: key", Grade(True, True, "key")),
        ("key", "word", "Answer: Key", Grade(False, True, "Key")),
        ("key", "word", "Answer: the key", Grade(False, False, "the key")),
        ("yes", "yes_no", "Answer: yes", Grade(True, True, "yes")),
        ("yes", "yes_no", "Answer: true", Grade(False, False, "true")),
        ("Ann, Bob", "list", "Answer: Ann, Bob", Grade(True, True, "Ann, Bob")),
        ("Ann, Bob", "list", "Answer: Bob, Ann", Grade(False, True, "Bob, Ann")),
        ("Ann, 2", "list", "Answer: Ann,2", Grade(False, False, "Ann,2")),
        ("Ann", "list", "Answer: Ann,", Grade(False, False, "Ann,")),
        ("key", "word", "no marker", Grade(False, False, None)),
    ],
)
def test_grade_compares_exactly(answer: str, kind: str, text: str, verdict: Grade) -> None:
    """A wrong form must show as `format_ok` False, and a wrong value in the right form must not."""
    assert grade(answer, kind, text) == verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("Answer: 7", "direct"),
        ("\nAnswer: 7\n", "direct"),
        ("Step 1: a\nAnswer: 7", "step_by_step"),
        ("Step 1: a\nmore of it\nStep 2: b\nAnswer: 7", "step_by_step"),
        ("Step 1: a", "step_by_step"),
        ("Explanation: because\nAnswer: 7", "explain_then_answer"),
        ("Recall: a\nAnswer: 7", "recall_then_generate"),
        ("Recall: a\nReasoning: b\nAnswer: 7", "recall_reason_generate"),
        ("Extract: a\nAnswer: 7", "extract_then_generate"),
        ("Guess: a\nCheck: b\nGuess: c\nCheck: d\nAnswer: 7", "guess_and_check"),
        ("Guess: a\nCheck: b\nGuess: c", "guess_and_check"),
        ("Recall: I first thought Step 1: x\nAnswer: 7", "recall_then_generate"),
        ("", "none"),
        ("7", "none"),
        ("Well.\nAnswer: 7", "none"),
        ("Well.\nStep 1: a\nAnswer: 7", "none"),
        ("Answer: 7\nStep 1: a", "none"),
        ("Answer: 7\nAnswer: 8", "none"),
        ("Step 2: a\nAnswer: 7", "none"),
        ("Step 1: a\nStep 3: b\nAnswer: 7", "none"),
        ("Step 01: a\nAnswer: 7", "none"),
        ("Step 1: a\nRecall: b\nAnswer: 7", "none"),
        ("Reasoning: b\nAnswer: 7", "none"),
        ("Reasoning: b\nRecall: a\nAnswer: 7", "none"),
        ("Recall: a\nRecall: b\nAnswer: 7", "none"),
        ("Check: a\nGuess: b\nAnswer: 7", "none"),
        ("Guess: a\nGuess: b\nAnswer: 7", "none"),
        ("Recall a\nAnswer: 7", "none"),
    ],
)
def test_detect_strategy_needs_an_exact_layout(text: str, strategy: str) -> None:
    """Ablation tables count strategies by this; a loose rule would count mixed answers twice."""
    assert detect_strategy(text) == strategy
