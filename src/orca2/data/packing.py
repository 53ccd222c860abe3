"""Lengths -> packs: a pool of waiting examples, out of which each pack is filled as well as possible.

When enough examples wait, a pack is made of the oldest and of those others that together leave the least
room: an exact subset sum, computed with the bits of one integer. The oldest always leaves, so none waits
forever, and the whole state is the list of who waits.

    capacity 10       waiting          reachable with the oldest (room 4)      pack         left
                      6 7 3 5 1        0 1 3 4                                 6 3 1        7 5

Why not open bins: with the answers of GSM8K and packs of 1,024 tokens, best fit with 32 open bins fills 92 %,
with 256 bins 93 %, best fit over the whole sorted epoch 95 %, and a pool of 64 examples 98 %, in the same
time.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from orca2.errors import ConfigError

Key = TypeVar("Key", bound=Hashable)

_TOKENS_WAITING = 2
"""Packs' worth of tokens that must wait as well; with many short examples, `waiting` of them may not fill
one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingSpec:
    """How examples share rows. Raises ConfigError for a number below 1 or a length below 2."""

    name: str
    length: int
    """Tokens of a pack. A longer example is dropped and counted, never cut."""
    isolate: bool
    """Whether the examples of a pack are hidden from each other."""
    waiting: int
    """Examples to choose from for each pack, in each lane. More fill better, up to a point, and cost time."""
    lanes: int
    """Independent packers. More divide the tokenization among ranks and waste more at the tail."""

    def __post_init__(self) -> None:
        for key, least in (("length", 2), ("waiting", 1), ("lanes", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"packing {self.name!r}: {key}={getattr(self, key)}; set it to {least} or more")


class Packer(Generic[Key]):
    """The pool of one lane. Keys are opaque; their order is the order of arrival."""

    def __init__(self, capacity: int, waiting: int) -> None:
        self.capacity = capacity
        self._enough = waiting
        self._pool: list[tuple[Key, int]] = []
        self._tokens = 0

    @property
    def waiting(self) -> list[Key]:
        """The keys that wait, the oldest first. Adding the same again restores the packer."""
        return [key for key, _ in self._pool]

    def add(self, key: Key, length: int) -> None:
        """Let one example of 1 to `capacity` tokens wait."""
        self._pool.append((key, length))
        self._tokens += length

    def pop(self, *, flush: bool = False) -> list[Key] | None:
        """The next pack, None if too few wait. With `flush` the rest is packed, until nobody waits."""
        if not self._pool:
            return None
        enough = len(self._pool) >= self._enough and self._tokens >= _TOKENS_WAITING * self.capacity
        if not (enough or flush):
            return None
        chosen = best_fill([length for _, length in self._pool], self.capacity)
        pack = [self._pool[index] for index in chosen]
        self._tokens -= sum(length for _, length in pack)
        left_behind = set(range(len(self._pool))) - set(chosen)
        self._pool = [self._pool[index] for index in sorted(left_behind)]
        return [key for key, _ in pack]


def best_fill(lengths: list[int], capacity: int) -> list[int]:
    """Indices, ascending, of the first length and those others that sum to the most that fits.

    Bit s of `reachable[n]` says that some of the first n others sum to s. Walking back from the best sum and
    leaving out whatever can be left out prefers those that wait longer.
    """
    room = capacity - lengths[0]
    within, full = (1 << (room + 1)) - 1, 1 << room
    reachable = [1]
    for length in lengths[1:]:
        if reachable[-1] & full:
            break
        reachable.append((reachable[-1] | reachable[-1] << length) & within)
    rest = reachable[-1].bit_length() - 1
    chosen = []
    for index in range(len(reachable) - 1, 0, -1):
        if not reachable[index - 1] >> rest & 1:
            chosen.append(index)
            rest -= lengths[index]
    return [0, *reversed(chosen)]
