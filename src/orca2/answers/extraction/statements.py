"""Finds where the statement after an announcement ends, and whether it is reasoning instead of an answer."""

import re

REASONING = re.compile(
    r"\W*(?:let's|let us|let me|first,|to (?:find|answer|solve)\b|we (?:need|can|must|know)\b|i (?:think|need|will)\b"
    # Nothing is known, or nothing is said.
    r"|(?:that )?(?:we|i|it|one|this|you|there)(?: \w+)? (?:do(?:es)? not|don't|doesn't|did not|didn't|cannot|can not"
    r"|can't|could not|couldn't|is not|isn't|am not|are not|aren't)\b"
    r"|(?:not|un)[ ]?(?:known|clear|certain|sure|determined|decided|specified)\b|impossible to\b|cannot be\b)",
    re.IGNORECASE,
)
_ABBREVIATED = r"(?<!\b[A-Z]\.)(?<!\b(?:St|Dr|Mr|Ms|Mt|Ft|vs)\.)(?<!\b(?:Mrs|Gen|Col|Sgt|Rev|Gov|Sen|Rep)\.)"
_SENTENCE_END = re.compile(rf"(?<=[^\s.])\.(?=\s+[A-Z(]){_ABBREVIATED}")
_REASON = re.compile(r",? because |, (?:since|as) ")


def first_sentence(tail: str) -> str:
    """Up to the end of the sentence; a point between digits or after "St" ends nothing."""
    end = _SENTENCE_END.search(tail)
    return tail[: end.start()] if end else tail.rstrip()


def first_statement(tail: str) -> str:
    """Up to the end of the sentence or to its reason: `18` of "18, since 9 * 2 = 18"."""
    sentence = first_sentence(tail)
    reason = _REASON.search(sentence)
    return sentence[: reason.start()] if reason else sentence
