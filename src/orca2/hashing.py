"""A hash that is the same in every process and on every machine, the texts that can be hashed, and the word n-grams
that are compared by it.

Python's own `hash` of a text changes from process to process, so no draw and no split may rest on it.
"""

import hashlib
import re
from collections.abc import Iterator

_WORD = re.compile(r"\w+")


def hash64(text: str) -> int:
    """64 bits of BLAKE2b over the text: a whole number from 0 to 2^64 - 1."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text. It cannot hold half of a surrogate pair, which JSON may spell as `\\ud83d`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation."""
    return _WORD.findall(text.casefold())


def ngrams_of(words: list[str], n: int) -> Iterator[str]:
    """Every run of `n` words, joined by blanks; none where there are fewer."""
    return (" ".join(words[at : at + n]) for at in range(len(words) - n + 1))
