"""How the answers of a task are checked, read off its gold answers.

1,234   -7.5              number
yes     no                yes_no
(B)     options listed    choice
34152   21354             order       digits 1 to k, each once, in every answer of the task
one to five words         span
anything longer           text        free text; only a judge could check it
"""

import re
from collections.abc import Collection, Sequence

from orca2.records import AnswerKind
from orca2.rows.items import Option

LABELS_AT_MOST = 8
"""A task with at most this many different answers classifies; ours, from the label sets of Natural
Instructions."""
ROWS_PER_LABEL = 4
"""With fewer rows a label than this, few different answers are an accident of a small file; ours."""
SPAN_WORDS = 5
"""Longer answers have several right wordings, so comparing texts would call right ones wrong; ours."""

# Leading zeros and plus signs belong to codes (`030`, `+358`), which equal only themselves.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.\d+)?")
_OPTION = re.compile(r"^(?:-\s*)?\(([A-Z])\)\s*(.*)$|^(?:-\s*)?([A-Z])[).]\s*(.*)$", re.MULTILINE)


def kind_of_answers(answers: Sequence[Collection[str]]) -> tuple[AnswerKind, tuple[Option, ...]]:
    """The kind of a task from all of its answers (each row's acceptable ones), and its labels if it
    classifies."""
    flat = [answer.strip() for row in answers for answer in row]
    if not flat:
        return "text", ()
    folded = {answer.casefold().rstrip(".") for answer in flat}
    if folded <= {"yes", "no"}:
        return "yes_no", ()
    if all(_is_order(answer) for answer in flat) and len({len(answer) for answer in flat}) == 1:
        return "order", ()
    if _classifies(flat, len(answers)):
        return "choice", tuple(Option(label, label) for label in sorted(set(flat)))
    if all(_NUMBER.fullmatch(answer) for answer in flat):
        return "number", ()
    if all(len(answer.split()) <= SPAN_WORDS and "\n" not in answer for answer in flat):
        return "span", ()
    return "text", ()


def kind_of_row(user: str, gold: tuple[str, ...]) -> tuple[AnswerKind, tuple[Option, ...], tuple[str, ...]]:
    """The kind of one row by itself, its options, and its gold answers, which are labels where options are listed.

    Without a gold answer it is free text, which nothing verifies.
    """
    if not gold:
        return "text", (), ()
    options = options_in(user)
    letters = tuple(_letter(answer, options) for answer in gold)
    if options and all(letters):
        return "choice", options, letters
    return kind_of_answers([gold])[0], (), gold


def options_in(text: str) -> tuple[Option, ...]:
    """The options that a question lists one a line, as `(A) 21`, `- (A) 21`, `A) 21` or `A. 21`.

    The last such list counts: a question may list statements in the same form before its options. Empty
    unless the
    letters run A, B, C, ... without a gap.
    """
    found = [Option(match[1] or match[3], (match[2] or match[4] or "").strip()) for match in _OPTION.finditer(text)]
    starts = [place for place, option in enumerate(found) if option.label == "A"]
    options = tuple(found[starts[-1] :]) if starts else ()
    letters = "".join(option.label for option in options)
    return options if len(options) >= 2 and "ABCDEFGHIJKLMNOPQRSTUVWXYZ".startswith(letters) else ()


def _letter(answer: str, options: tuple[Option, ...]) -> str:
    bare = answer.strip("().")
    named = [
        option.label
        for option in options
        if answer in (option.text, f"({option.label}) {option.text}") or bare == option.label
    ]
    return named[0] if len(named) == 1 else ""


def _is_order(answer: str) -> bool:
    return len(answer) >= 3 and sorted(answer) == [str(digit) for digit in range(1, len(answer) + 1)]


def _classifies(flat: list[str], rows: int) -> bool:
    labels = {answer.casefold() for answer in flat}
    # Two spellings of one label would be two options of which only one is right.
    one_spelling = len(labels) == len(set(flat))
    short = all(len(label.split()) <= SPAN_WORDS and not label.endswith("?") for label in labels)
    numeric = all(_NUMBER.fullmatch(label) for label in labels)
    few = 2 <= len(labels) <= LABELS_AT_MOST and rows >= ROWS_PER_LABEL * len(labels)
    return one_spelling and short and few and not numeric
