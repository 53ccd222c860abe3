"""Reading one final answer out of free text, by named rules; never a guess.

text ──▶ announcements: where a final answer is announced ──▶ reading: which one counts ──▶ Extraction
                                                                 ▲
                            choices, numbers, values: what stands there, one reader per kind of answer
"""

from orca2.answers.extraction.choices import choice_reader, ordering_reader
from orca2.answers.extraction.numbers import number_reader
from orca2.answers.extraction.reading import Reader, extract
from orca2.answers.extraction.values import sequence_reader, span_reader, word_reader

__all__ = [
    "Reader",
    "choice_reader",
    "extract",
    "number_reader",
    "ordering_reader",
    "sequence_reader",
    "span_reader",
    "word_reader",
]
