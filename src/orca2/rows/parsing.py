"""One stored row -> Example: its layout's fields, columns that are named, and constants for what no column gives.

row {"q": "1+1?", "a": "2", "topic": "sums"}, columns {user: q, answer: a, task: topic}, constants {teacher: gold}
Example(user="1+1?", answer="2", task="sums", teacher="gold", ...)
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, get_args

from orca2.errors import ConfigError, DataError
from orca2.reasoning import split
from orca2.records import UNLABELLED, Example, Rejected
from orca2.rows.conversations import Note, RepeatedTurns, read_history
from orca2.rows.layouts import AUTO, FOUND_BY_COLUMNS, LAYOUTS, NEEDED, PLAIN, cell, layout_of, read_row, text
from orca2.rows.source import Survey
from orca2.strategies import StrategyChoice

Fields = dict[str, Any]

_OPTIONAL = ("id", "reasoning", "suggested", "gold", "verdict", "lineage", "usage", "history")
_LABELS = ("task", "strategy", "suggested")
_NOT_TEXT = ("usage", "history")
_TRACES = ("reasoning", "reasoning_content")
"""Columns that hold the trace of a reasoning model; read where a row has one, whether or not a source names it."""
_FIELDS = tuple(column.name for column in fields(Example) if column.name != "source")


class Labels(NamedTuple):
    """What a choice of strategies decides by."""

    task: str
    strategy: str
    suggested: str | None


@dataclass(frozen=True, kw_only=True)
class RowParser:
    """Turns rows of one source into examples. Raises ConfigError for unknown layouts and fields."""

    source: str
    layout: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of an Example -> column. `messages` names the column of the turns. An `id` replaces the row
    number.
    """
    constants: Mapping[str, str] = field(default_factory=dict)
    repeated_turns: RepeatedTurns = "join"

    def __post_init__(self) -> None:
        allowed = sorted((*LAYOUTS, AUTO))
        if self.layout not in allowed:
            raise ConfigError(f"source {self.source!r}: unknown layout {self.layout!r}; allowed are {allowed}")
        for key in (*self.columns, *self.constants):
            if key not in _FIELDS and not (key == "messages" and self.layout in ("messages", "sharegpt")):
                raise ConfigError(
                    f"source {self.source!r}: {key!r} is not a field of an example; "
                    f"did you mean {nearest(key, _FIELDS)}? Allowed are {list(_FIELDS)}"
                )
        if self.layout == "columns" and not {"user", "answer"} <= {*self.columns, *self.constants}:
            raise ConfigError(f"source {self.source!r}: name the columns of 'user' and 'answer' under `columns`")
        if self.repeated_turns not in get_args(RepeatedTurns):
            raise ConfigError(
                f"source {self.source!r}: repeated_turns is {self.repeated_turns!r}; allowed are "
                f"{list(get_args(RepeatedTurns))}"
            )

    @property
    def wanted(self) -> list[str]:
        """The columns that every row must have."""
        turns = [self.columns["messages"]] if "messages" in self.columns else list(NEEDED.get(self.layout, ()))
        needed = (column for key, column in self._map.items() if not _may_be_missing(key, column))
        return list(dict.fromkeys([*turns, *needed]))

    @property
    def labelled(self) -> bool:
        """Whether rows differ in task or strategy, so that a survey has to look at them."""
        return bool(self.label_columns)

    @property
    def label_columns(self) -> list[str]:
        """The columns that `labels` reads."""
        return [self.columns[key] for key in _LABELS if key in self.columns]

    def labels(self, row: Mapping[str, Any]) -> Labels:
        """Raises DataError where a column is missing or is not a text."""
        task = self.source if self.layout != "gsm8k" else "gsm8k"
        known: dict[str, str | None] = {"task": task, "strategy": UNLABELLED, "suggested": None, **self.constants}
        for key in _LABELS:
            if key in self.columns and _is_given(row, key, self.columns[key]):
                known[key] = text(cell(row, self.columns[key]), self.columns[key])
        return Labels(str(known["task"]), str(known["strategy"]), known["suggested"])

    def survey(self, rows: Iterable[Mapping[str, Any]], choice: StrategyChoice) -> Survey:
        """What a choice keeps, from the label columns alone; broken rows are in neither count."""
        kept, left_out = 0, Counter[str]()
        for row in rows:
            try:
                labels = self.labels(row)
            except DataError:
                continue
            if choice.accepts(*labels):
                kept += 1
            else:
                left_out[f"{labels.task}/{labels.strategy}"] += 1
        return Survey(kept, left_out)

    def survey_all(self, size: int, choice: StrategyChoice) -> Survey:
        """Do what `survey` does for rows without label columns: all of them are alike."""
        one = self.survey([{}], choice)
        return Survey(size) if one.kept else Survey(0, Counter(dict.fromkeys(one.left_out, size)))

    def example(self, row_id: str, row: Mapping[str, Any]) -> Example:
        """Raises DataError with the reason why the row cannot train."""
        return self._parse(row_id, row)[0]

    def notes(self, row: Mapping[str, Any]) -> tuple[Note, ...]:
        """What is left out of a row or not used; nothing of one that cannot train, whose reason is listed."""
        try:
            return self._parse("0", row)[1]
        except DataError:
            return ()

    def _parse(self, row_id: str, row: Mapping[str, Any]) -> tuple[Example, tuple[Note, ...]]:
        layout = layout_of(row, self.columns) if self.layout == AUTO else self.layout
        columns = {key: column for key, column in self._map.items() if layout == "columns" or self._is_named(key)}
        parsed = read_row(layout, row, columns, self.repeated_turns)
        values: Fields = {"task": self.source, "strategy": UNLABELLED, "system": "", "teacher": "unknown"}
        values |= parsed.fields | dict(self.constants)
        for key, column in columns.items():
            if key == "messages" or not _is_given(row, key, column):
                continue
            value = cell(row, column)
            if key == "system" and value is None:
                value = ""
            values[key] = value if key in _NOT_TEXT else text(value, column)
        if not isinstance(values.get("history", ()), tuple):
            values["history"] = read_history(values["history"])
        if "reasoning" not in values:
            values["reasoning"] = next((row[key] for key in _TRACES if isinstance(row.get(key), str)), "")
        row_id = values.pop("id", row_id)
        example = Example(id=f"{self.source}/{row_id}", source=self.source, **values)
        _check(example)
        # Records with a lineage are our own: their `source` gives way to the name of the source that reads them.
        known = {*_TRACES, *(("source",) if "lineage" in self.columns else ())}
        return _without_markers(example), tuple(note for note in parsed.notes if note[1] not in known)

    @property
    def _map(self) -> dict[str, str]:
        return (PLAIN if self.layout == AUTO else {}) | dict(self.columns)

    def _is_named(self, key: str) -> bool:
        """Whether a column was asked for, in a layout that finds the question and the answer by itself."""
        return self.layout != AUTO or key not in PLAIN

    def read(self, place: str, row_id: str, row: Mapping[str, Any], choice: StrategyChoice) -> Example | Rejected:
        """The example, or why it is broken, or left out by `choice`. `place` is what the list of rejects
        shows.
        """
        try:
            example = self.example(row_id, row)
        except DataError as error:
            return Rejected(source=self.source, row=place, kind="broken", reason=str(error))
        if choice.accepts(example.task, example.strategy, example.suggested):
            return example
        reason = f"strategy {choice.name!r} does not use label {example.strategy!r} of task {example.task!r}"
        return Rejected(source=self.source, row=place, kind="left_out", reason=reason)

    def check_first(self, rows: Iterable[Mapping[str, Any] | str]) -> None:
        """Raises DataError where no row is usable. A text stands for a row that cannot be read."""
        reasons: dict[str, int] = {}
        found: dict[str, None] = {}
        for row in rows:
            try:
                if isinstance(row, str):
                    raise DataError(row)
                found |= dict.fromkeys(row)
                self.example("0", row)
            except DataError as error:
                reasons[str(error)] = reasons.get(str(error), 0) + 1
            else:
                return
        if reasons:
            raise DataError(self._hopeless(reasons, list(found)))

    def _hopeless(self, reasons: Mapping[str, int], found: list[str]) -> str:
        missing = [column for column in self.wanted if column not in found]
        near = ", ".join(f"{column!r}: did you mean {nearest(column, found)}?" for column in missing) if found else ""
        reason = max(reasons, key=reasons.__getitem__)
        known = (
            ""
            if self.layout != AUTO
            else " or " + ", or ".join(" and ".join(map(repr, NEEDED[layout])) for layout in FOUND_BY_COLUMNS)
        )
        return (
            f"source {self.source!r}: none of {sum(reasons.values()):,} rows can be used, mostly because {reason}. "
            f"Layout {self.layout!r} wants columns {self.wanted}{known}; found are {found}. "
            f"{near + ' ' if near else ''}Set `layout` and `columns` of the source"
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, quoted."""
    return repr(difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0])


def _may_be_missing(key: str, column: str) -> bool:
    # A column of another name than the field was asked for: without it, the map is wrong.
    return key in _OPTIONAL and column == key


def _is_given(row: Mapping[str, Any], key: str, column: str) -> bool:
    """Whether a row says something of a field; all others than optional ones must be there. CSV has no null."""
    if _may_be_missing(key, column) and column not in row:
        return False
    return key not in _OPTIONAL or cell(row, column) not in (None, "")


def _check(example: Example) -> None:
    texts = {"system": example.system, "user": example.user, "answer": example.answer, "reasoning": example.reasoning}
    if not isinstance(example.history, tuple) or not isinstance(example.usage, Mapping | None):
        raise DataError("history must be a list of turns and usage an object")
    for number, turn in enumerate(example.history, start=1):
        texts |= {f"user of turn {number}": turn.user, f"answer of turn {number}": turn.answer}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise DataError(f"{key} is {type(value).__name__}, not text")
        if key not in ("system", "reasoning") and not value.strip():
            raise DataError(f"{key} is empty")
    for key in ("id", "task", "strategy", "teacher", *texts):
        value = texts[key] if key in texts else getattr(example, key)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{key} holds a lone surrogate at character {error.start}") from None


def _without_markers(example: Example) -> Example:
    """The trace out of the answer, where it stands there between markers; none in earlier turns."""
    said = split(example.answer, example.reasoning)
    if not said.closed:
        raise DataError("the answer is a reasoning trace that was cut off before its end")
    if not said.answer.strip():
        raise DataError("answer is empty after its reasoning trace")
    turns = []
    for number, turn in enumerate(example.history, start=1):
        before = split(turn.answer)
        if not before.closed or not before.answer.strip():
            raise DataError(f"answer of turn {number} is a reasoning trace without an answer")
        turns.append(replace(turn, answer=before.answer))
    return replace(example, answer=said.answer, reasoning=said.reasoning, history=tuple(turns))
