"""An answer is read alike under every form of announcement, by the evaluation and by the check of teachers' answers."""

import pytest

from orca2.answers.extraction import choice_reader, extract, number_reader
from orca2.answers.verification.checkers import Verifier
from orca2.rows.items import Option, TaskItem

OPTIONS = {"A": "hotel", "B": "music store", "C": "blue", "D": "bird nest"}
READERS = {
    "choice": choice_reader(OPTIONS),
    "yes_no": choice_reader({"yes": "yes", "no": "no"}),
    "number": number_reader(),
}
GOLD = {"choice": "B", "yes_no": "yes", "number": "10"}
"""What a text without a right value must never be taken for."""

VALUES = [
    ("choice", "B, a music store", "B"),
    ("choice", "B, a shop for music.", "B"),
    ("choice", "(C), blue.", "C"),
    ("choice", "a bird nest", "D"),
    ("choice", "(A) or (B)", None),
    ("choice", "not (B)", None),
    ("choice", "that we do not know.", None),
    ("number", "51", "51"),
    ("number", "$$\nx = 80\n$$", "80"),
    ("number", "70.", "70"),
    ("number", "10+Tom's age", None),
    ("number", "3 to 5", None),
    ("number", "that we do not know.", None),
    ("number", "16 * 3.5 = $56.\n\nI hope this helps!", "56"),
    ("number", "15\\%", "15"),
    ("number", "\\frac{5}{4} litres", "1.25"),
    ("number", "1 250 dollars", "1250"),
    ("number", "−3 °C", "-3"),
    ("number", "$1.25 \\times 10^3$", "1250"),
    ("number", "1.2 million", "1200000"),
    ("yes_no", "yes, it flips.", "yes"),
    ("yes_no", "No.", "no"),
    ("yes_no", "that we do not know.", None),
]
FORMS = [
    "Answer: {}",
    "Answer:\n{}",
    "Answer:\n\n{}",
    "**Answer:** {}",
    "**Final answer:** {}",
    "### Answer\n{}",
    "**Answer**\n\n{}",
    "Answer (in short): {}",
    "The answer is {}",
    "The answer is: {}",
    "The answer is\n\n{}",
    "The answer is:\n{}",
    "The **answer** is {}",
    "The answer to the question is {}",
    "The correct answer must be {}",
    "Therefore, the answer (in short) is {}",
    "The answer, therefore, is {}",
    "The answer is, I think, {}",
    "The answer is that it is {}",
    "Answer: most likely {}",
    "Answer: most likely\n{}",
    "Answer: I think it is {}",
    "The answer is most likely {}",
    "The answer is probably\n\n{}",
    "So the final answer is most likely:\n\n{}",
    "Answer: The answer is {}",
    "Final answer: Therefore, the answer is\n{}",
    "I am not sure about (D) or 7.\n\nThe answer is {}",
]
LINES = ["#### {}", "\\boxed{{{}}}", "Answer: $\\boxed{{{}}}$", "So the answer is \\(\\boxed{{{}}}\\)"]
"""Forms that hold one line."""
TEXTS = [
    ("choice", "The answer is (D)\n\nThe answer is (C)\n\nThe answer is (D)", None),
    ("choice", "Therefore, the answer is (D)\nTherefore, the answer is (C)\nTherefore, the answer is (D)", None),
    ("choice", "Answer: (D)\nAnswer: (C)\nAnswer: (D)", None),
    ("choice", "Answer: B\nThe answer is not B.", None),
    ("choice", "The answer isn't (A). The answer is (B).", "B"),
    ("choice", "The answer is (B).\n\nThe answer (A) is too far away.", "B"),
    ("choice", "Answer: (B)\n\nThe answer is supported by the first line.", "B"),
    ("choice", "The answer is B.\nI choose neither.", None),
    ("choice", "Answer: B\nI choose this because it fits.", "B"),
    ("choice", "Answer: B, C", None),
    ("choice", "Answer: B, hotel", None),
    ("yes_no", "The answer is yes, it flips.\nTherefore, the answer (Yes or No) is No.", "no"),
    ("yes_no", "Answer: yes\nTherefore, the answer is No.", None),
    (
        "yes_no",
        "Could he fly? The answer is yes, birds fly.\nCould he swim? The answer is that we do not know.\n"
        "So we cannot tell.",
        None,
    ),
    ("yes_no", "The answer is yes for one of them.\nSo the answer is", None),
    ("yes_no", "The answer is yes.\nThe answer is not known.", None),
    ("number", "He has 51 left.\nTherefore, the answer is\n\n51", "51"),
    ("number", "The answer (in dollars) is 70.", "70"),
    ("number", "Answer: 18\n\nThe answer is in dollars.", "18"),
    ("number", "Answer: 16 - 7 = 9 eggs. She sells each for two dollars.", None),
    ("number", "The answer is 18. I know what the answer is.", "18"),
    ("number", "She has 9 * 2 = 18 of them.\n\n18", "18"),
    ("number", "1. She has 16 eggs.\n2.", None),
]


def check(kind: str, text: str, right: str | None) -> None:
    found = extract(text, READERS[kind])
    assert (found.value[0] if found.ok else None) == right, found
    options = tuple(Option(label, option) for label, option in OPTIONS.items()) if kind == "choice" else ()
    gold = GOLD[kind] if right is None else right
    item = TaskItem(
        id="x/y/1", collection="x", task="y", category="c", user="q?", gold=(gold,), answer_kind=kind, options=options
    )  # type: ignore[arg-type]
    with Verifier(timeout=5) as verifier:
        verdict = verifier.check(item, text)
    assert verdict.outcome == ("undecided" if right is None else "right"), verdict


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "value", "right"), VALUES)
def test_every_value_under_every_form(kind: str, value: str, right: str | None, form: str) -> None:
    """A value that is read after "Answer:" was not after "the answer is", on the next line, or behind "most likely"."""
    check(kind, form.format(value), right)


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize(("kind", "value", "right"), [row for row in VALUES if "\n" not in row[1]])
def test_every_line_under_every_form(kind: str, value: str, right: str | None, form: str) -> None:
    """A value was read under some forms of one line, and not under others."""
    check(kind, form.format(value), right)


@pytest.mark.parametrize(("kind", "text", "right"), TEXTS)
def test_the_last_announcement_decides_or_blocks(kind: str, text: str, right: str | None) -> None:
    """One that could not be read was skipped, so that an earlier one decided; contradictions were taken for answers."""
    check(kind, text, right)
