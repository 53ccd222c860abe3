"""Reads spans of text, one word, or a row of words or brackets.

span   35 yards; the second quarter             parts are separated by a semicolon
word   signs   "signs."
list   apple, pear, zebra   ] ) >
"""

import re
from collections.abc import Callable

from orca2.answers.extraction.announcements import COMMON, Noun
from orca2.answers.extraction.quantities import plain_number
from orca2.answers.extraction.reading import Found, Reader
from orca2.answers.extraction.statements import REASONING, first_statement

_MARKUP = " \t*_`\"'“”‘’$"
_LAST_WORD = re.compile(r"\b(?:last|missing|next|final)[ \t]{1,3}[*_]{0,3}$", re.IGNORECASE)
_SORTED = re.compile(r"\b(?:sorted|alphabetical|correct|final)[ \t]{1,3}[*_]{0,3}$", re.IGNORECASE)
_WORD_NOUNS = (*COMMON, Noun("word", _LAST_WORD))
_LIST_NOUNS = (*COMMON, *(Noun(word, _SORTED) for word in ("list", "order", "words", "sequence")))
_ELSEWHERE = re.compile(r"\W*(?:found|stated|given|mentioned|located|shown|provided) (?:in|by|at|above|below)\b", re.I)
"""Says where the answer stands, and not what it is."""
BARE_WORDS = 6
"""Ours: a text of more words than this is a sentence, not a span."""


def span_reader(source: str) -> Reader:
    """A reader of one or more spans of text. A bare text counts only if its words or numbers fit `source`."""
    return Reader(_span_after, lambda text: _known(_short(text, _span_after), source), words=True)


def word_reader() -> Reader:
    """A reader of one word; more than one word is not an answer."""
    return Reader(_word_after, lambda text: _short(text, _word_after), _WORD_NOUNS, words=True)


def list_reader(source: str) -> Reader:
    """A reader of a row of words, or of brackets: one part for each. Bare words count only if all are in `source`."""
    return Reader(_list_after, lambda text: _known(_list_bare(text), source), _LIST_NOUNS, words=True)


def _span_after(tail: str) -> Found | None:
    if (REASONING.match(tail) and len(tail.split(maxsplit=1)) > 1) or _ELSEWHERE.match(tail):
        return None
    line = first_statement(tail).strip()
    parts = tuple(part for part in (_clean(piece) for piece in _unwrapped(line).split(";")) if part)
    start = len(tail) - len(tail.lstrip())
    return Found(parts, start, start + len(line)) if parts else None


def _word_after(tail: str) -> Found | None:
    found = _span_after(tail)
    if not found or len(found.value) != 1 or re.match(r"[<\[]", found.value[0]):
        return None
    return found if len(found.value[0].split()) == 1 else None


def _list_after(tail: str) -> Found | None:
    line = _clean(tail.strip())
    start = tail.find(line) if line else 0
    if re.fullmatch(r"[\s()\[\]{}<>,]+", line):
        return Found(tuple(re.sub(r"[\s,]", "", line)), start, start + len(line))
    if REASONING.match(line) or re.search(r"[.:;?!]\s", line):
        return None
    words = tuple(word for word in re.split(r"[\s,]+", line) if word)
    return Found(words, start, start + len(line)) if words else None


def _list_bare(text: str) -> Found | None:
    return None if "\n" in text.strip() else _list_after(text)


def _short(text: str, after: Callable[[str], Found | None]) -> Found | None:
    if "\n" in text.strip() or len(text.split()) > BARE_WORDS or text.strip().endswith("?"):
        return None
    return after(text)


def _known(found: Found | None, source: str) -> Found | None:
    """`found` if each of its words is in `source`, or a number or bracket; else the text is not an answer."""
    if found is None:
        return None
    known = {_bare_word(word) for word in source.split()} | set("()[]{}<>")
    words = [word for part in found.value for word in part.split()]
    fits = all(_bare_word(word) in known or word in known or plain_number(word) is not None for word in words)
    return found if fits else None


def _bare_word(word: str) -> str:
    return word.lower().strip(".,:;!?()'\"“”‘’")


def _clean(text: str) -> str:
    """Without the markup around it, and without the point at its end, inside or outside the markup."""
    text = _unwrapped(text)
    return text[:-1].rstrip(_MARKUP) if text.endswith(".") else text


def _unwrapped(text: str) -> str:
    text = text.strip(_MARKUP)
    boxed = re.fullmatch(r"\\(?:boxed|text)\{(.*)\}(\.?)", text)
    return (boxed[1] + boxed[2] if boxed else text).strip(_MARKUP)
