"""Reading one final answer out of free text, by named rules; never a guess.

text ──▶ announcements: where a final answer is announced ──▶ reading: which one counts ──▶ Extraction
                                                                 ▲
                            choices, numbers, values: what stands there, one reader per kind of answer
"""

from collections.abc import Callable, Mapping

from orca2.answers.extraction.choices import choice_reader, digits_reader, order_reader
from orca2.answers.extraction.numbers import number_reader
from orca2.answers.extraction.reading import NOTHING, Extraction, Reader, extract
from orca2.answers.extraction.values import list_reader, span_reader, word_reader
from orca2.records import AnswerKind

__all__ = [
    "NOTHING",
    "Extraction",
    "Reader",
    "choice_reader",
    "extract",
    "list_reader",
    "number_reader",
    "order_reader",
    "reader_of",
    "span_reader",
    "word_reader",
]

_READERS: Mapping[AnswerKind, Callable[[str], Reader]] = {
    "number": lambda _: number_reader(),
    "word": lambda _: word_reader(),
    "list": list_reader,
    "order": lambda _: digits_reader(),
    "span": span_reader,
    "expression": span_reader,
}
"""Kind -> the reader of its answers to a question without options."""


def reader_of(kind: AnswerKind, question: str, options: Mapping[str, str]) -> Reader:
    """The reader of answers of a kind to `question`, whose options are given as label -> text, and empty without any.

    A `choice` has options always, an `order` has them where they are labelled.
    """
    if options:
        return order_reader(options) if kind == "order" else choice_reader(options)
    return _READERS[kind](question)
