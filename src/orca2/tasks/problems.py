"""Problems by number: a pure function with random access, and splits that cannot overlap.

    (family, seed, split, index, level)
        attempt 0, 1, 2, ...   Random("<all of these>/<attempt>") -> question
        blake2b(question) % 8  == 0 -> held_out, else train        first attempt in `split` wins

The split depends on the question's text alone, so no seed, level or index can put one question into
both. Two indices can draw the same question; question spaces are large, so few do.
"""

from random import Random
from typing import Literal, TypeVar

from orca2.errors import ConfigError, DataError
from orca2.hashing import hash64
from orca2.tasks.family import Family, Problem

ProblemSplit = Literal["train", "held_out"]
SPLITS = ("train", "held_out")

HELD_OUT_SHARE = 8
"""One question in this many is held out."""
MAX_ATTEMPTS = 1000
"""With a share of 1/8, a healthy family misses this often with probability 10^-58."""

State = TypeVar("State")


def split_of(question: str) -> ProblemSplit:
    """The split that a question always belongs to."""
    return "held_out" if hash64(question) % HELD_OUT_SHARE == 0 else "train"


def make_problem(family: Family[State], seed: int, split: ProblemSplit, index: int, level: int) -> Problem[State]:
    """Problem number `index` of a split; equal arguments give equal problems in every process.

    Raises ConfigError for a split or level that does not exist, or a negative index; DataError
    when `MAX_ATTEMPTS` draws gave no question of this split, so the family has too few questions.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; allowed are {list(SPLITS)}")
    if index < 0:
        raise ConfigError(f"problem index {index} is negative; indices start at 0")
    for attempt in range(MAX_ATTEMPTS):
        # A text seed is hashed by SHA-512 inside Random, so it does not depend on PYTHONHASHSEED.
        rng = Random(f"{family.name}/{level}/{seed}/{split}/{index}/{attempt}")
        problem = family.problem(rng, level)
        if split_of(problem.question) == split:
            return problem
    raise DataError(
        f"task family {family.name!r} at level {level} has no question of split {split!r} in "
        f"{MAX_ATTEMPTS} draws; its question space is too small, widen its `draw`"
    )
