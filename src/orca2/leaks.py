"""Leaks: answers that quote the instruction which erasing hides from the student.

An answer such as "As the instruction says, I first recall the relevant facts" teaches the student to refer
to a text that it cannot see. Word n-grams shared by instruction and answer count, unless the user's text
has them too. A reasoning trace is read like the answer: with `thinking=keep` it is trained on as well.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from orca2.errors import ConfigError
from orca2.hashing import ngrams_of, words_of
from orca2.records import Example

NGRAM_WORDS = 8
"""Ours: long enough that a shared n-gram is a quotation and not a common phrase."""


def leaked_ngrams(example: Example, n: int = NGRAM_WORDS) -> list[str]:
    """Word n-grams of the instruction that the answer or its reasoning trace repeats and the user did not write, in the
    instruction's order.

    Words are lower-cased and stripped of punctuation. An instruction shorter than `n` words is one n-gram.

    Raises:
        ConfigError: `n` is below 1.
    """
    if n < 1:
        raise ConfigError(f"a leak is looked for in n-grams of at least 1 word, not {n}")
    words, ngrams = _instruction(example.system, n)
    if not ngrams:
        return []
    quotable = set[str]()
    for text in (example.answer, example.reasoning):
        quotable |= set(ngrams_of(words_of(text), words)).intersection(ngrams)
    if quotable:
        quotable -= set(ngrams_of(words_of(example.user), words))
    return [ngram for ngram in ngrams if ngram in quotable]


@lru_cache(maxsize=1024)
def _instruction(system: str, n: int) -> tuple[int, tuple[str, ...]]:
    """Words of an n-gram, and the instruction's n-grams, each once. Kept, because thousands of rows share one."""
    instruction = words_of(system)
    n = min(n, len(instruction))
    return n, tuple(dict.fromkeys(ngrams_of(instruction, n))) if n else ()


@dataclass
class LeakReport:
    """Counts leaks while examples go by; the only mutable thing here."""

    n: int = NGRAM_WORDS
    keep: int = 20
    """How many leaking examples are listed with what they quote."""
    checked: int = 0
    leaked: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    """Example id to the first n-gram that its answer or its trace quotes."""

    def add(self, example: Example) -> bool:
        """Checks one example. Returns whether its answer quotes its instruction."""
        ngrams = leaked_ngrams(example, self.n)
        self.checked += 1
        if not ngrams:
            return False
        self.leaked += 1
        if len(self.examples) < self.keep:
            self.examples[example.id] = ngrams[0]
        return True
