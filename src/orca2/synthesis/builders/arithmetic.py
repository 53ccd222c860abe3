"""Arithmetic questions in the manner of DeepMind Mathematics' nine arithmetic modules (Saxton et al. 2019);
our code.

    add_or_sub            What is 3.1 minus 44?                        -40.9
    add_sub_multiple      What is 4 - (7 - 12) + 3?                    12
    add_or_sub_in_base    In base 7, what is 325 + -41?                254
    mul                   Work out -6 * 0.35.                          -2.1
    div                   Divide -84 by 36.                            -7/3
    mul_div_multiple      What is (12/8)*(-4)/3?                       -2
    mixed                 Evaluate (3 + 5)/(-4) - 1.                   -3
    nearest_integer_root  What is the cube root of 1731 to the nearest integer?   12
    simplify_surd         Simplify sqrt(72) - 2*sqrt(2).               4*sqrt(2)

The paper takes only these modules of that collection (arXiv 2311.11045, section 4.1).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt
from random import Random
from typing import NamedTuple

from orca2.errors import ConfigError
from orca2.records import AnswerKind, Rejected
from orca2.rows.items import TaskItem

ASKS = ("What is {}?", "Calculate {}.", "Work out {}.", "Evaluate {}.", "{} = ?")
ROOTS = {2: "square", 3: "cube", 4: "fourth", 5: "fifth"}
DIGITS = "0123456789ABCDEF"
SQUARE_FREE = (2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 17, 19)
LARGEST_LENGTH = 6
"""Digits of the largest operands; below what a teacher gets wrong by carrying; ours."""


class WordProblem(NamedTuple):
    text: str
    answer: str
    kind: AnswerKind = "number"


class Expression(NamedTuple):
    """An arithmetic expression and its exact value."""

    text: str
    value: Fraction
    atomic: bool


def add_or_sub(rng: Random) -> WordProblem:
    left, right = _decimal(rng), _decimal(rng)
    if rng.random() < 0.5:
        phrase = rng.choice(("{} plus {}", "{} + {}", "the sum of {} and {}"))
        return _asked(rng, phrase.format(left[0], right[0]), left[1] + right[1])
    phrase = rng.choice(("{} minus {}", "{} - {}"))
    return _asked(rng, phrase.format(left[0], _bracketed(right[0])), left[1] - right[1])


def add_sub_multiple(rng: Random) -> WordProblem:
    return _asked(rng, *_tree(rng, rng.randint(3, 6), "+-")[:2])


def add_or_sub_in_base(rng: Random) -> WordProblem:
    base = rng.choice([base for base in range(2, 17) if base != 10])
    left, right = _integer(rng), _integer(rng)
    sign = rng.choice("+-")
    total = left + right if sign == "+" else left - right
    text = f"In base {base}, what is {in_base(left, base)} {sign} {_bracketed(in_base(right, base))}?"
    # A number in another base is a row of digits: read as a decimal number, another spelling could equal it.
    return WordProblem(text, in_base(total, base), "span")


def mul(rng: Random) -> WordProblem:
    left, right = _decimal(rng, most=4), _decimal(rng, most=4)
    phrase = rng.choice(("{} times {}", "{} * {}", "the product of {} and {}"))
    return _asked(rng, phrase.format(left[0], _bracketed(right[0])), left[1] * right[1])


def div(rng: Random) -> WordProblem:
    divisor = _integer(rng, most=3, zero=False)
    dividend = divisor * _integer(rng, most=3) if rng.random() < 0.5 else _integer(rng)
    text = rng.choice(("What is {} divided by {}?", "Divide {} by {}.", "Calculate {} divided by {}."))
    return _answered(text.format(dividend, divisor), Fraction(dividend, divisor))


def mul_div_multiple(rng: Random) -> WordProblem:
    return _asked(rng, *_tree(rng, rng.randint(3, 5), "*/")[:2])


def mixed(rng: Random) -> WordProblem:
    return _asked(rng, *_tree(rng, rng.randint(4, 6), "+-*/")[:2])


def nearest_integer_root(rng: Random) -> WordProblem:
    degree = rng.choice(sorted(ROOTS))
    root = rng.randint(2, {2: 2000, 3: 150, 4: 40, 5: 20}[degree])
    number = max(2, root**degree + rng.randint(-root, root))
    text = f"What is the {ROOTS[degree]} root of {number} to the nearest integer?"
    return WordProblem(text, str(nearest_root(number, degree)))


def simplify_surd(rng: Random) -> WordProblem:
    base = rng.choice(SQUARE_FREE)
    terms = [(rng.choice((-3, -2, -1, 1, 2, 3)), rng.randint(2, 12)) for _ in range(rng.randint(1, 3))]
    total = sum(factor * inner for factor, inner in terms)
    text = " + ".join(f"{_factor(factor)}sqrt({inner * inner * base})" for factor, inner in terms)
    answer = f"{_factor(total)}sqrt({base})" if total else "0"
    return WordProblem(f"Simplify {text.replace('+ -', '- ')}.", answer, "expression")


MODULES: Mapping[str, Callable[[Random], WordProblem]] = {
    function.__name__: function
    for function in (
        add_or_sub, add_sub_multiple, add_or_sub_in_base, mul, div, mul_div_multiple, mixed,
        nearest_integer_root, simplify_surd,
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """`size` questions, the modules in turn."""

    name: str
    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"tasks={self.name}: size is {self.size}; ask for at least 1 item")

    def of_size(self, size: int) -> "Arithmetic":
        return replace(self, size=size)

    def stream(self) -> Iterator[TaskItem | Rejected]:
        modules = sorted(MODULES)
        for row in range(self.size):
            index, place = divmod(row, len(modules))
            module = modules[place]
            question = MODULES[module](Random(f"{self.seed}/{module}/{index}"))
            yield TaskItem(
                id=f"{self.name}/{module}/{self.seed}-{index}",
                collection=self.name,
                task=module,
                category="arithmetic",
                user=question.text,
                gold=(question.answer,),
                answer_kind=question.kind,
                licence="generated",
                lineage=f"arithmetic {module} seed={self.seed} index={index}",
            )


def in_base(number: int, base: int) -> str:
    """`number` written in `base` (2 to 16), as -1A3."""
    digits, rest = "", abs(number)
    while rest or not digits:
        rest, digit = divmod(rest, base)
        digits = DIGITS[digit] + digits
    return f"-{digits}" if number < 0 else digits


def nearest_root(number: int, degree: int) -> int:
    """The integer nearest to the root, exactly: floats misjudge roots that lie close to a half."""
    low, high = 0, isqrt(number) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= number else (low, middle - 1)
    return low + 1 if (2 * low + 1) ** degree <= number * 2**degree else low


def _integer(rng: Random, most: int = LARGEST_LENGTH, zero: bool = True) -> int:
    size = 10 ** rng.randint(1, most)
    value = rng.randint(0 if zero else 1, size)
    return -value if rng.random() < 0.3 else value


def _decimal(rng: Random, most: int = LARGEST_LENGTH) -> tuple[str, Fraction]:
    value = Fraction(_integer(rng, most), 10 ** rng.choice((0, 0, 1, 2, 3)))
    return _written(value), value


def _tree(rng: Random, leaves: int, operators: str) -> Expression:
    """A random expression over small integers; a division by zero is drawn anew."""
    if leaves == 1:
        value = rng.randint(-20, 40)
        return Expression(_bracketed(str(value)), Fraction(value), True)
    while True:
        split = rng.randint(1, leaves - 1)
        left, right = _tree(rng, split, operators), _tree(rng, leaves - split, operators)
        operator = rng.choice(operators)
        if operator == "/" and right.value == 0:
            continue
        value = {
            "+": lambda a, b: a + b,
            "-": lambda a, b: a - b,
            "*": lambda a, b: a * b,
            "/": lambda a, b: a / b,
        }[operator](left.value, right.value)
        # Brackets around every compound operand: the reading is then the same under every convention.
        parts = [part.text if part.atomic else f"({part.text})" for part in (left, right)]
        return Expression(f" {operator} ".join(parts), value, False)


def _asked(rng: Random, expression: str, value: Fraction) -> WordProblem:
    return _answered(rng.choice(ASKS).format(expression), value)


def _answered(text: str, value: Fraction) -> WordProblem:
    return WordProblem(text, _written(value), "number" if _is_decimal(value) else "expression")


def _is_decimal(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and value.denominator <= 10**9


def _written(value: Fraction) -> str:
    """The value as a decimal number if that ends, as `a/b` otherwise."""
    if not _is_decimal(value):
        return f"{value.numerator}/{value.denominator}"
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs(value.numerator * 10**places // value.denominator)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if value < 0 else text


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _factor(number: int) -> str:
    return {1: "", -1: "-"}.get(number, f"{number}*")
