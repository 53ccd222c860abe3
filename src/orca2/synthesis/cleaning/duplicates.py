"""Rows that repeat an earlier one: exactly, or nearly by MinHash.

    text ──▶ 5-grams of words ──▶ 112 minima of hashes ──▶ 14 bands of 8 ──▶ an earlier row with an equal
    band?
                                                                             └▶ share of equal minima >=
                                                                             threshold

At a similarity of 0.8 a pair has an equal band with probability 0.92, at 0.5 with 0.05. Memory grows with
the rows
that are kept, by about 2 kB each: for tens of millions of rows use a distributed tool such as datatrove.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orca2.errors import ConfigError
from orca2.hashing import ngrams_of, words_of

BANDS, ROWS = 14, 8
"""datatrove's defaults; the curve is in the module's docstring."""
NGRAM_WORDS = 5
_PRIME = (1 << 61) - 1


@dataclass
class Duplicates:
    """Meets rows in order and names the earlier row that one repeats; the first of its kind stays.

    Raises:
        ConfigError: a threshold outside 0 to 1.
    """

    threshold: float = 0.8
    """Share of 5-grams in common from which a row counts as a near-duplicate; ours. 1 finds exact ones
    only."""
    seed: int = 0
    exact: int = 0
    near: int = 0
    _first: dict[bytes, str] = field(default_factory=dict, repr=False)
    _bands: dict[tuple[str, int, bytes], int] = field(default_factory=dict, repr=False)
    _kept: list[tuple[str, NDArray[np.uint32]]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"duplicates: threshold is {self.threshold}; a share above 0 and up to 1 is needed")
        rng = np.random.default_rng(self.seed)
        self._factors = rng.integers(1, 1 << 31, size=BANDS * ROWS, dtype=np.uint64)
        self._offsets = rng.integers(0, 1 << 61, size=BANDS * ROWS, dtype=np.uint64)

    def repeated(self, id: str, text: str, scope: str = "") -> str | None:
        """The id of an earlier row of the same scope whose text is the same or nearly so; None, and `id` is
        remembered."""
        words = words_of(text)
        # Texts without words, such as rows of brackets, are compared as they are.
        digest = hashlib.blake2b(f"{scope}\0{' '.join(words) or text}".encode(), digest_size=12).digest()
        if digest in self._first:
            self.exact += 1
            return self._first[digest]
        if self.threshold < 1 and len(words) >= NGRAM_WORDS:
            signature = self._signature(words)
            bands = [(scope, band, signature[band * ROWS : (band + 1) * ROWS].tobytes()) for band in range(BANDS)]
            for place in sorted({self._bands[band] for band in bands if band in self._bands}):
                earlier, other = self._kept[place]
                if float(np.mean(signature == other)) >= self.threshold:
                    self.near += 1
                    return earlier
            for band in bands:
                self._bands.setdefault(band, len(self._kept))
            self._kept.append((id, signature))
        self._first[digest] = id
        return None

    def _signature(self, words: list[str]) -> NDArray[np.uint32]:
        grams = set(ngrams_of(words, NGRAM_WORDS))
        hashes = np.array(
            [int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=4).digest(), "big") for gram in grams],
            np.uint64,
        )
        # 31-bit factors times 32-bit hashes stay below 2^63, so nothing wraps before the modulus.
        mixed = (hashes[:, None] * self._factors + self._offsets) % np.uint64(_PRIME)
        signature: NDArray[np.uint32] = (mixed.min(axis=0) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return signature
