"""Where a final answer is announced, and which announcement counts.

    marker    Answer: X      **Final answer:** X      ### Answer      \\boxed{X}
              #### X         X is a number, or the line the last one: else it is the heading of a section
    phrase    the correct answer is X      I choose X      option X is correct
    bare      nothing is announced: the text is nothing but X

1. The last marker decides. Earlier markers, and phrases after it, must not say something else: `conflict`.
2. A last marker that announces nothing readable ("Answer: Let's think step by step") leaves the phrases after it.
   Neither is a number inside a statement that goes on: "Answer: She has 16 eggs. She sells 9."
3. Without a marker the last phrase decides, unless another one on its line says something else.
4. `"Answer:"` in quotes speaks of an announcement and is none; nor are "Explanation of the answer:" and "To find the
   answer:", where there is another.
5. Otherwise only a bare text is an answer. A letter or number inside reasoning never is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orca2.evaluation.benchmark import NOTHING, Extraction


class Found(NamedTuple):
    """A value in a piece of text. An empty value means that several different ones stand there."""

    value: tuple[str, ...]
    start: int
    end: int
    statement: int | None = None
    """End of the statement that the value is a part of: after a marker, nothing may follow it. None: anything may."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind of answer is read."""

    after: Callable[[str], Found | None]
    """Reads the value at the start of the text that follows an anchor; None where there is none."""
    bare: Callable[[str], Found | None]
    """Reads a text without anchors; None unless all of it is an answer."""
    phrases: re.Pattern[str]
    """Anchors inside sentences, weaker than a marker; the value follows each match, or is its group `value`."""


class Reading(NamedTuple):
    rule: str
    at: int
    found: Found | None


_MARKER = re.compile(
    r"(?P<hashes>^[ \t]*#{4}(?!#)[ \t]*)"
    r"|(?P<heading>^[ \t]*(?:#{1,6}|\*\*)[ \t]*(?:the )?(?:final |correct )?answer[ \t]{0,3}(?:\*\*)?[ \t]{0,3}$)"
    r"|(?P<marker>(?<![A-Za-z])(?:answer|final choice)(?: is)?[ \t]{0,3}[*_]{0,3}[ \t]{0,3}[:：](?![\"”]))"
    r"|(?P<boxed>\\boxed[ \t]*\{)",
    re.IGNORECASE | re.MULTILINE,
)

_NUMERIC = re.compile(r"[\s*_$€£]*[-−]?[\d.,]*\d[\s*_.%]*")
_ABOUT = re.compile(
    r"\b(?:of|behind|for|to (?:find|get|reach|obtain|answer)|(?:verify|check|explain|justify)(?:ing)?"
    r"|why (?:this|that|it|\S{1,9}) is)[ \t]+(?:the |this |that |my |our )?(?:final |correct |right )?$",
    re.IGNORECASE,
)
"""Before a marker: the text speaks of the answer, and mostly does not give it."""

_ADVERB = r"(?:(?:clearly|therefore|thus|then|hence|obviously|definitely|simply|most likely|probably)[,]? )*"
ANSWER_IS = (
    r"(?:answer|(?:correct|right|best) (?:option|choice|letter|one))"
    rf"(?: (?:option|choice))?(?: to (?:the|this|that) (?:question|problem))? "
    rf"{_ADVERB}(?:is|was|would be|must be|should be|has to be)\b[ \t]*{_ADVERB}:?"
)
CHOOSE = r"\bI(?:'d| would| will|'ll)? (?:choose|pick|select|go with|answer|answer with)\b:?"

_FILLERS = tuple(
    re.compile(rf"[\s*_]*(?:(?:so|thus|hence|then|therefore),? )?(?:the |my )?{adjective}", re.IGNORECASE)
    for adjective in ("", "(?:final |correct |right )?")
)
"""What may stand between a marker and a phrase that follows it; some phrases begin with the adjective."""
_WORD = re.compile(r"\w")
_ABOUT_LENGTH = 50
"""Characters before a marker; longer than any beginning that `_ABOUT` knows."""

_CLAUSE = 200
"""Characters before a phrase that may turn its meaning."""
_HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|suppose|supposing|assume|assuming|unless|why|say|imagine|until|pretend"
    # What others think, or what was thought before.
    r"|(?:one|you|some|many|most|people|students|readers|mistake is to|might|may|could|easy to)"
    r"(?: (?:\w+ )?(?:might|may|could|would|will))? (?:think|believe|guess|expect)s?"
    r"|thought(?! about| through| it)|initially|at first)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|never|cannot be|wrong|incorrect|possible|tempting)\b|n['’]t\b", re.IGNORECASE)


def extract(text: str, reader: Reader, *asked: str) -> Extraction:
    """The one final answer of `text`. Where it repeats a text of `asked` word for word, that part says nothing."""
    for part in filter(None, asked):
        text = text.replace(part, " " * len(part))
    markers = list(_markers(text, reader))
    start = markers[-1].at if markers else 0
    phrases = list(_phrases(text, start, reader))
    if markers and markers[-1].found:
        return _settle([*markers, *phrases], markers[-1])
    if phrases:
        last = phrases[-1]
        line = text.rfind("\n", 0, last.at) + 1
        return _settle([phrase for phrase in phrases if phrase.at >= line], last)
    if markers:
        return NOTHING._replace(rule="unreadable")
    found = reader.bare(text)
    return _settle([Reading("bare", 0, found)], Reading("bare", 0, found)) if found else NOTHING


def _settle(readings: list[Reading], last: Reading) -> Extraction:
    """The value of `last`, if it is one value and no other reading differs."""
    assert last.found is not None
    if not last.found.value or any(one.found and one.found.value != last.found.value for one in readings):
        return NOTHING._replace(rule="conflict")
    span = (last.at + last.found.start, last.at + last.found.end)
    return Extraction(last.found.value, True, last.rule, span)


def _markers(text: str, reader: Reader) -> list[Reading]:
    """The markers; those that only speak of an answer where there are no others."""
    read = list(_each_marker(text, reader))
    plain = [reading for reading, about in read if not about]
    return plain or [reading for reading, _ in read]


def _each_marker(text: str, reader: Reader) -> Iterator[tuple[Reading, bool]]:
    last_line = text.rstrip().rfind("\n") + 1
    for match, end in _up_to_next(_MARKER, text, 0):
        rule, tail = str(match.lastgroup), text[match.end() : end]
        tail = _boxed(tail) if rule == "boxed" else _announced(tail)
        at = _past_phrase(text, match.end(), reader)
        found = reader.after(tail[at - match.end() :])
        if found and found.statement is not None:
            last = match.end() + len(tail) if rule == "boxed" else len(text)
            found = None if _WORD.search(text, at + found.statement, last) else found
        line = text.rfind("\n", 0, match.start()) + 1
        if rule == "hashes" and not (found and (line >= last_line or _NUMERIC.fullmatch(tail))):
            continue
        before = text[max(line, match.start() - _ABOUT_LENGTH) : match.start()]
        yield Reading(rule, at, found), rule == "marker" and _ABOUT.search(before) is not None


def _past_phrase(text: str, at: int, reader: Reader) -> int:
    """Where X begins in "The answer is X" that follows a marker at `at`: the marker, too, announces X."""
    for filler in _FILLERS:
        start = match.end() if (match := filler.match(text, at)) else at
        phrase = reader.phrases.match(text, start)
        if phrase and phrase.lastgroup != "value":
            return phrase.end()
    return at


def _phrases(text: str, start: int, reader: Reader) -> Iterator[Reading]:
    previous = start
    for match, end in _up_to_next(reader.phrases, text, start):
        before = _clause(text[max(previous, match.start() - _CLAUSE) : match.start()])
        previous = match.end()
        if _HYPOTHETICAL.search(before) or _DENIED.search(before.rpartition(",")[2]):
            continue
        at = match.start("value") if match.re.groupindex and match["value"] is not None else match.end()
        tail = text[at : max(end, match.end())].partition("\n")[0]
        found = reader.after(tail)
        # A question is not a statement: "So the answer is B?"
        if found and not re.match(r"[^.!\n]{0,40}\?", tail[found.end :]):
            yield Reading("phrase", at, found)


def _up_to_next(pattern: re.Pattern[str], text: str, start: int) -> Iterator[tuple[re.Match[str], int]]:
    """Each match with the start of the next: a value ends there, so a text stuck in a loop is read in linear time."""
    matches = list(pattern.finditer(text, start))
    for index, match in enumerate(matches):
        yield match, matches[index + 1].start() if index + 1 < len(matches) else len(text)


def _clause(before: str) -> str:
    """What follows the last end of a sentence or line."""
    return re.split(r"[.!?;\n]", before)[-1]


def _announced(tail: str) -> str:
    """The rest of the line, or up to the end of the next line that is not blank where nothing stands on it."""
    blank = re.match(r"[\s*_]*\n", tail)
    start = blank.end() if blank else 0
    end = tail.find("\n", start)
    return tail if end < 0 else tail[:end]


def _boxed(tail: str) -> str:
    depth = 1
    for match in re.finditer(r"[{}]", tail):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return tail[: match.start()]
    return ""  # cut off inside the box: nothing was announced
