"""A file of one's own questions, with or without gold answers: JSONL, a JSON array, CSV or Parquet.

    {"q": "48 clips, half as many more?", "solution": "48/2 = 24 ... (line break) #### 72"}
        columns: {user: q, gold: solution}      number, gold 72
    {"instruction": "Name a colour.", "input": ""}      no gold: nothing is verified, every verdict is `undecided`

Columns are named as those of `source=jsonl`, and rows are known by the same forms (docs/data.md).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orca2.errors import ConfigError, DataError
from orca2.records import AnswerKind, Rejected
from orca2.rows.collections.fields import broken, text_field
from orca2.rows.collections.gold_kinds import kind_of_row
from orca2.rows.conversations import read_conversation
from orca2.rows.importing import StoredRow, open_rows
from orca2.rows.items import TASK_KINDS, TaskItem
from orca2.rows.layouts import FINAL_MARK

FIELDS = ("user", "gold", "task", "category")
_STAND_IN = {"role": "assistant", "content": "-"}


@dataclass(frozen=True, kw_only=True)
class QuestionFile:
    """The questions of `path`. Raises ConfigError for a field or a kind that does not exist."""

    name: str
    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """`user`, `gold`, `task`, `category` -> column. One that has its field's own name may be missing."""
    kind: AnswerKind | None
    """How answers are checked; None: read off each row's gold answer."""
    category: str
    licence: str
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.columns) - set(FIELDS)):
            raise ConfigError(f"tasks={self.name}: columns {unknown} are not fields of a question; known are {FIELDS}")
        if self.kind not in (None, *TASK_KINDS):
            raise ConfigError(f"tasks={self.name}: kind is {self.kind!r}; allowed are {', '.join(TASK_KINDS)}, null")

    @property
    def digest(self) -> str:
        """The same for the same questions. Raises DataError where the file cannot be read."""
        return open_rows(self.path, self.cache_dir).digest

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where the file cannot be read, or none of its rows."""
        rows = open_rows(self.path, self.cache_dir)
        reasons: Counter[str] = Counter()
        found: dict[str, None] = {}
        for at in range(len(rows)):
            stored = rows[at]
            found |= dict.fromkeys(stored.row or ())
            try:
                item = self._item(stored)
            except DataError as error:
                reasons[str(error)] += 1
                yield broken(self.name, f"{Path(self.path).name}:{stored.line}", str(error))
                continue
            yield item
        if len(rows) == reasons.total():
            reason = f", mostly because {reasons.most_common(1)[0][0]}" if reasons else ""
            raise DataError(
                f"tasks={self.name}: none of {len(rows):,} rows of {self.path!r} can be used{reason}. Found are the "
                f"columns {list(found)}; name yours with tasks.columns.user=<column> tasks.columns.gold=<column>"
            )

    def _item(self, stored: StoredRow) -> TaskItem:
        if stored.row is None:
            raise DataError(stored.error or "empty")
        row = stored.row
        user, gold = self._question(row), self._gold(row)
        kind, options, checked = kind_of_row(user, gold)
        if gold and self.kind not in (None, kind):
            if self.kind == "choice":
                raise DataError(f"gold {gold} is none of the options that the question lists, one a line as `(A) ...`")
            kind, options, checked = self.kind, (), gold
        task = self._text(row, "task") or self.name
        file = Path(self.path).name
        return TaskItem(
            id=f"{self.name}/{task}/{Path(file).stem}:{stored.line}",
            collection=self.name,
            task=task,
            category=self._text(row, "category") or self.category,
            user=user,
            gold=checked,
            answer_kind=kind,
            options=options,
            licence=self.licence,
            lineage=f"{file}#{stored.line}",
        )

    def _column(self, row: Mapping[str, Any], name: str) -> str | None:
        """The column of a field; None if it is optional and missing. Raises DataError if a named one is missing."""
        column = self.columns.get(name, name)
        if column in row:
            return column
        if column == name:
            return None
        raise DataError(f"column {column!r} is missing")

    def _text(self, row: dict[str, Any], name: str) -> str | None:
        column = self._column(row, name)
        return None if column is None or row[column] in (None, "") else text_field(row, column)

    def _question(self, row: dict[str, Any]) -> str:
        column = self._column(row, "user")
        if column is not None:
            return text_field(row, column)
        if "instruction" in row:
            more = self._text(row, "input") if "input" in row else None
            return "\n\n".join(filter(None, (text_field(row, "instruction"), more)))
        if isinstance(row.get("prompt"), str):
            return text_field(row, "prompt")
        listed = (row[key] for key in ("messages", "conversations", "prompt") if isinstance(row.get(key), list))
        turns = next(listed, None)
        if turns is None:
            raise DataError("column 'user' is missing")
        return _asked(turns)

    def _gold(self, row: dict[str, Any]) -> tuple[str, ...]:
        column = self._column(row, "gold")
        value = None if column is None else row[column]
        if value in (None, "", []):
            return ()
        values = value if isinstance(value, list) else [value]
        return tuple(_final(each, str(column)) for each in values)


def _asked(turns: list[Any]) -> str:
    """The question of a conversation of one turn. Raises DataError for any other."""
    conversation = read_conversation([*turns, _STAND_IN] if _ends_with_user(turns) else turns, "join")
    if conversation.system.strip():
        raise DataError("the row has a system message, whose place is the strategy's; put it into the question")
    if len(conversation.turns) > 1:
        raise DataError(f"a question is one turn of the user; the conversation has {len(conversation.turns)}")
    return conversation.turns[0].user


def _ends_with_user(turns: list[Any]) -> bool:
    last = turns[-1] if turns else None
    return isinstance(last, Mapping) and last.get("role", last.get("from")) in ("user", "human")


def _final(value: Any, column: str) -> str:
    """One gold answer as text; what follows `####` where a solution ends in GSM8K's mark."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"column {column!r} holds {type(value).__name__}, not an answer")
    text = str(value).rpartition(FINAL_MARK)[2].strip()
    if not text:
        raise DataError(f"column {column!r} has no final answer")
    return text
