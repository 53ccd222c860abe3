"""Task items: questions before a teacher has answered them, in one form for every collection.

reader ──▶ TaskItem(id, task, category, user, gold, ...)   asked, verified, and stored as an `Example`
       └─▶ Rejected(row, reason)                           malformed; counted and listed

natural_instructions/task1146_country_capital/task1146-caea...    id = collection/task/row
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orca2.errors import DataError
from orca2.hashing import is_unicode
from orca2.records import ANSWER_KINDS, AnswerKind, Rejected

TASK_KINDS = tuple(kind for kind in ANSWER_KINDS if kind != "chat")
"""The kinds of a task's answers: a task is one question, and a conversation has several."""

_FORMS: dict[AnswerKind, re.Pattern[str]] = {
    "number": re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?<=\d)"),
    "yes_no": re.compile(r"(?i:yes|no)\.?"),
    "order": re.compile(r"\d+"),
}


class Option(NamedTuple):
    """One choice of a multiple-choice question, as `(A) 21` -> Option("A", "21")."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskItem:
    """One question of a task collection.

    Raises:
        DataError: a text that UTF-8 cannot hold, no text for the user, an unknown kind, or a choice whose gold
            answer is not one of its options.
    """

    id: str
    """`<collection>/<task>/<row>`: stable under reordering, sampling and the order of files."""
    collection: str
    """Name of the reader; `source` of the stored example."""
    task: str
    """Strategies are assigned per task; unique within the collection."""
    category: str
    """Kind of task, a key of the instruction library such as `question_generation`."""
    user: str
    gold: tuple[str, ...]
    """Acceptable answers; any of them is right. Empty where none is known."""
    answer_kind: AnswerKind
    preamble: int = 0
    """Characters at the start of `user` that every row of the task shares, as a task's definition."""
    options: tuple[Option, ...] = ()
    """Options of a `choice`; gold answers are their labels."""
    suggested: str | None = None
    """The task's own strategy, where its source knows one."""
    offered: tuple[str, ...] | None = None
    """The strategies under which the teacher can answer; None for any."""
    licence: str = "unknown"
    lineage: str = ""
    """`<file>#<row>` or what generated it; block-lists and the data set card read it."""

    def __post_init__(self) -> None:
        texts = (self.id, self.task, self.category, self.user, self.licence, *self.gold)
        for text in (*texts, *(part for option in self.options for part in option)):
            if not is_unicode(text):
                raise DataError(f"item {self.id!a}: {text[:40]!a} holds half of a surrogate pair; no file can hold it")
        if not self.user.strip():
            raise DataError(f"item {self.id}: the text for the user is empty")
        if self.answer_kind not in TASK_KINDS:
            raise DataError(f"item {self.id}: answer_kind is {self.answer_kind!r}; allowed are {', '.join(TASK_KINDS)}")
        labels = {option.label for option in self.options}
        if self.answer_kind == "choice" and not set(self.gold) <= labels:
            raise DataError(f"item {self.id}: gold {self.gold} is not among the options {sorted(labels)}")
        if self.answer_kind in _FORMS:
            for answer in self.gold:
                if not _FORMS[self.answer_kind].fullmatch(answer):
                    raise DataError(f"item {self.id}: gold {answer!r} is not a {self.answer_kind}")

    @property
    def own_text(self) -> str:
        """The user's text without what the whole task shares; rows are compared by it."""
        return self.user[self.preamble :].strip()


class TaskReader(Protocol):
    """One task collection. Reading it twice gives the same items in the same order."""

    @property
    def name(self) -> str: ...

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Every row once, in constant memory. Raises DataError where the collection itself is missing."""
        ...
