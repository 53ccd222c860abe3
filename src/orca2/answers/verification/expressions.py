"""Equality of mathematical expressions, decided exactly where possible and by `math-verify` otherwise.

60/19      120/38        fractions, exactly
4*sqrt(3)  \\sqrt{48}     math-verify, in a process that is killed when it takes too long
anything with words      not compared: math-verify would find a number in it
"""

import re
from fractions import Fraction

from orca2.answers.verification.process import Worker
from orca2.errors import ConfigError

_FRACTION = re.compile(r"(-?)\\?d?frac\{(\d+)\}\{(\d+)\}")
_RATIONAL = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?")
_COMMAND = re.compile(r"\\(?:d?frac|sqrt|cdot|times|left|right|pi)\b|\b(?:sqrt|pi)\b")
_SYMBOLS = re.compile(r"[\d\s.+\-*/^(){}a-z]*")
_PRODUCT = re.compile(r"(?<=\d)\s*(?=sqrt)")
"""`4 sqrt(3)` is a product; math-verify reads it as 4."""
LONGEST = 200
"""Characters of an expression; longer ones are not answers but attempts to hang the parser."""


def rational(text: str) -> Fraction | None:
    """The exact value of `3`, `-0.5`, `7/3`, `\\frac{7}{3}`, commas allowed between thousands; None for
    other text."""
    if len(text) > LONGEST:
        return None
    text = _FRACTION.sub(r"\1\2/\3", re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)).replace("−", "-")
    # Blanks between digits stay: `3 3/19` is a mixed number, not 33/19.
    text = re.sub(r"\s*([/-])\s*", r"\1", text).strip()
    if not _RATIONAL.fullmatch(text):
        return None
    numerator, _, denominator = text.partition("/")
    if denominator and not int(denominator):
        return None
    return Fraction(numerator) / int(denominator or 1)


def is_expression(text: str) -> bool:
    """Whether all of `text` is one expression: numbers, operators, roots and single letters."""
    if len(text) > LONGEST:
        return False
    rest = _COMMAND.sub(" ", text)
    words = re.findall(r"[a-z]{2,}", rest)
    mixed_number = re.search(r"\d\s+\d", text)
    return bool(rest.strip() and _SYMBOLS.fullmatch(rest)) and not words and not mixed_number


class ExpressionChecker(Worker):
    """Compares expressions in a process of its own.

    Raises:
        ConfigError: the extra `math` is missing, or the time limit is not positive.
    """

    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds for one comparison."""
        if timeout <= 0:
            raise ConfigError(f"verification: timeout is {timeout} seconds; it must be above 0")
        super().__init__("orca2.answers.verification.expressions_worker", package="math_verify", extra="math")
        self.timeout = timeout

    def equal(self, gold: str, value: str) -> bool | None:
        """Whether both are equal. None if it cannot be decided: not an expression, not parsed, or out of time."""
        left, right = rational(gold), rational(value)
        if left is not None and right is not None:
            return left == right
        if not (is_expression(gold) and is_expression(value)):
            return None
        answer = self.ask({"gold": _PRODUCT.sub("*", gold), "value": _PRODUCT.sub("*", value)}, self.timeout)
        return answer["equal"] if answer is not None else None
