"""Find the largest or lowest of some digits. One comparison, so `direct` is enough.

Which is largest: 4, 7, 1, 6, 3, 0?
Answer: 7
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from orca2.tasks.family import Draw, Family, Problem
from orca2.tasks.traces import explanation, extract, steps

LENGTH = {1: 6, 2: 7, 3: 8}
"""Six of ten digits and two words make 302,400 questions."""
WANTED: dict[str, Callable[[Iterable[int]], int]] = {"largest": max, "lowest": min}


@dataclass(frozen=True, slots=True)
class Numbers:
    numbers: tuple[int, ...]
    wanted: str


def draw(rng: Random, level: int) -> Draw[Numbers]:
    numbers, wanted = tuple(rng.sample(range(10), LENGTH[level])), rng.choice(tuple(WANTED))
    listed = ", ".join(str(number) for number in numbers)
    return Draw(f"Which is {wanted}: {listed}?", str(WANTED[wanted](numbers)), Numbers(numbers, wanted))


def best_so_far(problem: Problem[Numbers]) -> str:
    """Number by number."""
    numbers, wanted = problem.state.numbers, problem.state.wanted
    return steps(
        f"{number}, {wanted} {WANTED[wanted](numbers[:place])}" for place, number in enumerate(numbers, start=1)
    )


def ends(problem: Problem[Numbers]) -> str:
    numbers = problem.state.numbers
    return explanation(f"They begin with {numbers[0]} and end with {numbers[-1]}.")


def candidates(problem: Problem[Numbers]) -> str:
    """The numbers that are at least as good as the first."""
    first, *rest = problem.state.numbers
    wanted = WANTED[problem.state.wanted]
    return extract(", ".join(str(n) for n in (first, *rest) if wanted((first, n)) == n))


FAMILY = Family(
    name="comparison",
    answer_kind="number",
    best="direct",
    draw=draw,
    teachers={
        "step_by_step": best_so_far,
        "explain_then_answer": ends,
        "extract_then_generate": candidates,
    },
)
