"""Reads one number.

18   $1,000.50   -3   \\$1{,}000          a number that opens its statement; what follows explains it
x = 18   2 * 9 = 18                      the result after the last `=`
she earns $18 every day                  the only one of a statement; after a marker that must be the text's last one
3 to 5   12 apples and 3 pears           not one answer
1 000   1e3   7 1/2   1,5   1'000        no number: a part of it would be a wrong one
2.5 million                              2500000
2 hours 15 minutes   18, 20              not one answer
"""

import re

from orca2.evaluation.extraction.anchors import ANSWER_IS, Found, Reader
from orca2.evaluation.extraction.statements import REASONING, first_sentence, first_statement

_BLANK = " \u00a0\u2009\u202f"
_GROUP = r"(?:,(?:\\!)?|\\,|\{,\})"
"""Between groups of three digits: a comma, or what LaTeX writes for one."""
_NUMBER = re.compile(
    rf"(?<![\w.])(?<!\d[{_BLANK},/·'’])[-−–+]?[ ]?[$€£]?[ ]?[-−]?"
    rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))"
    rf"(?!\d|[{_BLANK}./·]\d|['’]\d{{3}}|[eE][-+]?\d|{_GROUP}\d)"
)
_NUMBER_PHRASE = re.compile(
    rf"\b{ANSWER_IS}"
    r"|(?:^|(?<=[.!?:]))[ \t]{0,3}(?=(?:so|therefore|thus|hence|in total|altogether|in conclusion|finally)\b"
    r"(?:[^\n.!?]|\.\d){1,300}[.!*]*\s*\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_NUMBER = re.compile(
    # A list's first item, a step, or how the number is found.
    r"[\s*_]*(?:1[.)][\s*_]+\w|(?:step|not)\b|(?:is )?(?:found|obtained|calculated|computed|given) (?:by|from|as)\b)",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?:[^\W\d]*[=≈])?")
"""Before a number that opens its statement, once blanks and markup are gone: nothing, or "x=", "Totalcost="."""
_BEFORE_NUMBER = re.compile(r"\\(?:text|boxed)|about|approximately|exactly|[\s*_`({\[\\]", re.IGNORECASE)
_SPACE = r"[\s*_]{0,4}"
"""Blanks and markup. Bounded, for `*` is also an operator: a long row of it would be read in quadratic time."""
_UNIT = rf"%?(?: [a-z]+){{0,3}}{_SPACE}"
_CALCULATES = re.compile(
    rf"(?:{_SPACE}[-–/x^:]|{_UNIT}(?:[+*×÷]|\\times|\b(?:plus|minus|times)\b)){_SPACE}[$]?\d", re.IGNORECASE
)
_HEDGES = re.compile(rf"(?:{_SPACE}\b(?:to|through)\b|{_UNIT}\b(?:or|and)\b){_SPACE}[$]?\d", re.IGNORECASE)
_LISTS = re.compile(
    rf"{_SPACE}[,;]{_SPACE}[$]?\d[\d.,]*(?:{_SPACE}$|[;,]| and\b)"
    r"|[ ]?(?:hours?|hrs?|h|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|dollars?|pounds?|lbs?|meters?|m)"
    r"\b,?[ ]+\d",
    re.IGNORECASE,
)
"""After a number: another one of a list, or of a quantity in two units."""
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"[ ](?P<scale>{'|'.join(_SCALES)})s?\b", re.IGNORECASE)
_REMARK = re.compile(r"\((?=[^()=\d]*\d)[^()=]*=[^()]*\)")
"""An equation in brackets: "18 (16 - 7 = 9 eggs)"."""

_PLAIN = str.maketrans("−–", "--", ",$€£ ")


def plain_number(text: str) -> str | None:
    """`text` as a plain decimal such as `-1000.5`, without currency, commas or trailing zeros; None if it is none."""
    match = re.fullmatch(r"([-+]?)0*(\d*)(?:\.(\d+))?", re.sub(_GROUP, "", text).translate(_PLAIN))
    if not match or not re.search(r"\d", text):
        return None
    sign, whole, fraction = match[1].strip("+"), match[2] or "0", (match[3] or "").rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number


def number_reader() -> Reader:
    """A reader of one number; the value is a plain decimal. A last sentence such as "So she paid $18." announces it."""
    return Reader(_number_after, _number_bare, _NUMBER_PHRASE)


def _numbers(text: str) -> list[re.Match[str]]:
    return [match for match in _NUMBER.finditer(text) if plain_number(match[0]) is not None]


def _number_after(tail: str) -> Found | None:
    """The number that opens the statement; else the result after its last `=`, or the only number in it."""
    if REASONING.match(tail) or _NO_NUMBER.match(tail):
        return None
    tail = _REMARK.sub(lambda remark: " " * len(remark[0]), tail)
    opening = first_statement(tail)
    numbers = _numbers(opening)
    if numbers and _NAMED.fullmatch(_BEFORE_NUMBER.sub("", opening[: numbers[0].start()])):
        start, end = numbers[0].span()
        if _HEDGES.match(opening, end) or _LISTS.match(opening, end):
            return Found((), start, end)
        # What follows explains it, unless it goes on calculating.
        if "=" not in opening[end:] and not _CALCULATES.match(opening, end):
            return Found((_scaled(numbers[0]),), start, end)
    statement = first_sentence(tail)
    equals = tail.rfind("=")
    results = [number for number in _numbers(tail) if number.start() > equals >= 0]
    if results and first_sentence(tail[equals:]) == tail[equals:].rstrip():
        numbers, statement = results, tail
    if not numbers:
        return None
    start, end = numbers[0].span()
    values = {_scaled(number) for number in numbers}
    one = len(values) == 1 and not _CALCULATES.match(tail, end)
    return Found(tuple(values) if one else (), start, end, len(statement))


def _number_bare(text: str) -> Found | None:
    matches = _numbers(text)
    if len(matches) != 1 or len(text.split()) > 3 or "\n" in text.strip():
        return None
    return Found((_scaled(matches[0]),), *matches[0].span())


def _scaled(match: re.Match[str]) -> str:
    """The number, times the thousand, million, … that follows it."""
    number = str(plain_number(match[0]))
    scale = _SCALE.match(match.string, match.end())
    if scale is None:
        return number
    whole, _, fraction = number.partition(".")
    zeros = _SCALES[scale["scale"].lower()]
    digits = f"{whole}{fraction[:zeros].ljust(zeros, '0')}.{fraction[zeros:] or '0'}"
    return str(plain_number(digits))
