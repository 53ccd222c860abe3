"""Reading takes time in proportion to the text, whatever stands in it, and no text ends it.

Small models fall into loops, and a pattern that is quadratic in one of them stops a whole run. Time is the processor's,
so that other work on the machine does not count.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orca2.answers.extraction import (
    Reader,
    choice_reader,
    extract,
    list_reader,
    number_reader,
    order_reader,
    span_reader,
    word_reader,
)
from orca2.answers.grading import detect_strategy, grade
from orca2.answers.verification.checkers import Verifier
from orca2.rows.items import Option, TaskItem
from tests.linear_time import assert_linear

OPTIONS = {"A": "a ring", "B": "a field", "C": "a group", "D": "none of these"}
READERS: dict[str, Reader] = {
    "choice": choice_reader(OPTIONS),
    "yes_no": choice_reader({"yes": "yes", "no": "no"}),
    "number": number_reader(),
    "span": span_reader("The Broncos beat the Chiefs by 3.5 points"),
    "word": word_reader(),
    "list": list_reader("List: pear apple zebra"),
    "order": order_reader({"A": "x", "B": "y", "C": "z"}),
}
GOLD = {
    "number": "10",
    "choice": "B",
    "yes_no": "yes",
    "word": "lamp",
    "list": "ox, ant",
    "order": "132",
    "span": "Rome",
}

PIECES = (
    "Answer: ", "Answer:\n", "Answer: A\n", "Answer: 1 + 1 = 2 ", "answer", "answer (", "of the answer: ",
    "final choice: ", "the answer is ", "the answer is\n", "the answer is 1 ", "The answer is not A. ",
    "If the answer is ", "So 1 ", "\nSo 1", "Answer: most likely ", "most likely ", "I think it is ", "I choose ",
    "(A) is correct ", "\nOption: A ", "Option A", "\\boxed{", "\\boxed{1}", "\\boxed{{", "{", "}", "(", "(1 = ", "[",
    "#", "####", "#### 1\n", "# answer\n", "$$\n", "\\[", "A ", "A\n", "A, and ", "A or ", "yes\n", "not ", "9", "1 ",
    "1,", "1,000", "1 000 ", "1/2 ", "1=", "1% ", "1e3", "1. ", "\\frac{1}{2}", "\\frac{", "\\", " ", "\n", " \n", "\t",
    "*", "**", "* ", "_", "-", "- ", "? ", ". A", "'", ",", "İ", "«", "wait ", "wrong ", "or ", "because ", "Step 1: ",
    "Step 1\n", "Guess:\n", "if ", "is correct ", "hundred ", "1 to ",
)  # fmt: skip
"""Each marker, phrase, bracket and separator that a pattern knows."""
LOOPS = ("Answer: A\n", "the answer is ", "\\boxed{1}", "\\boxed{", "####", "9", "1=", " ", "\n", "(A) is correct ")
"""Some of them, for the tests that are always run."""
SHAPES = ("{}", "Answer: 1{}", "The answer is A {}", "{}\nAnswer: B", "Answer: 10\n{}")


def check(read: Callable[[str], object], piece: str, shape: str = "{}") -> None:
    """A text of one piece, over and over, is read in linear time, and refused by no reader."""
    assert_linear(read, lambda length: shape.format(piece * (length // len(piece))), (piece, shape), refusals=())


@pytest.mark.parametrize("kind", ["choice", "number", "list"])
def test_loops_are_read_in_linear_time(kind: str) -> None:
    """A box repeated to 100 kB took over a second beside other work."""
    for piece in LOOPS:
        check(lambda text: extract(text, READERS[kind]), piece)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_readers_take_linear_time(kind: str) -> None:
    """Any marker, phrase or separator that a pattern knows, repeated, could take quadratic time."""
    for piece in PIECES:
        for shape in SHAPES:
            check(lambda text: extract(text, READERS[kind]), piece, shape)


def item(kind: str) -> TaskItem:
    options = tuple(Option(label, text) for label, text in OPTIONS.items()) if kind == "choice" else ()
    return TaskItem(
        id="x/y/1", collection="x", task="y", category="c", user="What is it?", gold=(GOLD[kind],), options=options,
        answer_kind=kind,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["number", "choice", "span"])
def test_checks_take_linear_time(kind: str) -> None:
    """A hedge that is looked for around every value."""
    question = item(kind)
    with Verifier(timeout=5) as verifier:
        for piece in PIECES:
            check(lambda text: verifier.check(question, text), piece, f"Answer: {GOLD[kind]} {{}}")


@pytest.mark.parametrize("kind", ["expression", "gym"])
def test_checks_by_other_processes_take_linear_time(kind: str) -> None:
    """Blanks before an expression, or blank lines before a marker that gym's check looks for, took quadratic time."""
    question = replace(item("span"), answer_kind=kind, gold=("60/19",))  # type: ignore[arg-type]
    with Verifier(timeout=5) as verifier:
        for piece in (" ", "\n", "- "):
            check(lambda text: verifier.check(question, text), piece, "x {}")
            if kind == "expression":
                check(lambda text: verifier.check(question, text), piece, "Answer: x{}y")


@pytest.mark.slow
def test_grading_takes_linear_time() -> None:
    """The strict rules of the generated families read the same students."""
    for piece in PIECES:
        check(lambda text: (grade("7", "number", text), detect_strategy(text)), piece)


def test_a_step_with_an_endless_number_is_no_error() -> None:
    """Python refuses to read a number of more than 4,300 digits: a student that counts in a loop ended the run."""
    assert detect_strategy(f"Step 1: a\nStep {'1' * 5000}: b") == "step_by_step"


WORDS = st.sampled_from(
    (*PIECES, "B", "10", "lamp", ".", "yes", "(B)", "-3", "60/19", "½", "\u2212", "\x1b[0m", "\ud800")
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=30).map("".join)


def read_all(text: str) -> None:
    for reader in READERS.values():
        found = extract(text, reader, "What is it?")
        assert found.ok == bool(found.value) == (found.span is not None)
        assert found.span is None or 0 <= found.span[0] <= found.span[1] <= len(text)
    for kind in ("number", "word", "list", "yes_no"):
        grade("7", kind, text)  # type: ignore[arg-type]
    detect_strategy(text)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_no_text_ends_a_reader(text: str) -> None:
    """A text that no one thought of raised from within a pattern, or gave a value without its place."""
    read_all(text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_none_of_many_texts_ends_a_reader(text: str) -> None:
    """A rare text could raise from within a pattern, or give a value without its place."""
    read_all(text)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS, st.sampled_from(sorted(GOLD)))
def test_no_text_ends_a_check(text: str, kind: str) -> None:
    """A teacher's answer that raised would end a synthesis that was paid for."""
    with Verifier(timeout=5) as verifier:
        assert verifier.check(item(kind), text).outcome in ("right", "wrong", "undecided")
