"""Reads one of several labelled options, or an order of all of them.

labels are single letters or digits:   (B)   B.   **B**   \\text{B}   option B   B) its text   its text
labels are words:                      yes   **No**   invalid
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from orca2.evaluation.extraction.anchors import ANSWER_IS, CHOOSE, Found, Reader

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
_ARTICLES = ("A", "I")


def choice_reader(choices: Mapping[str, str]) -> Reader:
    """A reader of one label. The value is the label as `choices` spells it, whatever the text's case."""
    return _reader(tuple(choices.items()))


@lru_cache(maxsize=4096)
def _reader(choices: tuple[tuple[str, str], ...]) -> Reader:
    options = _Options.of(choices)
    labelled = rf"\b(?:option|choice|letter) {_OPEN}(?:{options.either})(?![\w'’])|\((?:{options.either})\)"
    phrases = re.compile(
        rf"\b{ANSWER_IS}|{CHOOSE}"
        rf"|(?P<value>{labelled})[\s*_)\]]*is (?:the |most )*(?:correct|right|best)"
        r"(?: answer| option| choice| one)?(?=[\s*_]*(?:[.,;!\n]|$))"
        r"|^[ \t*_#]*(?:(?:the )?(?:correct|right|best|final|chosen) (?:option|choice)[ \t*_]{0,4}[:：]"
        # Of options one by one, too, "Option: A" is said; only the last line decides.
        r"|(?:option|choice)[ \t*_]{0,4}[:：](?=[^\n]*\s*\Z))",
        re.IGNORECASE | re.MULTILINE,
    )
    return Reader(options.after, options.bare, phrases)


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one sample, prepared for reading."""

    texts: Mapping[str, str]
    """Label -> normalised text."""
    owners: Mapping[str, str]
    """Normalised text -> label, without the texts that two options share or that are empty."""
    either: str
    start: re.Pattern[str]
    another: re.Pattern[str]
    words: bool
    """Whether labels are words, such as `yes` and `no`."""

    @classmethod
    def of(cls, choices: tuple[tuple[str, str], ...]) -> "_Options":
        texts = {label: _normal(text) for label, text in choices}
        shared = Counter(texts.values())
        either = "|".join(re.escape(label) for label in sorted(texts, key=len, reverse=True))
        label = rf"{_OPEN}{_NOUN}(?:{either})(?![\w'’])"
        return cls(
            texts,
            {text: label for label, text in texts.items() if text and shared[text] == 1},
            either,
            re.compile(rf"{_OPEN}{_NOUN}(?P<label>{either})(?![\w'’])(?P<rest>.*)", re.DOTALL | re.IGNORECASE),
            re.compile(rf"[\s*_)\]}}.$]*(?:,|/|&|\bor\b|\band\b){label}", re.IGNORECASE),
            any(len(label) > 1 for label in texts),
        )

    def after(self, tail: str) -> Found | None:
        """The label, or the one option's text, that `tail` starts with; an empty value for "A or B"."""
        match = self.start.match(tail)
        if match and not self._rejected(match):
            label, rest = self._spelled(match["label"]), match["rest"]
            owner = self.owners.get(_normal(rest))
            if self.another.match(rest) or (owner not in (None, label) and len(_normal(rest)) > 1):
                return Found((), *match.span("label"))
            if self.words or self._is_meant(match["label"], label, tail[: match.start("label")], rest):
                return Found((label,), *match.span("label"))
        named = self.owners.get(_normal(tail))
        return Found((named,), len(tail) - len(tail.lstrip()), len(tail.rstrip())) if named else None

    def bare(self, text: str) -> Found | None:
        """A text whose first or last line is an option, while no other line is another option.

        With word labels also a text that opens with one: "No, the wire did not".
        """
        lines = [(match.start(), match[0]) for match in re.finditer(r"[^\n]+", text) if match[0].strip()]
        if not lines:
            return None
        if whole := self._line(text):
            return whole  # an option's own text may have several lines
        stated = {start: found for start, line in lines if (found := self._line(line))}
        first, last = lines[0], lines[-1]
        if self.words and not stated:
            found = self.after(first[1])
            opens = found and found.value and re.match(r"[\s*_)]*(?:[,.!;:]|$)", first[1][found.end :])
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

    def _spelled(self, label: str) -> str:
        return label if label in self.texts else next(one for one in self.texts if one.lower() == label.lower())

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


def ordering_reader(choices: Mapping[str, str]) -> Reader:
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

    phrases = re.compile(
        r"\b(?:(?:correct|right|final|proper) order|order|answer) (?:is|would be|must be)\b:?", re.IGNORECASE
    )
    return Reader(after, bare, phrases)


def _normal(text: str) -> str:
    """Lower case, blanks collapsed, without the punctuation, markup and dashes that may surround an option."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|boxed)\b", "", " ".join(text.lower().split()))
    text = re.sub(r"^[\s*_)\].:]*[-–—]\s", "", text)
    return text.strip(" .,:;!?*_`\"'“”‘’()[]{}$\\")
