"""Finds where a text announces its final answer, in any form, and where the announced value stands.

    marker    Answer: X      **Final answer:** X      Answer (in dollars): X
    heading   ### Answer     and X on the next line
    hashes    #### X         X is a number, or the line is the last one: else it is the heading of a section
    boxed     \\boxed{X}
    phrase    the correct answer is X      the answer (yes or no) should be X      I choose X      option X is correct

What stands between an announcement and its value is the same for all of them: markup, line breaks, and words such as
"most likely". A value ends with its line, with its box, or where the next announcement begins, so that a text stuck in
a loop is read in linear time.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Spot(NamedTuple):
    """Place of an announcement; positions are offsets in the text."""

    rule: str
    start: int
    value: int
    """End of the announcement, where its value may begin."""
    denied: bool = False
    """Whether it says what the answer is not."""
    about: bool = False
    """Whether it may only speak of the answer: "Explanation of the answer:"."""
    weak: bool = False
    """Whether it announces something only where that can be read: "I choose", which may go on in any way."""


class Announcement(NamedTuple):
    """One place where an answer is announced."""

    spot: Spot
    value: int
    """Offset at which the value begins."""
    end: int
    """Last offset at which the value can end."""
    limit: int
    """Last offset that a sentence around the value can reach: the end of the box, or of the text."""
    concludes: bool
    """Whether it says that it draws a conclusion: "So the answer is", "final answer"."""


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun that announces: "<noun> is X" is a phrase, and "<noun>: X" a marker or a phrase."""

    word: str
    """In lower case."""
    before: re.Pattern[str] | None = None
    """What must stand before it, up to the noun; None: anything but a letter."""
    marks: bool = False
    """Whether "<noun>:" is a marker."""


_FEW = 60
"""Characters before or inside an announcement that are looked at; bounded, so that no text is read twice."""
_CLAUSE = 200
"""Characters before a phrase that may turn its meaning."""

Also = Callable[[str, str], Iterator[Spot]]
"""(text, text in lower case) -> what else announces an answer of one kind."""

ANSWER = Noun("answer", marks=True)
COMMON = (ANSWER, Noun("final choice", marks=True))

_ADVERB = (
    r"(?:(?:most|very|quite|almost)[ \t])?(?:likely|probably|certainly|clearly|therefore|thus|then|hence|obviously"
    r"|definitely|simply|presumably|apparently|evidently|indeed|of course)\b[,:]?"
)
_OPINION = (
    r"(?:I(?:[ \t]would)? (?:think|believe|say)\b(?:,|:|(?: that\b)?(?: it(?:['’]s| is)\b)?:?)"
    r"|(?:that )?(?:it|this)(?:['’]s| is)\b:?)"
)
_QUALIFIED = (
    r"(?:[ \t](?:option|choice|letter|key)\b)?(?:[ \t]to (?:the|this|that|our|my)(?: \w{1,20})? (?:question|problem|"
    r"exercise|riddle|puzzle)\b)?(?:[ \t]in [a-z]{2,20}\b)?(?:[ \t]{0,3}\((?!\w{1,2}\))[^()\n]{0,80}\))?"
)
"""What may stand between the noun and its colon or verb: "answer to the question (in dollars)"; not a label, for "the
answer (A) is wrong" is said of an option."""
_RIGHT = re.compile(
    rf"{_QUALIFIED}(?:(?P<marker>(?:[ \t]is)?[ \t]{{0,3}}[*_]{{0,3}}[ \t]{{0,3}}[:：](?![\"”]))"
    rf"|(?P<heading>[ \t]{{0,3}}(?:\*\*)?[ \t]{{0,3}}$)"
    rf"|[*_]{{0,3}}(?P<denied>[ \t]{{1,3}}(?:(?:is|was)n['’]t|can(?:not|['’]t) be|(?:is|was|would be|must|should|can)"
    rf"[ \t]not(?: be)?)\b)"
    rf"|[*_]{{0,3}},?(?:[ \t]{{1,3}}{_ADVERB}){{0,3}}[ \t]{{1,3}}(?:is|was|would be|must be|should be|has to be)\b"
    rf"(?:,[ \t]{{1,3}}(?:{_ADVERB}|{_OPINION}))?[ \t]{{0,3}}[:：]?)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADING = re.compile(r"[ \t]*(?:#{1,6}|\*\*)[ \t]*(?:the )?(?:final |correct )?", re.IGNORECASE)
"""Before the noun of a heading, from the start of its line."""
_BOXED = re.compile(r"\\boxed[ \t]{0,3}\{")
_HASHES = re.compile(r"####(?!#)[ \t]{0,3}")
_BRACES = re.compile(r"[{}]")

_SURE = r"(?:(?:most|very|quite)[ \t]likely|probably|presumably|certainly|definitely|obviously)\b,?(?=[ \t]+\w)"
_LINES = r"(?:(?:[ \t*_$`]|\\\[|\\\()*\n)*"
_LEAD = re.compile(rf"(?:[ \t*_]*(?:{_ADVERB}|{_OPINION}))*{_LINES}", re.IGNORECASE)
"""Between an announcement and its value, once or twice: "most likely", and lines without a word."""
_LEAD_OF_WORDS = re.compile(rf"(?:[ \t*_]*{_SURE})?{_LINES}", re.IGNORECASE)
"""The same where the value may be any words: then "then" and "clearly" may be the answer."""
_FILLER = re.compile(
    r"[\s*_]*(?:(?:so|thus|hence|then|therefore),? )?(?:the |my )?(?:final |correct |right |best )?", re.IGNORECASE
)
"""Between a marker and a phrase that follows it: in "Answer: The answer is X", the marker announces X."""
_ABOUT = re.compile(
    r"\b(?:of|behind|for|to (?:find|get|reach|obtain|answer)|(?:verify|check|explain|justify)(?:ing)?"
    r"|why (?:this|that|it|\S{1,9}) is)[ \t]+(?:the |this |that |my |our )?(?:final |correct |right )?$",
    re.IGNORECASE,
)
"""Before a noun: the text speaks of the answer, and mostly does not give it."""
_HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|suppose|supposing|assume|assuming|unless|why|say|imagine|until|pretend"
    # What others think, or what was thought before.
    r"|(?:one|you|some|many|most|people|students|readers|mistake is to|might|may|could|easy to)"
    r"(?: (?:\w+ )?(?:might|may|could|would|will))? (?:think|believe|guess|expect)s?"
    r"|thought(?! about| through| it)|initially|at first)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|never|cannot be|wrong|incorrect|possible|tempting)\b|n['’]t\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|consequently|accordingly|finally|ultimately|overall|altogether|final|"
    r"in (?:conclusion|summary|short|the end)|to (?:conclude|summari[sz]e|sum up))\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?;\n]")
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_OVER = re.compile(r"[ \t*_]*[.,;!?](?!\d)")
"""After a phrase: nothing is announced by "I know what the answer is."."""


def announcements(text: str, nouns: tuple[Noun, ...], also: Also, words: bool) -> list[Announcement]:
    """All announcements of `text` in order. Those that others might make, or that only speak of the answer where
    another one gives it, are left out. `words`: the value may be any words."""
    lower = lower_case(text)
    found = sorted({*_by_noun(text, lower, nouns), *_boxed(text), *_hashes(text), *also(text, lower)}, key=_place)
    kept: list[Spot] = []
    for one in found:
        # A phrase right after its marker says the same again: the marker announces the phrase's value.
        last = kept[-1] if kept else None
        if last and one.rule == "phrase" and last.rule in ("marker", "heading", "hashes"):
            filler = _FILLER.match(text, last.value, one.start)
            if filler and filler.end() == one.start:
                kept[-1] = last._replace(value=one.value, denied=one.denied)
                continue
        kept.append(one)
    plain = [one for one in kept if not one.about]
    return list(_told(text, plain or kept, _LEAD_OF_WORDS if words else _LEAD))


def lower_case(text: str) -> str:
    """`text` in lower case with every character in its place: a few of Unicode's become two."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


def _place(spot: Spot) -> tuple[int, int]:
    return spot.start, spot.value


def _told(text: str, spots: list[Spot], lead: re.Pattern[str]) -> Iterator[Announcement]:
    """The announcements with the ends of their values; without the phrases that their clause makes hypothetical."""
    previous = 0
    for index, one in enumerate(spots):
        clause = _clause(text[max(previous, one.start - _CLAUSE) : one.start])
        previous = one.value
        if one.rule == "phrase" and (_HYPOTHETICAL.search(clause) or _DENIED.search(clause.rpartition(",")[2])):
            continue
        end = spots[index + 1].start if index + 1 < len(spots) else len(text)
        end, limit = max(end, one.value), len(text)
        if one.rule == "boxed":
            value, end = one.value, _box_end(text, one.value, end)
            limit = end
        else:
            value = _value_start(text, one.value, end, lead)
            line = text.find("\n", value, end)
            end = end if line < 0 else line
        concludes = _CONCLUDES.search(clause) is not None
        yield Announcement(one, value, end, limit, concludes)


def _clause(before: str) -> str:
    """What follows the last end of a sentence or line."""
    return _SENTENCE_END.split(before)[-1]


def _box_end(text: str, start: int, end: int) -> int:
    """End of the box that begins at `start`. A box that is cut off announces nothing and gives `start`."""
    depth = 1
    for match in _BRACES.finditer(text, start, end):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return start


def _value_start(text: str, start: int, end: int, lead: re.Pattern[str]) -> int:
    for _ in range(2):
        match = lead.match(text, start, end)
        start = match.end() if match else start
    return start


def _by_noun(text: str, lower: str, nouns: tuple[Noun, ...]) -> Iterator[Spot]:
    for noun in nouns:
        at = lower.find(noun.word)
        while at >= 0:
            end = at + len(noun.word)
            if one := _with_noun(text, at, end, noun):
                yield one
            at = lower.find(noun.word, end)


def _with_noun(text: str, at: int, end: int, noun: Noun) -> Spot | None:
    right = _RIGHT.match(text, end)
    if right is None or (at and text[at - 1].isalpha()):
        return None
    line = (
        max(text.rfind("\n", 0, at) + 1, at - _FEW) if at < _FEW else text.rfind("\n", at - _FEW, at) + 1 or at - _FEW
    )
    before = text[line:at]
    if noun.before is not None and not noun.before.search(before):
        return None
    rule, about = right.lastgroup, _ABOUT.search(before) is not None
    if rule == "heading":
        heads = noun.marks and _HEADING.fullmatch(before) is not None
        return Spot("heading", line, right.end()) if heads else None
    if rule == "marker" and noun.marks:
        return Spot("marker", at, right.end(), about=about)
    # "I know what the answer is." announces nothing; "the answer is" at the end of a text was cut off.
    if about or (rule is None and _OVER.match(text, right.end())):
        return None
    return Spot("phrase", at, right.end(), denied=rule == "denied")


def _boxed(text: str) -> Iterator[Spot]:
    for match in _BOXED.finditer(text) if "\\boxed" in text else ():
        yield Spot("boxed", match.start(), match.end())


def _hashes(text: str) -> Iterator[Spot]:
    at = text.find("####")
    while at >= 0:
        end = at + 4
        while text[end : end + 1] == "#":
            end += 1
        match = _HASHES.match(text, at)
        line = text.rfind("\n", max(0, at - _FEW), at) + 1
        if match and (line or at <= _FEW) and not text[line:at].strip(" \t"):
            yield Spot("hashes", line, match.end(), weak=True)
        at = text.find("####", end)
