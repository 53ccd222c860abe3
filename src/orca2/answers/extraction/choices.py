"""Reads one of several labelled options, or an order of all of them.

labels are single letters or digits:   (B)   B.   **B**   \\text{B}   option B   B) its text   its text
labels are words:                      yes   **No**   invalid
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from orca2.answers.extraction.announcements import COMMON, Noun, Spot
from orca2.answers.extraction.reading import Found, Reader, last_line

_OPEN = r"(?:[\s*_$`\"'“‘(\[{]|\\(?:text|mathrm|mathbf|textbf|boxed|left)\b|\\\()*"
_NOUN = r"(?:(?:the )?(?:correct )?(?:option|choice|letter|answer|number|statement)\b" + _OPEN + r")?"
_REASON = r"(?:because|since|as it|is (?:the )?(?:correct|right|best))\b"
_REJECTED = re.compile(
    r"[\s*_)\]}.$]*(?:(?:is|are|was|seems|looks) (?:clearly |definitely |obviously )?"
    r"(?:not\b|incorrect|wrong|false|impossible|out\b|ruled out|eliminated)"
    r"|(?:does|can) ?not\b|(?:is|was|does|ca)n['’]t\b)",
    re.IGNORECASE,
)
"""What follows an option that is spoken of and not chosen."""
_ARTICLES = ("A", "I", "a", "i")
_QUALITY = re.compile(r"\b(?:correct|right|best|final|chosen)[ \t]{1,3}[*_]{0,3}$", re.IGNORECASE)
_NOUNS = (*COMMON, *(Noun(word, _QUALITY) for word in ("option", "choice", "letter", "one")))
_LAST_LINE = re.compile(r"[ \t*_#]{0,9}(?:option|choice)[ \t*_]{0,4}[:：]", re.IGNORECASE)
"""Texts also say "Option: A" of one option after the other, so only the last line decides."""
_CHOOSING = re.compile(
    r"(?<!\w)I(?:['’]d| would| will|['’]ll)? (?:choose|pick|select|go with|answer(?: with)?)\b(?![ \t]{0,3}[:：])",
    re.IGNORECASE,
)
_CHOICES = (
    "choose",
    "pick",
    "select",
    "go with",
    "i answer",
    "i would answer",
    "i will answer",
    "i'd answer",
    "i'll answer",
)
_IS_RIGHT = re.compile(
    r"[\s*_)\]]{0,4}is (?:(?:the|most) ){0,2}(?:correct|right|best)(?: answer| option| choice| one)?"
    r"(?=[\s*_]{0,4}(?:[.,;!\n]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_LINE = re.compile(r"[^\n]+")
_OPENS = re.compile(r"[\s*_)]*(?:[,.!;:]|$)")
_NEITHER = re.compile(r"[\s*_]*(?:neither|none|nothing|both|all)\b", re.IGNORECASE)


def choice_reader(choices: Mapping[str, str]) -> Reader:
    """A reader of one label. The value is the label as `choices` spells it, whatever the text's case."""
    options = _Options.of(tuple(choices.items()))
    return Reader(options.after, options.bare, _NOUNS, options.also)


@dataclass(frozen=True, slots=True)
class _Patterns:
    """What depends on the labels alone, so that it is made once for all samples with the same ones."""

    start: re.Pattern[str]
    another: re.Pattern[str]
    praised: re.Pattern[str]
    """A label before "is correct"."""
    spelled: Mapping[str, str]
    """The label in lower case -> the label."""
    words: bool
    """Whether labels are words, such as `yes` and `no`."""


@lru_cache(maxsize=1024)
def _patterns(labels: tuple[str, ...]) -> _Patterns:
    either = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    label = rf"{_OPEN}{_NOUN}(?P<label>{either})(?![\w'’])"
    return _Patterns(
        re.compile(rf"{label}(?P<rest>.*)", re.DOTALL | re.IGNORECASE),
        re.compile(rf"[\s*_)\]}}.$]*(?:,|/|&|\bor\b|\band\b){label}", re.IGNORECASE),
        re.compile(
            rf"(?:\b(?:option|choice|letter) {_OPEN}(?P<named>{either})(?![\w'’])|\((?P<closed>{either})\))$", re.I
        ),
        {label.lower(): label for label in reversed(labels)},
        any(len(label) > 1 for label in labels),
    )


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one sample, prepared for reading."""

    texts: Mapping[str, str]
    """Label -> normalised text."""
    owners: Mapping[str, str]
    """Normalised text -> label, without the texts that two options share or that are empty."""
    patterns: _Patterns

    @classmethod
    def of(cls, choices: tuple[tuple[str, str], ...]) -> "_Options":
        texts = {label: _normal(text) for label, text in choices}
        shared = Counter(texts.values())
        owners = {text: label for label, text in texts.items() if text and shared[text] == 1}
        return cls(texts, owners, _patterns(tuple(texts)))

    def after(self, tail: str) -> Found | None:
        """The label, or the one option's text, that `tail` starts with; an empty value for "A or B"."""
        match = self.patterns.start.match(tail)
        if match and not self._rejected(match):
            label, rest = self._spelled(match["label"]), match["rest"]
            if match["label"] in _ARTICLES and (named := self._named(tail)):
                return named
            stated = _normal(rest)
            owner = self.owners.get(stated)
            if self._offers_another(rest, label) or (owner not in (None, label) and len(stated) > 1):
                return Found((), *match.span("label"))
            if self.patterns.words or self._is_meant(match["label"], label, tail[: match.start("label")], rest):
                return Found((label,), *match.span("label"))
        return self._named(tail)

    def _named(self, tail: str) -> Found | None:
        """The option whose text, and nothing else, `tail` is."""
        label = self.owners.get(_normal(tail))
        return Found((label,), len(tail) - len(tail.lstrip()), len(tail.rstrip())) if label else None

    def bare(self, text: str) -> Found | None:
        """A text whose first or last line is an option, while no other line is another option.

        With word labels also a text that opens with one: "No, the wire did not".
        """
        lines = [(match.start(), match[0]) for match in _LINE.finditer(text) if not match[0].isspace()]
        if not lines:
            return None
        if whole := self._line(text):
            return whole  # an option's own text may have several lines
        # A text stuck in a loop repeats its lines; each is read once.
        known = {line: self._line(line) for line in {line for _, line in lines}}
        stated = {start: found for start, line in lines if (found := known[line])}
        first, last = lines[0], lines[-1]
        if self.patterns.words and not stated:
            found = self.after(first[1])
            opens = found and found.value and _OPENS.match(first[1], found.end)
            return Found(found.value, first[0] + found.start, first[0] + found.end) if found and opens else None
        if len({found.value for found in stated.values()}) > 1:
            return Found((), 0, 0)
        start = next((start for start in (last[0], first[0]) if start in stated), None)
        if start is None:
            return None
        return Found(stated[start].value, start + stated[start].start, start + stated[start].end)

    def _line(self, line: str) -> Found | None:
        """A line that is a label and nothing else but, perhaps, its own option's text; or that text."""
        found = self.after(line)
        if not found or not found.value:
            return None
        rest = _normal(line[found.end :])
        return found if not rest or rest == self.texts[found.value[0]] else None

    def _rejected(self, match: re.Match[str]) -> bool:
        """Whether "(A) is wrong" is said of a label, unless these are the words of its own option."""
        if not _REJECTED.match(match["rest"]):
            return False
        own = self.texts[self._spelled(match["label"])]
        return not own or not _normal(match["rest"]).startswith(own)

    def _offers_another(self, rest: str, label: str) -> bool:
        """Whether a second label stands beside the first: "A or B"; not "B, a music store"."""
        match = self.patterns.another.match(rest)
        if match is None:
            return False
        own, written, then = self.texts[label], match["label"], rest[match.end() :]
        if own and _normal(rest).startswith(own):
            return False
        if self.patterns.words or written.isdigit() or "(" in match[0]:
            return True
        if written in _ARTICLES:
            return re.match(r"[ \t]+(?!(?:and|or|is|are|fits?)\b)\w", then) is None
        return written.isupper() or re.match(r"[ \t]+\w", then) is None

    def also(self, text: str, lower: str) -> Iterator[Spot]:
        """ "I choose X", "option X is correct", and "Option: X" on the last line."""
        if any(word in lower for word in _CHOICES):
            for match in _CHOOSING.finditer(text):
                neither = _NEITHER.match(text, match.end()) is not None
                yield Spot("phrase", match.start(), match.end(), weak=not neither)
        for match in _IS_RIGHT.finditer(text) if " is " in lower or ")is " in lower else ():
            named = self.patterns.praised.search(text, max(0, match.start() - 40), match.start())
            if named:
                value = named.start("named") if named["named"] else named.start("closed")
                yield Spot("phrase", named.start(), value)
        last = text.rfind("\n", 0, len(text.rstrip())) + 1
        if option := _LAST_LINE.match(text, last):
            yield Spot("phrase", last, option.end())

    def _spelled(self, label: str) -> str:
        return label if label in self.texts else self.patterns.spelled[label.lower()]

    def _is_meant(self, written: str, label: str, before: str, rest: str) -> bool:
        """Whether a letter or digit is meant as a label; `A` may be an article and `1` the start of `1,000`."""
        closed = re.match(r"[\s*_]*$|\s*(?:\.\.\.|…)|[)\]}\"'”’*_$`]|\\\)", rest)
        if closed or "(" in before or re.search(r"option|choice|letter", before, re.IGNORECASE):
            return True
        if self.texts[label] and _normal(rest.strip(" .:–—*)")) == self.texts[label]:
            return True
        if re.match(r"[.,:;]\s*(?!\d)|\s*[-–—]\s", rest):
            return written.isupper() or written.isdigit()
        if written in _ARTICLES:
            return re.match(rf"\s+{_REASON}", rest) is not None
        return written.isupper() and re.match(r"\s", rest) is not None


_ORDER_NOUNS = (
    *COMMON,
    Noun("order", re.compile(r"\b(?:the|correct|right|final|proper|my)[ \t]{1,3}[*_]{0,3}$", re.IGNORECASE)),
)


def order_reader(choices: Mapping[str, str]) -> Reader:
    """A reader of all labels in some order: `C, A, B`, `(C), (A), and (B)`, `C -> A -> B`; none may be missing."""
    labels = set(choices)
    either = "|".join(re.escape(label) for label in choices)
    between = r"[\s()\[\]*_,;>→–-]+(?:(?:and|then)\b[\s(\[*_]+){0,2}"
    listed = re.compile(rf"[\s*_$`\"'(\[{{]*(?:{either})(?:{between}(?:{either})(?!\w))*")

    def after(tail: str) -> Found | None:
        match = listed.match(tail)
        order = tuple(re.findall(rf"\b(?:{either})\b", match[0])) if match else ()
        return Found(order, *match.span()) if match and len(order) == len(labels) == len(set(order)) else None

    def bare(text: str) -> Found | None:
        found = after(text.strip())
        return found if found and not re.search(r"\w", text.strip()[found.end :]) else None

    return Reader(after, bare, _ORDER_NOUNS)


_DIGITS = re.compile(r"[\s*_$`\"'(\[{]*(\d(?:(?:\s*(?:,|;|-|>|→|->)\s*|\s*)\d)*)[\s*_$`\"')\]}.]*$")


def digits_reader() -> Reader:
    """A reader of the digits 1 to k in some order, as `34152` or `3, 4, 1, 5, 2`; anything else is not an
    order."""

    def after(tail: str) -> Found | None:
        match = _DIGITS.match(tail)
        digits = re.sub(r"\D", "", match[1]) if match else ""
        complete = sorted(digits) == [str(digit) for digit in range(1, len(digits) + 1)]
        return Found((digits,), *match.span(1)) if match and len(digits) > 1 and complete else None

    return Reader(after, lambda text: last_line(text, after), _ORDER_NOUNS)


_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed)\b")
_DASH = re.compile(r"^[\s*_)\].:]*[-–—]\s")
_ARTICLE = re.compile(r"^(?:an?|the) (?=\w)")


def _normal(text: str) -> str:
    """Lower case, blanks collapsed, without the punctuation, markup and dashes that may surround an option."""
    text = " ".join(text.lower().split())
    text = _COMMAND.sub("", text) if "\\" in text else text
    text = _DASH.sub("", text).strip(" .,:;!?*_`\"'“”‘’()[]{}$\\")
    return _ARTICLE.sub("", text)
