"""The order of an epoch: a permutation of range(size) that is computed, not stored.

A Feistel network permutes the smallest square domain 2^b >= size. A value outside range(size) is fed
through again until it falls inside ("cycle walking"), which keeps it a permutation.

    position 0 1 2 3 4   ->   row 3 0 4 1 2        any block of positions alone, O(1) memory
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orca2.hashing import hash64

ROUNDS = 6
"""Four make a Feistel network indistinguishable from random (Luby and Rackoff, 1988) with ideal rounds."""
_MIN_BITS = 8
"""Halves of fewer than four bits leave visible patterns in small data sets."""
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Multipliers of the splitmix64 finalizer."""


@dataclass(frozen=True, slots=True)
class Permutation:
    """A permutation of range(size), a pure function of (seed, epoch)."""

    size: int
    seed: int
    epoch: int

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Rows at the positions start, ..., stop - 1; these must lie within range(size)."""
        return self.at(np.arange(start, stop, dtype=np.int64))

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows at any positions within range(size)."""
        half = np.uint64(max(_MIN_BITS, (self.size - 1).bit_length() + 1) // 2)
        keys = _round_keys(self.seed, self.epoch)
        rows = _feistel(positions.astype(np.uint64), half, keys)
        while (outside := rows >= self.size).any():
            rows[outside] = _feistel(rows[outside], half, keys)
        return rows.astype(np.int64)


def uniform(seed: int, epoch: int, stream: str, counter: int) -> float:
    """A number in [0, 1), a pure function of the arguments."""
    return (hash64(f"{seed}/{epoch}/{stream}/{counter}") >> 11) / 2**53


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, dtype=np.uint64)


def _feistel(values: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        mixed = right + key  # wraps at 2^64, on purpose
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
        left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & mask)
    return (left << half) | right
