"""Whether a reader takes time in proportion to its input, on a machine that may have other work.

Time is the processor's, so that waiting does not count. Other work still slows a measurement down, by caches and
clocks: the least of several is the reader's own.
"""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from orca2.errors import Orca2Error

LONG = 100_000
"""Characters of the texts that must be read in linear time."""
SECONDS = 1.0
"""The processor's seconds that may pass over any input."""
FACTOR = 16
"""Most growth of time for 8 times the text: between 8, where it is linear, and 64, where it is quadratic."""
UNIT = 0.01
"""Seconds; what is faster than that is too fast to be compared."""
FEWEST, MOST_ROUNDS = 3, 8
"""Measurements before a reader passes, and before it fails."""


def assert_linear(
    read: Callable[[Any], object],
    make: Callable[[int], Any],
    what: object = "",
    most: float = SECONDS,
    refusals: tuple[type[Exception], ...] = (Orca2Error,),
) -> None:
    """`make(length)` is read in less than `most` seconds at 100 kB, and in a time that grows with the length alone.

    A text that is refused with one of `refusals` counts as read.
    """

    def seconds(text: Any) -> float:
        start = time.process_time()
        with suppress(*refusals):
            read(text)
        return time.process_time() - start

    long, short = make(LONG), make(LONG // 8)
    taken, least = seconds(long), math.inf
    if taken <= UNIT * FACTOR:
        return
    for measured in range(1, MOST_ROUNDS + 1):
        taken, least = min(taken, seconds(long)), min(least, seconds(short))
        if measured >= FEWEST and taken < most and taken < FACTOR * max(UNIT, least):
            return
    raise AssertionError(f"{what}: {taken:.2f} s, and {least:.2f} s for an eighth")
