"""Announced but not meant: what stands around a final answer and takes it back, doubts it or changes its
size.

    The answer is not 18.      Answer: 18 or 19      Answer: 18 %      Answer: about 18      Answer: 18 1/2
    Answer: 18
    Wait, that is wrong.

A text with such a mark is undecided, even where the value equals the gold answer.
"""

import re
from collections.abc import Sequence

from orca2.rows.items import Option

_BEFORE_NUMBER = re.compile(
    r"\b(?:not|never|neither|no|less|more|fewer|greater|least|most(?! likely)|over|under|above|below|between|except|"
    r"about|around|approximately|roughly|nearly|almost|than|without|half|twice|double|minus|negative|unknown|others|"
    r"claim|mod|base|sqrt|root|log|ln|sin|cos|tan|times)\b|n't\b|[<>≤≥≈~≠^√±]|\\(?:ne|approx|sqrt|frac|lt|gt|pm|log)",
    re.IGNORECASE,
)
# What may follow a number: nothing, the end of its markup or sentence, or words of a unit. Not another
# number, an
# operator, or a letter that makes it an ordinal, a product or a code.
_FREE_END = re.compile(r"(?:\*\*|[\s.,;)\]}*_$\"'`”’]|\\\)|$)")
_OPERATOR = re.compile(r"[\s)\]}$]*(?:[-+*/^!%‰°=<>~×÷:|&]|\\(?![)\]]))")
_CHANGES = re.compile(
    r"\d|[<>≤≥≈≠×÷]|\b(?:or|percents?|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|quarters?|thirds?|"
    r"points?|times|squared|cubed|factorial|plus|minus|below|above|otherwise|else|more|fewer|less|if|unless|except|modulo|mod|base|degrees?)\b",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"[\s)\]}*_.,;\"'`”’]*\bor\b", re.IGNORECASE)
_CONDITION = re.compile(r"[^.!?;]*\b(?:if|when|provided)\b", re.IGNORECASE)
"""`yes if it rains`, `B) when both hold`: in the sentence of the label, and not in the next one."""
_DOUBT = re.compile(
    r"\b(?:wrong|incorrect|false alarm|mistake|mistaken|error|maybe|perhaps|not sure|unsure|guess|possibly|"
    r"might be|could be|or else|is not|isn't|was not|cannot be|if and only|only if|unless|depends|otherwise|"
    r"then again)\b|\?",
    re.IGNORECASE,
)
_RETRACTION = re.compile(
    r"\b(?:wait|actually|wrong|incorrect|mistake|correction|scratch that|on second thought|sorry|instead|hmm|"
    r"i was|let me re|however|never ?mind|should (?:be|have been)|rather)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(r"\bI (?:cannot|can't|am unable|won't|refuse|do not know|don't know)\b", re.IGNORECASE)


def hedge(text: str, span: tuple[int, int], number: bool) -> str | None:
    """Why the answer at `span` does not count as stated; None where nothing speaks against it."""
    start, end = span
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    rest = text[end:line_end]
    if number:
        before = text[_statement(text, line_start, start) : start]
        if found := _BEFORE_NUMBER.search(before):
            return f"{found[0]!r} stands before the value"
        ahead = rest.replace("**", "")
        if not _FREE_END.match(ahead) or _OPERATOR.match(ahead):
            return f"{rest[:8]!r} follows the value"
        if found := _CHANGES.search(rest):
            return f"{found[0]!r} after the value may change it"
    if _ALTERNATIVE.match(rest):
        return "another answer is offered beside the value"
    if found := _DOUBT.search(rest):
        return f"{found[0]!r} casts doubt on the value"
    if found := _RETRACTION.search(text, line_end):
        return f"{found[0]!r} after the value may take it back"
    if found := _REFUSAL.search(text):
        return f"{found[0]!r} refuses to answer"
    return None


def other_label(text: str, span: tuple[int, int], option: Option, labels: Sequence[str]) -> str | None:
    """Why `option`, read at `span`, is not the only choice on its line or holds only sometimes; None where nothing
    speaks against it."""
    line_end = text.find("\n", span[1])
    rest = text[span[1] : len(text) if line_end < 0 else line_end].replace(option.text, " ")
    if _CONDITION.match(rest):
        return "the choice stands under a condition"
    for label in labels:
        one = re.escape(label)
        # `A` and `I` are words, too: they are labels where punctuation says so.
        plain = (
            rf"\b{one}\b" if label not in ("A", "I") else rf"(?:,|/|&|\bor|\band)\s*{one}\b|\b{one}(?=[.,;)\]]|\s*$)"
        )
        if label != option.label and re.search(rf"\({one}\)|{plain}", rest):
            return f"{label!r} follows the choice"
    return None


_ANNOUNCED = re.compile(r"(?:answer|choice)[\s*_]*(?:is)?[\s*_]*:", re.IGNORECASE)


def _statement(text: str, start: int, end: int) -> int:
    """Start of the statement that ends with the value: after `Answer:`, else the sentence's first word."""
    announced = list(_ANNOUNCED.finditer(text, start, end))
    if announced:
        return announced[-1].end()
    stops = [match.end() for match in re.finditer(r"[.!?;](?=\s)", text[start:end])]
    return start + stops[-1] if stops else start
