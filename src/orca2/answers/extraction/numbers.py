"""Reads one number.

18   $1,000.50   15%   5/4   1.2 million   a quantity that opens its statement; what follows explains it
x = 18   2 * 9 = 18                      the result after the last `=`
she earns $18 every day                  the only one of a statement, after which nothing but a courtesy may stand
10+Tom's age   sqrt(18)   18+            a part of a formula, and no answer
3 to 5   12 apples and 3 pears   2 hours 15 minutes   18, 20      not one answer
So she paid $18.                         the last sentence announces it by its first word
"""

import re
from collections.abc import Iterator

from orca2.answers.extraction.announcements import COMMON, Spot
from orca2.answers.extraction.quantities import Quantity, plain_number, quantities
from orca2.answers.extraction.reading import Found, Reader, last_line
from orca2.answers.extraction.statements import REASONING, first_sentence, first_statement

__all__ = ["number_reader", "plain_number"]

_NO_NUMBER = re.compile(
    # A list's first item, a step, or how the number is found.
    r"[\s*_]*(?:1[.)][\s*_]+\w|(?:step|not)\b|(?:is )?(?:found|obtained|calculated|computed|given) (?:by|from|as)\b)",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?:[^\W\d]*[=≈])?")
"""Before a number that opens its statement, once blanks and markup are gone: nothing, or "x=", "Totalcost="."""
_BEFORE_NUMBER = re.compile(r"\\(?:text|boxed)|about|approximately|exactly|[\s*_`({\[\\$]", re.IGNORECASE)
_SPACE = r"[\s*_]{0,4}"
"""Blanks and markup. Bounded, for `*` is also an operator: a long row of it would be read in quadratic time."""
_UNIT = rf"%?(?: [a-z]+){{0,3}}{_SPACE}"
_CALCULATES = re.compile(
    # An operator beside the number; or one behind its unit, and then another number.
    rf"{_SPACE}(?:[+/^×÷·±≠≤≥>#]|<(?![/a-z])|\\(?:times|cdot|div|pm|sqrt)\b|[-−](?=[\s\w($]))"
    rf"|\*[$]?\d|[ ]\*[ ][\w($]|\((?=[a-z\d]\b)|{_SPACE}[-–−/x:]{_SPACE}[$]?\d"
    rf"|{_UNIT}(?:[+*×÷]|\\times|\b(?:plus|minus|times)\b){_SPACE}[$]?\d",
    re.IGNORECASE,
)
_OF = re.compile(r" of [$]?\d", re.IGNORECASE)
_WITHIN = re.compile(
    r"(?:sqrt|√|\b(?:log|ln|sin|cos|tan|mod)|[+/^×÷·±≠<>≤≥]|[\d)]\s?\*|\w \* ?)\s{0,3}[({]?\s{0,3}$", re.IGNORECASE
)
"""Before a number that is a part of a formula."""
_HEDGES = re.compile(rf"(?:{_SPACE}\b(?:to|through)\b|{_UNIT}\b(?:or|and)\b){_SPACE}[$]?\d", re.IGNORECASE)
_LISTS = re.compile(
    rf"{_SPACE}[,;]{_SPACE}[$]?\d[\d.,]*(?:{_SPACE}$|[;,]| and\b)"
    r"|[ ]?(?:hours?|hrs?|h|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|dollars?|pounds?|lbs?|meters?|m)"
    r"\b,?[ ]+\d",
    re.IGNORECASE,
)
"""After a number: another one of a list, or of a quantity in two units."""
_TWO_UNITS = re.compile(r"[\d ](?:h|hrs?|ft|mins?|lbs?|m|[ap]m)$", re.IGNORECASE)
_REMARK = re.compile(r"\((?=[^()=\d]*\d)[^()=]*=[^()]*\)")
"""An equation in brackets: "18 (16 - 7 = 9 eggs)"."""
_CLOSING = re.compile(
    r"[ \t*_]{0,3}(?=(?:so|therefore|thus|hence|in total|altogether|in conclusion|finally)\b)", re.IGNORECASE
)
_CLOSING_LENGTH = 300
"""Characters; a longer last sentence is reasoning."""
_ITEM = re.compile(r"\s*(?:[-+•]\s|\d{1,3}[.)]\s+\S|\d{1,3}\))")
_FIRST_ITEM = re.compile(r"^[ \t]{0,8}1[.)][ \t]", re.MULTILINE)
_NEXT_ITEM = re.compile(r"^[ \t]{0,8}\d{1,2}[.)][ \t]{0,8}\Z", re.MULTILINE)
_STOP = re.compile(r"[.!?](?!\d)")


def number_reader() -> Reader:
    """A reader of one number; the value is a plain decimal, or a fraction where none is exact."""
    return _READER


def _number_after(tail: str) -> Found | None:
    """The number that opens the statement; else the result after its last `=`, or the only number in it."""
    if REASONING.match(tail) or _NO_NUMBER.match(tail):
        return None
    if "(" in tail:
        tail = _REMARK.sub(lambda remark: " " * len(remark[0]), tail)
    opening = first_statement(tail)
    first = next(quantities(opening), None)
    if first and _NAMED.fullmatch(_BEFORE_NUMBER.sub("", opening[: first.start])):
        if _HEDGES.match(opening, first.end) or _lists(opening, first):
            return Found((), first.start, first.end)
        # What follows explains it, unless it goes on calculating.
        if "=" not in opening[first.end :] and not _is_part(opening, first):
            return Found((first.value,), first.start, first.end)
    equals = tail.rfind("=")
    if equals >= 0 and first_sentence(tail[equals:]) == tail[equals:].rstrip():
        found = _only(tail, quantities(tail, equals), len(tail), True)
        if found:
            return found
    return _only(tail, quantities(opening), len(first_sentence(tail)), False)


def _only(tail: str, numbers: Iterator[Quantity], statement: int, result: bool) -> Found | None:
    """The one value of `numbers`; none where they differ, or where one is a part of a formula."""
    first = next(numbers, None)
    if first is None:
        return None
    one = not _is_part(tail, first) and all(
        number.value == first.value and not _is_part(tail, number) for number in numbers
    )
    return Found((first.value,) if one else (), first.start, first.end, statement, result)


def _is_part(text: str, number: Quantity) -> bool:
    """Whether the number is a part of a formula, or a share of another number."""
    if number.share and _OF.match(text, number.end):
        return True
    before = text[max(0, number.start - 8) : number.start]
    return _CALCULATES.match(text, number.end) is not None or _WITHIN.search(before) is not None


def _lists(text: str, number: Quantity) -> bool:
    if _LISTS.match(text, number.end):
        return True
    two = _TWO_UNITS.search(text[number.start : number.end])
    return two is not None and re.match(r",?[ ]+\d", text[number.end :]) is not None


def _closing(text: str, _: str) -> Iterator[Spot]:
    """The last sentence, where its first word says that it concludes."""
    end = len(text.rstrip(" \t\n*!."))
    start = max(text.rfind("\n", 0, end) + 1, end - _CLOSING_LENGTH)
    for stop in _STOP.finditer(text, start, end):
        start = stop.end()
    for begin in (start, text.find(":", start, end) + 1):
        match = _CLOSING.match(text, begin, end) if begin >= start else None
        if match:
            yield Spot("closing", match.end(), match.end(), weak=True)
            return


def _number_bare(text: str) -> Found | None:
    """One line of up to three words with one number, or a last line that is one, while no other line is."""
    if "\n" not in text.strip():
        return _short(text)
    # A list that was cut off: "1. She has 16 eggs.⏎2."
    return None if _NEXT_ITEM.search(text) and _FIRST_ITEM.search(text) else last_line(text, _alone)


def _short(line: str) -> Found | None:
    if len(line.split(maxsplit=3)) > 3:
        return None
    numbers = list(quantities(line))
    if len(numbers) != 1 or _is_part(line, numbers[0]):
        return None
    return Found((numbers[0].value,), numbers[0].start, numbers[0].end)


def _alone(line: str) -> Found | None:
    """A number that opens its line, with up to two words for its unit; no item of a list."""
    found = _short(line)
    if found is None or not _NAMED.fullmatch(_BEFORE_NUMBER.sub("", line[: found.start])) or _ITEM.match(line):
        return None
    return found


_READER = Reader(_number_after, _number_bare, COMMON, _closing)
