"""Decides which announcement counts, whatever its form.

1. The last announcement decides. One that cannot be read blocks: no earlier one stands in for it.
2. Contradictions are a `conflict`: another marker with another value; or another phrase with another value, unless only
   the last one says that it concludes ("So the answer is"). Phrases before the last readable marker say nothing.
3. "The answer is not X" rules X out, and "the answer is stated in line 3" announces nothing; neither is a question, or
   what others might think.
4. A value inside a sentence counts only where nothing but a courtesy follows the sentence.
5. Without an announcement, only a text that is nothing but an answer is one, or a line of its own at its start or end.
   A letter or number inside reasoning never is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orca2.answers.extraction.announcements import COMMON, Also, Announcement, Noun, Spot, announcements


class Extraction(NamedTuple):
    """What was read out of an answer."""

    value: tuple[str, ...]
    """The answer's parts; empty where nothing could be read."""
    ok: bool
    """Format-OK: exactly one final answer of the right form was found. False means wrong."""
    rule: str
    """Name of the rule that decided, such as `marker`, `boxed`, `none` or `conflict`."""
    span: tuple[int, int] | None = None
    """Character span of the value in the text."""


NOTHING = Extraction((), False, "none")


class Found(NamedTuple):
    """A value in a piece of text. An empty value means that several different ones stand there."""

    value: tuple[str, ...]
    start: int
    end: int
    statement: int | None = None
    """End of the statement that the value is a part of: nothing may follow it. None: anything may."""
    result: bool = False
    """Whether the statement is an equation: then a paragraph without a number may follow it, too."""


def _no_others(text: str, lower: str) -> Iterator[Spot]:
    yield from ()


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind of answer is announced and read."""

    after: Callable[[str], Found | None]
    """Reads the value at the start of the text that follows an announcement; None where there is none."""
    bare: Callable[[str], Found | None]
    """Reads a text without announcements; None unless it is nothing but an answer."""
    nouns: tuple[Noun, ...] = COMMON
    also: Also = _no_others
    """What else announces an answer of this kind."""
    words: bool = False
    """Whether the value may be any words."""


MARKERS = ("marker", "heading", "hashes", "boxed")

_NUMERIC = re.compile(r"[\s*_$€£]*[-−]?[\d.,]*\d[\s*_.%]*")
_TALK = re.compile(
    r"[\s*_]*(?:(?:\w{2,12}ly |also |best |already )?(?:found|stated|given|mentioned|located|shown|provided|supported|"
    r"based|obtained|calculated|computed|derived|determined|explained|confirmed|described|contained|reached|implied|"
    r"indicated|listed|written)[ \t]+(?:in|by|at|above|below|on|from|as|with|through|using|here)\b"
    r"|(?:in|at|on|from|within)[ \t]"
    r"|(?P<praised>(?:clear|obvious|simple|easy|straightforward|correct|right|consistent|reasonable|as follows)\b))",
    re.IGNORECASE,
)
"""After "the answer is": says where or how the answer is found, and not what it is."""
_QUESTION = re.compile(r"[^.!?\n]{0,60}\?")
_LINE = re.compile(r"[^\n]+")
_WORD = re.compile(r"\w")
_COURTESY = re.compile(
    r"\W*(?:i |we )?(?:hope (?:this|that|it) |let me know|(?:please )?(?:feel free|let me know)|good luck|happy to help"
    r"|is there anything|if you (?:have|need)|thanks?\b|you(?:['’]re| are) welcome)",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"[^\w\n]*\n\s*\n\D*\Z")


def extract(text: str, reader: Reader, *asked: str) -> Extraction:
    """The one final answer of `text`. Where it repeats a text of `asked` word for word, that part says nothing."""
    for part in filter(None, asked):
        if part in text:
            text = text.replace(part, " " * len(part))
    told = announcements(text, reader.nouns, reader.also, reader.words)
    return _decided(text, told, reader) or _bare(text, reader)


def last_line(text: str, alone: Callable[[str], Found | None]) -> Found | None:
    """The value of the last line, where `alone` reads it and no other line: two such lines are a list."""
    lines = [(match.start(), match[0]) for match in _LINE.finditer(text) if not match[0].isspace()]
    if not lines or (found := alone(lines[-1][1])) is None:
        return None
    # A text stuck in a loop repeats its lines; each is read once.
    others = {line for _, line in lines[:-1]}
    if lines[-1][1] in others or any(alone(line) for line in others):
        return None
    start = lines[-1][0]
    return Found(found.value, start + found.start, start + found.end)


def _bare(text: str, reader: Reader) -> Extraction:
    found = reader.bare(text)
    if found is None:
        return NOTHING
    return Extraction(found.value, True, "bare", (found.start, found.end)) if found.value else _not("conflict")


def _not(rule: str) -> Extraction:
    return NOTHING._replace(rule=rule)


def _decided(text: str, told: list[Announcement], reader: Reader) -> Extraction | None:
    """What the announcements say; None where none of them announces anything."""
    last: Announcement | None = None
    settled: Found | None = None
    denied: list[tuple[str, ...]] = []
    marked = False
    reads = _Reads(text, told, reader)
    for one in reversed(told):
        found = reads.found(one)
        if found is None:
            if last is None and not reads.is_idle(one):
                return _not("unreadable")
        elif one.spot.denied:
            denied.append(found.value)
        elif settled is None or last is None:
            last, settled = one, found
            marked = one.spot.rule in MARKERS
        elif one.spot.rule in MARKERS:
            marked = True
            if found.value != settled.value:
                return _not("conflict")
        elif not marked and found.value != settled.value and (one.concludes or not last.concludes):
            return _not("conflict")
    if last is None or settled is None:
        return None
    if not settled.value or settled.value in denied:
        return _not("conflict")
    return Extraction(settled.value, True, last.spot.rule, (last.value + settled.start, last.value + settled.end))


class _Reads:
    """Reads the announcements of one text, the same piece of text once."""

    def __init__(self, text: str, told: list[Announcement], reader: Reader) -> None:
        self._text, self._reader = text, reader
        self._known: dict[str, Found | None] = {}
        self._last_line = text.rstrip().rfind("\n") + 1 if any(one.spot.rule == "hashes" for one in told) else 0

    def found(self, one: Announcement) -> Found | None:
        """The value that follows the announcement; None where nothing can be read."""
        tail = self._text[one.value : one.end]
        if tail not in self._known:
            self._known[tail] = self._reader.after(tail)
        found = self._known[tail]
        if found is None:
            return None
        if found.statement is not None and not self._ends(found, one):
            return None
        if one.spot.rule == "hashes" and not self._heads_nothing(one, tail):
            return None
        # A question is not a statement: "So the answer is B?"
        return None if one.spot.rule == "phrase" and _QUESTION.match(tail, found.end) else found

    def is_idle(self, one: Announcement) -> bool:
        """Whether an announcement that cannot be read announces nothing, so that it blocks nothing."""
        if one.spot.weak:
            return True
        if one.spot.rule != "phrase":
            return False
        talk = _TALK.match(self._text, one.value, one.end)
        if talk and not (one.spot.denied and talk["praised"]):
            return True
        return _QUESTION.match(self._text, one.value, one.end) is not None

    def _heads_nothing(self, one: Announcement, tail: str) -> bool:
        """Whether "#### X" is not a heading of a section."""
        if one.spot.start >= self._last_line or _NUMERIC.fullmatch(tail):
            return True
        return _COURTESY.match(self._text, one.end) is not None

    def _ends(self, found: Found, one: Announcement) -> bool:
        """Whether nothing follows the statement that the value is a part of."""
        at = one.value + (found.statement or 0)
        word = _WORD.search(self._text, at, one.limit)
        if word is None or _COURTESY.match(self._text, at, one.limit):
            return True
        return found.result and _PARAGRAPH.match(self._text, at, one.limit) is not None
