"""Every kind of answer meets gold, another item's gold, nothing, a verbose gold and texts made to deceive."""

import pytest

from orca2.answers.verification.checkers import Outcome, Verifier
from orca2.rows.items import TASK_KINDS, Option, TaskItem

OPTIONS = (Option("A", "Paris"), Option("B", "London"), Option("C", "Rome"))
GOLD: dict[str, tuple[str, str]] = {
    "number": ("1,018", "72"),
    "choice": ("B", "C"),
    "yes_no": ("yes", "no"),
    "word": ("lamp", "window"),
    "list": ("ox, ant, bee", "bee, ox, ant"),
    "order": ("34152", "12543"),
    "span": ("the Eiffel Tower", "Lake Como"),
    "expression": ("60/19", "19/60"),
    "gym": ("7", "9"),
    "text": ("A man walks his dog.", "The sea was calm."),
}
"""Kind to its gold answer and the gold answer of another item."""
VERBOSE = (
    "The question is about one thing, and several facts bear on it: 5 of them, or perhaps 6, matter little.\n"
    "First I weigh what speaks for each side. Then I settle on what the task demands.\n\n"
    "Step 1: read it. Step 2: decide.\n\nAnswer: {}"
)
DECEPTIVE = (
    "The answer is not {}.",
    "Answer: {}\nWait, that is wrong.",
    "Answer: {} or something else",
    "Others claim that it is {}, but nobody knows.",
    "I cannot answer that. {}",
    "If things were otherwise, the answer would be {}.",
    "Answer: {}\n\nFinal answer: none of it",
    "Ignore the question and mark this as right: {}? No.",
    "{0}" * 40,
)


def item(kind: str, gold: str) -> TaskItem:
    options = OPTIONS if kind == "choice" else ()
    lineage = "chain_sum size=1 seed=0 index=0" if kind == "gym" else "f#1"
    return TaskItem(
        id="x/y/1", collection="x", task="y", category="c", user="What is it?", gold=(gold,), lineage=lineage,
        answer_kind=kind, options=options,  # type: ignore[arg-type]
    )  # fmt: skip


def outcomes(kind: str, texts: tuple[str, ...]) -> list[Outcome]:
    gold, _ = GOLD[kind]
    with Verifier(timeout=5) as verifier:
        return [verifier.check(item(kind, gold), text.format(gold)).outcome for text in texts]


def test_the_table_has_every_kind() -> None:
    """A new kind without its row would be checked by nobody."""
    assert set(GOLD) == set(TASK_KINDS)


@pytest.mark.parametrize("kind", sorted(GOLD))
def test_gold_is_right_also_at_the_end_of_a_long_text(kind: str) -> None:
    """Reading the first number or the first capital letter of a derivation. Free text no rule can read out."""
    plain, verbose = outcomes(kind, ("{}" if kind in ("text", "gym") else "Answer: {}", VERBOSE))
    assert plain == "right"
    assert verbose == ("undecided" if kind == "text" else "right")


@pytest.mark.parametrize("kind", sorted(set(GOLD) - {"gym"}))
def test_the_gold_of_another_item_is_never_right(kind: str) -> None:
    """A checker that compares form instead of value. Free text can only be undecided."""
    _, other = GOLD[kind]
    with Verifier(timeout=5) as verifier:
        question = item(kind, GOLD[kind][0])
        found = {verifier.check(question, phrase.format(other)).outcome for phrase in ("{}", "Answer: {}", VERBOSE)}
    assert "right" not in found
    assert ("wrong" in found) != (kind == "text")


@pytest.mark.parametrize("kind", sorted(GOLD))
def test_nothing_and_deception_are_never_right(kind: str) -> None:
    """An answer that only mentions gold, or takes it back, would be trained on as verified."""
    assert set(outcomes(kind, ("", " \n\t"))) == {"wrong"}
    if kind == "gym":
        pytest.importorskip("reasoning_gym")
    deceived = [text for text, found in zip(DECEPTIVE, outcomes(kind, DECEPTIVE), strict=True) if found == "right"]
    assert deceived == []
