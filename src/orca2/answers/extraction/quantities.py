"""One written quantity, as an exact number.

18   $1,000.50   −3   \\$1{,}000   1 250   1'000   007          1250, 1000, 7
1.25 \\times 10^3   1.2e3   2.5 million   18k                   1250, 1200, 2500000, 18000
\\frac{5}{4}   5/4   1 1/4   1/3                               1.25, and 1/3 where no decimal is exact
15%   15\\%   15 percent   −3 °C   5km   $18/day               units say nothing: 15, −3, 5, 18
1,5   1,0000   12:30   3-5   7½   5²   2x   18th              no number: a part of it would be a wrong one
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

_BLANK = " \u00a0\u2009\u202f"
_GROUP = r"(?:,(?:\\!)?|\\,|\{,\})"
"""Between groups of three digits: a comma, or what LaTeX writes for one."""
_SEPARATED = rf"\d{{1,3}}(?:(?:{_GROUP}\d{{3}})+|(?:[{_BLANK}]\d{{3}})+|(?:['’]\d{{3}})+)(?!\d)"
_LATEX = r"\\[dt]?frac[ ]?\{\d{1,30}\}[ ]?\{\d{1,30}\}"
_FRACTION = rf"{_LATEX}|\d{{1,30}}/\d{{1,30}}"
_UNITS = (
    r"k?m|[cmn]m|k?g|mg|[cm]?l|lbs?|oz|ft|in|yds?|mi|hr?s?|mins?|secs?|s|mph|kph|kmh|k?wh?|v|[ap]\.?m|[cf]"
    r"|(?!sqrt|frac|times|cdot)[a-z]{4,}"
)
"""What a number may be written together with. Not one letter of a formula, nor what makes it an ordinal."""
QUANTITY = re.compile(
    rf"(?<![\w.])(?<!\d[{_BLANK},/·'’:])(?P<sign>[-−–+]?[ ]?(?:\\?[$€£¥])?[ ]?[-−]?)"
    rf"(?:(?P<mixed>\d{{1,30}})[ ]?(?P<part>{_LATEX}|(?<=[ ])\d{{1,30}}/\d{{1,30}})"
    rf"|(?P<fraction>{_FRACTION})"
    rf"|(?P<decimal>(?:{_SEPARATED}|\d+)?(?:\.\d+|(?<=\d)))"
    rf"(?:[ ]?(?:\\times|\\cdot|[×x*·])[ ]?10\^(?:\{{(?P<braced>[-−+]?\d{{1,3}})\}}|(?P<power>[-−+]?\d{{1,3}}))"
    rf"|[eE](?P<exponent>[-−+]?\d{{1,3}}))?"
    r"(?:[ ](?P<scale>hundred|thousand|million|billion|trillion)s?\b|(?P<kilo>[kK])\b)?)"
    rf"(?![\d²³¹⁰⁴-⁹½¼¾⅐-⅞\u200b-\u200d\u2060]|[{_BLANK}.·/:]\d|['’]\d{{3}}|{_GROUP}\d)"
    rf"(?:[ ]?(?:\\?%|percent\b|°[ ]?[CFK]?\b|degrees?(?: celsius| fahrenheit)?\b)|(?:{_UNITS})\b)?"
    r"(?:/[a-z]{2,20}\b)?(?![A-Za-z])",
    re.IGNORECASE,
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PLAIN = str.maketrans("−–", "--", ",$€£¥ ")
_SEPARATOR = re.compile(rf"[{_BLANK}'’]")
_ALL_GROUPS = re.compile(_GROUP)
_DECIMAL = re.compile(r"([-+]?)0*(\d*)(?:\.(\d+))?")
_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d+")


class Quantity(NamedTuple):
    """A number in a text."""

    value: str
    """A plain decimal, or `1/3` where no decimal is exact."""
    start: int
    end: int
    share: bool
    """Whether it is a fraction or a percentage, which may be a share of another number."""


def plain_number(text: str) -> str | None:
    """`text` as a plain decimal such as `-1000.5`, without currency, commas or trailing zeros; None for other text."""
    match = _DECIMAL.fullmatch(_ALL_GROUPS.sub("", text).translate(_PLAIN))
    if not match or not _DIGIT.search(text):
        return None
    sign, whole, fraction = match[1].strip("+"), match[2] or "0", (match[3] or "").rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return number if number == "0" else sign + number


def quantities(text: str, start: int = 0) -> Iterator[Quantity]:
    """Every quantity of `text` from `start` on, in order."""
    for match in QUANTITY.finditer(text, start):
        if (one := quantity(match)) is not None:
            yield one


def whole_quantity(text: str) -> str | None:
    """The value of a text that is one quantity, perhaps with up to three words for its unit; else None."""
    text = text.strip(" \t*_`$.")
    match = QUANTITY.match(text)
    one = quantity(match) if match else None
    return one.value if one and re.fullmatch(r"(?: [a-z]+){0,3}", text[one.end :], re.IGNORECASE) else None


def quantity(match: re.Match[str]) -> Quantity | None:
    """What a match of `QUANTITY` says; None for a fraction over 0."""
    value = _fraction(match) if match["fraction"] or match["part"] else _decimal(match)
    if value is None:
        return None
    sign = match["sign"].translate(_PLAIN).replace("\\", "").replace("+", "")
    if len(sign) > 1:
        return None
    value = value if value == "0" else sign + value
    share = match["fraction"] is not None or match[0].endswith(("%", "percent"))
    return Quantity(value, *match.span(), share)


def _decimal(match: re.Match[str]) -> str | None:
    written = match["decimal"]
    number = written.lstrip("0") or "0" if written.isdecimal() else plain_number(_SEPARATOR.sub("", written))
    power = match["braced"] or match["power"] or match["exponent"]
    shift = int(power.replace("−", "-")) if power else 0
    if match["scale"]:
        shift += _SCALES[match["scale"].lower()]
    elif match["kilo"]:
        shift += 3
    return number if number is None or not shift else _shifted(number, shift)


def _shifted(number: str, places: int) -> str:
    """`number` times ten to the power of `places`, digit by digit: exact at any length."""
    whole, _, fraction = number.partition(".")
    if places < 0:
        whole = whole.rjust(1 - places, "0")
        return str(plain_number(f"{whole[:places]}.{whole[places:]}{fraction}"))
    return str(plain_number(f"{whole}{fraction[:places].ljust(places, '0')}.{fraction[places:] or '0'}"))


def _fraction(match: re.Match[str]) -> str | None:
    above, below = map(int, _DIGITS.findall(match["fraction"] or match["part"]))
    if not below:
        return None
    value = Fraction(above, below) + int(match["mixed"] or 0)
    tens = value.denominator
    places = 0
    while tens % 10 == 0 or tens % 5 == 0 or tens % 2 == 0:
        tens //= 10 if tens % 10 == 0 else 5 if tens % 5 == 0 else 2
        places += 1
    if tens != 1:
        return f"{value.numerator}/{value.denominator}"
    scaled = str(value.numerator * 10**places // value.denominator)
    return _shifted(scaled, -places)
