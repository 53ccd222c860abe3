"""One stored row -> Example. A layout knows how the row's columns hold a conversation.

    columns    {"q": "1+1?", "a": "2"}  with  columns: {user: q, answer: a}
    messages   {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    sharegpt   {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]}
    gsm8k      {"question": "...", "answer": "... <<1+1=2>>2 ...\\n#### 2"}

What no column gives comes from `constants`: texts for any field of an Example.
"""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from orca2.data.source import Survey
from orca2.errors import ConfigError, DataError
from orca2.reasoning import split
from orca2.records import UNLABELLED, Example, Rejected, Turn
from orca2.strategies import StrategyChoice

Fields = dict[str, Any]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
_OPTIONAL = ("id", "reasoning", "suggested", "gold", "verdict", "lineage", "usage", "history")
_LABELS = ("task", "strategy", "suggested")
_NOT_TEXT = ("usage", "history")
_TRACES = ("reasoning", "reasoning_content")
"""Columns that hold the trace of a reasoning model; read where a row has one, whether or not a source names it."""
_FIELDS = tuple(column.name for column in fields(Example) if column.name != "source")
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_FINAL = re.compile(r"\n####[ \t]*(\S[^\n]*?)\s*$")


def _columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    return {}


def _messages(row: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    return _conversation(_cell(row, columns.get("messages", "messages")), "role", "content")


def _sharegpt(row: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    return _conversation(_cell(row, columns.get("messages", "conversations")), "from", "value")


def _gsm8k(row: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    """The official form. Calculator annotations `<<48/2=24>>` are removed, and the last line `#### 72` is
    `Answer: 72`, without thousands separators. The number is the gold answer."""
    solution = _cell(row, "answer")
    if not isinstance(solution, str):
        raise DataError(f"column 'answer' holds {type(solution).__name__}, not text")
    final = _FINAL.search(solution)
    if final is None:
        raise DataError("column 'answer' does not end with a line '#### <number>'")
    gold = final[1].replace(",", "")
    text = _CALCULATOR.sub("", solution[: final.start()]).strip()
    return {
        "task": "gsm8k",
        "teacher": "gold",
        "user": _cell(row, "question"),
        "answer": f"{text}\nAnswer: {gold}".lstrip(),
        "gold": gold,
    }


LAYOUTS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, str]], Fields]] = {
    "columns": _columns,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "gsm8k": _gsm8k,
}
_NEEDED = {
    "columns": (),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "gsm8k": ("question", "answer"),
}


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

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"source {self.source!r}: unknown layout {self.layout!r}; allowed are {sorted(LAYOUTS)}")
        for key in (*self.columns, *self.constants):
            if key not in _FIELDS and not (key == "messages" and self.layout in ("messages", "sharegpt")):
                raise ConfigError(
                    f"source {self.source!r}: {key!r} is no field of an example; "
                    f"did you mean {nearest(key, _FIELDS)}? Allowed are {list(_FIELDS)}"
                )
        if self.layout == "columns" and not {"user", "answer"} <= {*self.columns, *self.constants}:
            raise ConfigError(f"source {self.source!r}: name the columns of 'user' and 'answer' under `columns`")

    @property
    def wanted(self) -> list[str]:
        """The columns that every row must have."""
        turns = [self.columns["messages"]] if "messages" in self.columns else list(_NEEDED[self.layout])
        needed = (column for key, column in self.columns.items() if not _may_be_missing(key, column))
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
        """Raises DataError where a column is missing or no text."""
        task = self.source if self.layout != "gsm8k" else "gsm8k"
        known: dict[str, str | None] = {"task": task, "strategy": UNLABELLED, "suggested": None, **self.constants}
        for key in _LABELS:
            if key in self.columns and _is_given(row, key, self.columns[key]):
                known[key] = _text(_cell(row, self.columns[key]), self.columns[key])
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
        """As `survey` for rows that have no label columns: all of them are alike."""
        one = self.survey([{}], choice)
        return Survey(size) if one.kept else Survey(0, Counter(dict.fromkeys(one.left_out, size)))

    def example(self, row_id: str, row: Mapping[str, Any]) -> Example:
        """Raises DataError with the reason why the row cannot train."""
        values: Fields = {"task": self.source, "strategy": UNLABELLED, "system": "", "teacher": "unknown"}
        values |= LAYOUTS[self.layout](row, self.columns) | dict(self.constants)
        for key, column in self.columns.items():
            if key == "messages" or not _is_given(row, key, column):
                continue
            value = _cell(row, column)
            if key == "system" and value is None:
                value = ""
            values[key] = value if key in _NOT_TEXT else _text(value, column)
        if isinstance(values.get("history"), list):
            values["history"] = _history(values["history"])
        if "reasoning" not in values:
            values["reasoning"] = next((row[key] for key in _TRACES if isinstance(row.get(key), str)), "")
        row_id = values.pop("id", row_id)
        example = Example(id=f"{self.source}/{row_id}", source=self.source, **values)
        _check(example)
        return _without_markers(example)

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
        return (
            f"source {self.source!r}: none of the first {sum(reasons.values())} rows can be used, mostly "
            f"because {reason}. Layout {self.layout!r} wants columns {self.wanted}; found are {found}. "
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
    return key not in _OPTIONAL or _cell(row, column) not in (None, "")


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise DataError(f"column {column!r} is missing")
    return row[column]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"column {where!r} holds {'nothing' if value is None else type(value).__name__}, not text")
    return value


def _conversation(turns: Any, role_key: str, text_key: str) -> Fields:
    """[system] (user assistant)+ -> system, history, user, answer."""
    if not isinstance(turns, list) or not turns:
        raise DataError("the conversation is no list of turns" if turns else "the conversation is empty")
    said: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get(role_key), str):
            raise DataError(f"turn {number} is no object with a text {role_key!r}")
        role = turn[role_key]
        if role not in _ROLES:
            raise DataError(f"turn {number} has the role {role!r}; known are {sorted(_ROLES)}")
        if not isinstance(turn.get(text_key), str):
            raise DataError(f"turn {number} has no text {text_key!r}")
        said.append((_ROLES[role], turn[text_key]))
    system = said.pop(0)[1] if said[0][0] == "system" else ""
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2) or not said:
        raise DataError(
            f"turns must alternate user, assistant and end with assistant; they are {[role for role, _ in said][:6]}"
        )
    texts = [text for _, text in said]
    turns_before = tuple(
        Turn(user=user, answer=answer) for user, answer in zip(texts[:-2:2], texts[1:-2:2], strict=True)
    )
    return {"system": system, "history": turns_before, "user": texts[-2], "answer": texts[-1]}


def _history(turns: list[Any]) -> tuple[Turn, ...]:
    if not all(isinstance(turn, Mapping) and {"user", "answer"} <= set(turn) for turn in turns):
        raise DataError("history must be a list of objects with 'user' and 'answer'")
    return tuple(Turn(user=turn["user"], answer=turn["answer"]) for turn in turns)


def _check(example: Example) -> None:
    texts = {"system": example.system, "user": example.user, "answer": example.answer, "reasoning": example.reasoning}
    if not isinstance(example.history, tuple) or not isinstance(example.usage, Mapping | None):
        raise DataError("history must be a list of turns and usage an object")
    for number, turn in enumerate(example.history, start=1):
        texts |= {f"user of turn {number}": turn.user, f"answer of turn {number}": turn.answer}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise DataError(f"{key} is {type(text).__name__}, not text")
        if key not in ("system", "reasoning") and not text.strip():
            raise DataError(f"{key} is empty")
    for key in ("id", "task", "strategy", "teacher", *texts):
        text = texts[key] if key in texts else getattr(example, key)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{key} holds a lone surrogate at character {error.start}") from None


def _without_markers(example: Example) -> Example:
    """The trace out of the answer, where it stands there between markers; none in earlier turns."""
    said = split(example.answer)
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
    trace = "\n\n".join(filter(None, (example.reasoning.strip(), said.reasoning)))
    return replace(example, answer=said.answer, reasoning=trace, history=tuple(turns))
