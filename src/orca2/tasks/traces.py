"""The layout of the teacher's answers: section labels at line starts, the final line last.

    step_by_step             Step 1: ... / Step 2: ... / ...
    explain_then_answer      Explanation: ...
    recall_then_generate     Recall: ...
    recall_reason_generate   Recall: ... / Reasoning: ...
    extract_then_generate    Extract: ...
    guess_and_check          Guess: ... / Check: ... / Guess: ... / Check: ...

After the body comes `Answer: <value>`; `direct` has no body. `orca2.answers.grading` reads this layout.

The value has the form of its kind, character for character: `number` is digits with an optional minus and no
leading zero (`1,000`, `+3`, `7.0` and `7.` are not numbers), `yes_no` is `yes` or `no`, `word` is one word of letters,
`list` is words or numbers joined by a comma and a blank. Answers of other kinds have no such form.
"""

import re
from collections.abc import Iterable, Mapping

from orca2.errors import ConfigError
from orca2.records import AnswerKind

ANSWER = "Answer: "
STEP = "Step"
EXPLANATION = "Explanation:"
RECALL = "Recall:"
REASONING = "Reasoning:"
EXTRACT = "Extract:"
GUESS = "Guess:"
CHECK = "Check:"

_NUMBER = r"-?(?:0|[1-9][0-9]*)"
_WORD = r"[A-Za-z]+"
_FORMS: Mapping[AnswerKind, re.Pattern[str]] = {
    "number": re.compile(_NUMBER),
    "word": re.compile(_WORD),
    "list": re.compile(rf"(?:{_WORD}|{_NUMBER})(?:, (?:{_WORD}|{_NUMBER}))*"),
    "yes_no": re.compile(r"yes|no"),
}


def final_form(kind: AnswerKind) -> re.Pattern[str]:
    """The form of a final line's value. Raises ConfigError for a kind that has none."""
    if kind not in _FORMS:
        raise ConfigError(f"a final line cannot hold an answer of kind {kind!r}; allowed are {', '.join(_FORMS)}")
    return _FORMS[kind]


def final_line(answer: str) -> str:
    """The last line of every answer, whatever the strategy, so that it gives no strategy away."""
    return f"{ANSWER}{answer}"


def steps(lines: Iterable[str]) -> str:
    """`Step 1: <line>` and so on, one line each."""
    return "\n".join(f"{STEP} {number}: {line}" for number, line in enumerate(lines, start=1))


def explanation(text: str) -> str:
    return f"{EXPLANATION} {text}"


def recall(text: str) -> str:
    return f"{RECALL} {text}"


def recall_reason(recalled: str, reasoning: str) -> str:
    return f"{RECALL} {recalled}\n{REASONING} {reasoning}"


def extract(text: str) -> str:
    return f"{EXTRACT} {text}"


def guesses(rounds: Iterable[tuple[str, str]]) -> str:
    """Pairs of a guess and its check, in the order they were tried."""
    return "\n".join(f"{GUESS} {guess}\n{CHECK} {check}" for guess, check in rounds)
