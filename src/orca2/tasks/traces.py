"""The layout of the teacher's answers: section labels at line starts, the final line last.

    step_by_step             Step 1: ... / Step 2: ... / ...
    explain_then_answer      Explanation: ...
    recall_then_generate     Recall: ...
    recall_reason_generate   Recall: ... / Reasoning: ...
    extract_then_generate    Extract: ...
    guess_and_check          Guess: ... / Check: ... / Guess: ... / Check: ...

After the body comes `Answer: <value>`; `direct` has no body. `orca2.answers.grading` reads this layout.
"""

from collections.abc import Iterable

ANSWER = "Answer: "
STEP = "Step"
EXPLANATION = "Explanation:"
RECALL = "Recall:"
REASONING = "Reasoning:"
EXTRACT = "Extract:"
GUESS = "Guess:"
CHECK = "Check:"


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
