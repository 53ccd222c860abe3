"""A seeded mutation fuzzer: real-shaped inputs, damaged in the ways in which files, models and servers are damaged.

    seeds ──▶ Mutator(seed).text | data | value ──▶ read ──▶ a result, or an error that a user can mend, within a second

Hypothesis draws and shrinks better, and takes a hundred times as long: it is used where few examples are enough. Every
input here follows from the name of its test and its number, so that a fault comes back.
"""

import copy
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from orca2.errors import Orca2Error
from tests.linear_time import SECONDS

SHOWN = 5
"""Faults that a failing test shows."""

HOSTILE_TEXTS = (
    "", " ", "\n", "\r\n", "\t", "\0", "\x1b[31m", "\u200b", "\u202e", "\u2028", "\x85", "\ufeff", "\ufffd", "İ", "ß",
    "é", "e\u0301", "日本語", "🙂", "½", "\u2212", "«", "»", "\ud800", "\udfff", "\\ud800", '"', "'", "`", "```", "\\",
    "{", "}", "[", "]", "(", ")", "<", ">", "|", ",", ";", ":", "#", "$", "%", "&", "-", "_", "*", "/", "../", "~",
    "{{ x }}", "{% for %}", "${oc.env:HOME}", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<answer>",
    "<|channel|>final<|message|>", "assistantfinal", "analysis", "[THINK]", "[/THINK]", "</s>", "<s>", "####",
    "\n#### ", "<<1+1=2>>", "<<", "Answer:", "Answer: A", "\\boxed{", "(A)", "A)", "(B) x", "- (A) x\n", "yes", "no",
    "0", "1", "-1", "1e999", "nan", "NaN", "Infinity", "9" * 5000, "1,000", "1/2", "true", "null", "b'x'", "b'\\xff'",
)  # fmt: skip
"""Signs, markers and numbers that some reader knows, and those that no one expects."""
FILE_LOOPS = ("\n", '"', '"\n', 'a",",c\n', "[", ",\n", "{", "\t", "é")
"""`LOOPS` for a file outside of its texts: it becomes many rows, whose number and not whose length takes time."""
ROWS_SECONDS = 5.0
"""Time for 100 kB of rows of two signs each: 50,000 of them."""
LOOPS = (
    " ", "\n", "\t", "a ", "a", "9", "1,", "(", "[", "{", "<", '"', "\\", "#", "- ", "A) ", "(A)\n", "\n#### a",
    "#### a ", "<<1", "</s>", "<think>", "</think> ", "`</think>`", "[[", '{"a":', '"\n', 'a",",c\n', ",\n", '\\"', "é",
    "🙂", "b'x'",
)  # fmt: skip
"""What a text may hold over and over; a broken writer, a model in a loop or an attacker leaves such texts."""
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"),
    "", [], {}, [[]], [{}], [None], [""], {"": ""}, {"text": "x"}, [1], ["a", "b"], [{"role": "user", "content": "x"}],
    {"role": "assistant", "content": [{"type": "text", "text": "x"}]}, [["a", "b"]],
)  # fmt: skip
DEEP = 3_000
"""Brackets inside each other: more than Python's own parser goes down."""


class Mutator:
    """Damaged copies of inputs, drawn from one seed."""

    def __init__(self, seed: str) -> None:
        self.draw = Random(seed)

    def text(self, seed: str, pieces: Sequence[str] = HOSTILE_TEXTS) -> str:
        """One to four edits of a text: pieces put in, repeated, cut out, doubled, moved."""
        for _ in range(self.draw.randint(1, 4)):
            seed = self._edited(seed, self.draw.choice(pieces), "")
        return seed

    def data(self, seed: bytes) -> bytes:
        """One to four edits of the bytes of a file, and at times its end cut off."""
        for _ in range(self.draw.randint(1, 4)):
            piece = self.draw.choice(HOSTILE_TEXTS).encode(errors="replace")
            seed = self._edited(seed, self.draw.choice((piece, self.draw.randbytes(self.draw.randint(1, 4)))), b"")
        return seed

    def value(self, seed: Any, keys: Sequence[str] = ()) -> Any:
        """One to three edits of what JSON holds: values replaced, dropped, wrapped, doubled, keys renamed."""
        seed = copy.deepcopy(seed)
        for _ in range(self.draw.randint(1, 3)):
            holders = list(_holders(seed))
            if not holders:
                return self.hostile(seed)
            self._change(self.draw.choice(holders), keys)
        return seed

    def hostile(self, value: Any) -> Any:
        """Something else in a value's place."""
        if isinstance(value, str) and self.draw.random() < 0.6:
            return self.text(value)
        way = self.draw.randrange(5)
        if way == 0:
            return [copy.deepcopy(value)] * self.draw.randint(1, 3)
        if way == 1:
            return {self.draw.choice(HOSTILE_TEXTS): copy.deepcopy(value)}
        return self.draw.choice(HOSTILE_TEXTS) if way == 2 else copy.deepcopy(self.draw.choice(HOSTILE_VALUES))

    def _change(self, holder: Any, keys: Sequence[str]) -> None:
        at = self.draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        way = self.draw.randrange(8)
        if way == 0:
            del holder[at]
        elif way == 1 and isinstance(holder, dict):
            holder[self.draw.choice((*keys, *HOSTILE_TEXTS[:40])) if keys else "x"] = holder.pop(at)
        elif way == 2 and isinstance(holder, list):
            holder.insert(at, copy.deepcopy(holder[self.draw.randrange(len(holder))]))
        else:
            holder[at] = self.hostile(holder[at])

    def _edited(self, seed: Any, piece: Any, empty: Any) -> Any:
        start, stop = sorted((self.draw.randint(0, len(seed)), self.draw.randint(0, len(seed))))
        stop = min(stop, start + self.draw.choice((1, 3, 20, 200)))
        way = self.draw.randrange(7)
        if way == 0:
            return seed[:start] + seed[stop:]
        if way == 1:
            return seed[:start] + piece * self.draw.choice((1, 2, 50 if len(piece) < 20 else 1)) + seed[start:]
        if way == 2:
            return seed[:start] + piece + seed[stop:]
        if way == 3:
            return seed[:stop] + seed[start:]
        if way == 4:
            return seed[:start]
        if way == 5:
            return seed[stop:] + piece + seed[:start]
        return seed[:start] + empty.join([piece, seed[start:stop], piece]) + seed[stop:]


def attack(name: str, count: int, make: Callable[[Mutator], Any], read: Callable[[Any], object]) -> None:
    """`count` inputs, each read to a result or an `Orca2Error` within a second; the first faults are told together."""
    mutator, faults = Mutator(name), dict[str, str]()
    for number in range(count):
        given = make(mutator)
        start = time.process_time()
        try:
            read(given)
        except Orca2Error:
            pass
        except (Exception, RecursionError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            faults.setdefault(
                f"{type(error).__name__} at {last.filename}:{last.lineno}", f"#{number} {error!s:.200}\n{given!r:.600}"
            )
        taken = time.process_time() - start
        if taken > SECONDS:
            faults.setdefault(f"slow: {name}", f"#{number} {taken:.1f} s: {given!r:.300}")
        if len(faults) >= SHOWN:
            break
    assert not faults, "\n\n".join(f"{name}: {where}\n{what}" for where, what in faults.items())


def _holders(value: Any) -> Iterator[Any]:
    """The lists and mappings in a value that hold anything."""
    if isinstance(value, (dict, list)) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)
