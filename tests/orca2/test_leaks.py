from dataclasses import replace

import pytest

from orca2.errors import ConfigError
from orca2.leaks import LeakReport, leaked_ngrams
from orca2.records import Example

INSTRUCTION = "First recall the facts that matter, then reason; write the answer."


def example(answer: str, system: str = INSTRUCTION, user: str = "Why?", id: str = "s/0") -> Example:
    return Example(
        id=id,
        source="s",
        task="t",
        strategy="direct",
        system=system,
        user=user,
        answer=answer,
        teacher="gold",
    )


def test_quotation_is_found_whatever_its_case_and_punctuation() -> None:
    """Prevents leaks that hide behind a capital or a comma; the n-grams show where words are cut."""
    quote = "As told, I FIRST recall: the facts that matter -- then 'reason'."
    assert leaked_ngrams(example(quote), n=4) == [
        "first recall the facts",
        "recall the facts that",
        "the facts that matter",
        "facts that matter then",
        "that matter then reason",
    ]
    assert leaked_ngrams(example(quote)) == ["first recall the facts that matter then reason"]


def test_shared_phrases_shorter_than_n_are_no_leak() -> None:
    """Prevents alarms at common phrases."""
    assert leaked_ngrams(example("The facts that matter are few, then we write the answer.")) == []


def test_what_the_user_wrote_is_no_leak() -> None:
    """Prevents alarms at answers that repeat the question, where the instruction repeats it too."""
    quote = "recall the facts that matter then reason write the answer"
    assert leaked_ngrams(example(quote)) != []
    assert leaked_ngrams(example(quote, user=INSTRUCTION.upper())) == []


def test_a_short_instruction_is_one_ngram() -> None:
    """Prevents that short instructions can never leak."""
    assert leaked_ngrams(example("I think step by step.", system="Think step by step!")) == ["think step by step"]
    assert leaked_ngrams(example("I go step by step.", system="Think step by step!")) == []


@pytest.mark.parametrize("system", ["", " ?! "])
def test_no_instruction_no_leak(system: str) -> None:
    """Prevents that every answer leaks the empty instruction."""
    assert leaked_ngrams(example("Anything.", system=system)) == []


def test_ngrams_have_words() -> None:
    """Prevents a check that finds the empty n-gram everywhere."""
    with pytest.raises(ConfigError, match="at least 1 word, not 0"):
        leaked_ngrams(example("a"), n=0)


def test_report_counts_all_and_lists_some() -> None:
    """Prevents a report that grows with the data, or that counts only what it lists."""
    report = LeakReport(n=4, keep=2)
    answers = [
        "Fine.",
        "recall the facts that",
        "First recall the facts",
        "Fine.",
        "write then reason write the answer",
    ]
    found = [report.add(example(answer, id=f"s/{row}")) for row, answer in enumerate(answers)]
    assert found == [False, True, True, False, True]
    assert (report.checked, report.leaked) == (5, 3)
    assert report.examples == {"s/1": "recall the facts that", "s/2": "first recall the facts"}


def test_a_trace_is_read_like_the_answer() -> None:
    """With thinking=keep a trace that quotes the instruction teaches the student to speak of what it cannot see."""
    quoting = replace(example("Because."), reasoning=f"I was told: {INSTRUCTION.lower()} So be it.")
    assert leaked_ngrams(quoting) and not leaked_ngrams(replace(quoting, reasoning=""))
    report = LeakReport()
    assert report.add(quoting) and report.leaked == 1
    # Not across the border between the two: no student writes them in one breath.
    halves = replace(example("that matter, then reason; write"), reasoning="First recall the facts")
    assert leaked_ngrams(halves) == []
