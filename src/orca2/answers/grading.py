"""Reads an answer: its final value, whether that is right, and which strategy it used.

    Step 1: 3 + 4 = 7        labels at line starts   -> detect_strategy: step_by_step
    Answer: 7                the only marker, last   -> extract_final: "7"

The rules are strict on purpose: the format is part of what a student learns, and a lenient rule would
hide that it has not. A text has a final value only if

- exactly one line starts with `Answer: ` (a marker inside a line does not count as one), and
- that line is the last one that is not blank, and
- a value follows the marker; blanks around the value are dropped.

The value must then have the form of its kind, which `orca2.tasks.traces` states.
"""

import re
from typing import NamedTuple

from orca2.records import AnswerKind
from orca2.tasks.traces import ANSWER, final_form

_LABEL = re.compile(r"(?:Step ([1-9][0-9]{0,8})|Explanation|Recall|Reasoning|Extract|Guess|Check):")
_LAYOUTS: dict[tuple[str, ...], str] = {
    ("Explanation",): "explain_then_answer",
    ("Recall",): "recall_then_generate",
    ("Recall", "Reasoning"): "recall_reason_generate",
    ("Extract",): "extract_then_generate",
}
NO_STRATEGY = "none"


class Grade(NamedTuple):
    """The verdict on one answer. `correct` implies `format_ok`."""

    correct: bool
    format_ok: bool
    """A final value was found and has the form of its kind."""
    value: str | None


def _lines(text: str) -> list[str]:
    # Only "\n" ends a line here: str.splitlines also splits at form feeds and Unicode separators.
    return [line for line in text.split("\n") if line.strip()]


def extract_final(text: str) -> str | None:
    """The value of the final line, or None where the text has no single well-formed one."""
    lines = _lines(text)
    if not lines or sum(line.startswith(ANSWER) for line in lines) != 1 or not lines[-1].startswith(ANSWER):
        return None
    return lines[-1][len(ANSWER) :].strip() or None


def grade(problem_answer: str, kind: AnswerKind, text: str) -> Grade:
    """Compare the final value of `text` with the right answer, exactly. Raises ConfigError as `final_form` does."""
    form, value = final_form(kind), extract_final(text)
    format_ok = value is not None and form.fullmatch(value) is not None
    return Grade(correct=format_ok and value == problem_answer, format_ok=format_ok, value=value)


def detect_strategy(text: str) -> str:
    """The strategy that a text used, by its section labels; `none` where no layout fits exactly.

    `direct` is a final line and nothing else. Any other strategy is known by the labels at line
    starts, in order, whether or not the text got to its final line: steps numbered 1, 2, 3, ...; one
    `Explanation`, `Recall` or `Extract`; one `Recall` then one `Reasoning`; or pairs of `Guess` and
    `Check`, of which the last may lack its check. Lines without a label belong to the section above
    them; before the first label only blank lines may stand.
    """
    lines = _lines(text)
    if not lines:
        return NO_STRATEGY
    if lines[0].startswith(ANSWER):
        return "direct" if len(lines) == 1 else NO_STRATEGY
    matches = [match for line in lines if (match := _LABEL.match(line))]
    if not _LABEL.match(lines[0]):
        return NO_STRATEGY
    if all(match[1] for match in matches):
        numbers = [int(match[1]) for match in matches]
        return "step_by_step" if numbers == list(range(1, len(numbers) + 1)) else NO_STRATEGY
    labels = tuple(match[0].rstrip(":") for match in matches)
    if labels == ("Guess", "Check") * (len(labels) // 2) + ("Guess",) * (len(labels) % 2):
        return "guess_and_check"
    return _LAYOUTS.get(labels, NO_STRATEGY)
