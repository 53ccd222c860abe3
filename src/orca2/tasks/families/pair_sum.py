"""Find the two neighbours in a row of numbers that make a given sum: try one pair after the other.

Which neighbours make 7: 3, 5, 2, 4, 1, 8?
Guess: 3, 5
Check: 3+5=8, 7 no
Guess: 5, 2
Check: 5+2=7, 7 yes
Answer: 5, 2
"""

from dataclasses import dataclass
from itertools import pairwise
from random import Random

from orca2.tasks.family import Draw, Family, Problem
from orca2.tasks.traces import explanation, extract, guesses, steps

LENGTH = {1: 6, 2: 7, 3: 9}
HIGHEST = 9
"""The largest sum of two neighbours, so that every number has one digit."""


@dataclass(frozen=True, slots=True)
class NumbersAndTotal:
    numbers: tuple[int, ...]
    total: int


def draw(rng: Random, level: int) -> Draw[NumbersAndTotal]:
    # Redrawn until one pair of neighbours alone fits; most draws do.
    while True:
        numbers = [rng.randint(0, HIGHEST)]
        while len(numbers) < LENGTH[level]:
            numbers.append(rng.randint(0, HIGHEST - numbers[-1]))
        totals = [one + other for one, other in pairwise(numbers)]
        total = rng.choice(totals)
        if totals.count(total) == 1:
            break
    place = totals.index(total)
    listed = ", ".join(str(number) for number in numbers)
    answer = f"{numbers[place]}, {numbers[place + 1]}"
    return Draw(f"Which neighbours make {total}: {listed}?", answer, NumbersAndTotal(tuple(numbers), total))


def tries(problem: Problem[NumbersAndTotal]) -> list[tuple[str, str]]:
    """(pair, its sum, the total and whether they are equal), up to the first that fits."""
    rounds = []
    for one, other in pairwise(problem.state.numbers):
        fits = one + other == problem.state.total
        rounds.append(
            (
                f"{one}, {other}",
                f"{one}+{other}={one + other}, {problem.state.total} {'yes' if fits else 'no'}",
            )
        )
        if fits:
            break
    return rounds


def try_in_turn(problem: Problem[NumbersAndTotal]) -> str:
    return guesses(tries(problem))


def sums(problem: Problem[NumbersAndTotal]) -> str:
    return steps(check for _, check in tries(problem))


def all_sums(problem: Problem[NumbersAndTotal]) -> str:
    return extract(", ".join(str(one + other) for one, other in pairwise(problem.state.numbers)))


def number_of_pairs(problem: Problem[NumbersAndTotal]) -> str:
    state = problem.state
    return explanation(f"One of {len(state.numbers) - 1} pairs makes {state.total}.")


FAMILY = Family(
    name="pair_sum",
    answer_kind="list",
    best="guess_and_check",
    share=2,
    draw=draw,
    teachers={
        "step_by_step": sums,
        "explain_then_answer": number_of_pairs,
        "extract_then_generate": all_sums,
        "guess_and_check": try_in_turn,
    },
)
