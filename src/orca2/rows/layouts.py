"""How the columns of a stored row hold a question and its answer.

    columns      {"q": "1+1?", "a": "2"}  with  columns: {user: q, answer: a}
    messages     {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    sharegpt     {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]}
    completion   {"prompt": "1+1?", "completion": "2"}, each a text or a list of messages, as in TRL
    alpaca       {"instruction": "Add.", "input": "1+1", "output": "2"}
    gsm8k        {"question": "...", "answer": "... <<1+1=2>>2 ...\\n#### 2"}
    auto         the first of columns, messages, sharegpt, completion and alpaca whose columns a row has

In every layout a column `system` holds the row's system message and `history` its earlier turns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orca2.errors import DataError
from orca2.rows.conversations import Note, RepeatedTurns, StoredConversation, as_list, read_conversation, read_history

Row = Mapping[str, Any]

AUTO = "auto"
PLAIN = {"user": "user", "answer": "answer"}
"""The columns of the layouts `columns` and `auto` where nobody named others."""
_SYSTEM, _HISTORY = "system", "history"
_CALCULATOR = re.compile(r"<<[^<>]*>>")
FINAL_MARK = "####"
"""GSM8K's mark of the final answer."""


@dataclass(frozen=True)
class Parsed:
    """What a layout finds in a row."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Field of an Example -> value."""
    notes: list[Note] = field(default_factory=list)


def _columns(row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    return Parsed()


def _messages(row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    return _of(read_conversation(cell(row, columns.get("messages", "messages")), repeated))


def _sharegpt(row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    return _of(read_conversation(cell(row, columns.get("messages", "conversations")), repeated))


def _completion(row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    """TRL's pair: the turns of the prompt bear no loss, those of the completion do."""
    prompt, completion = cell(row, "prompt"), cell(row, "completion")
    if isinstance(prompt, str) and isinstance(completion, str) and not prompt.lstrip().startswith("[{"):
        return Parsed({"user": prompt, "answer": completion})
    before = _turns(prompt, "user", "column 'prompt'")
    after = _turns(completion, "assistant", "column 'completion'")
    return _of(read_conversation([*before, *after], repeated, prompt=len(before)))


def _alpaca(row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    instruction, more = text(cell(row, "instruction"), "instruction"), row.get("input")
    if more is not None and not isinstance(more, str):
        raise DataError(f"column 'input' holds {type(more).__name__}, not text")
    user = f"{instruction}\n\n{more}" if more and more.strip() else instruction
    return Parsed({"user": user, "answer": text(cell(row, "output"), "output")})


def _gsm8k(row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    """The official form. Calculator annotations `<<48/2=24>>` are removed, and the last line `#### 72` is
    `Answer: 72`, without thousands separators. The number is the gold answer."""
    solution = text(cell(row, "answer"), "answer")
    before, line_break, final = solution.rstrip().rpartition("\n")
    stated = final.removeprefix(FINAL_MARK).strip()
    if not line_break or not final.startswith(FINAL_MARK) or not stated:
        raise DataError("column 'answer' does not end with a line '#### <number>'")
    gold = stated.replace(",", "")
    steps = _CALCULATOR.sub("", before).strip()
    return Parsed(
        {
            "task": "gsm8k",
            "teacher": "gold",
            "user": cell(row, "question"),
            "answer": f"{steps}\nAnswer: {gold}".lstrip(),
            "gold": gold,
        }
    )


LAYOUTS: Mapping[str, Callable[[Row, Mapping[str, str], RepeatedTurns], Parsed]] = {
    "columns": _columns,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "completion": _completion,
    "alpaca": _alpaca,
    "gsm8k": _gsm8k,
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "columns": (),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
    "gsm8k": ("question", "answer"),
}
"""Layout -> the columns that a row must have; those of `columns` are named by its map."""
_MAY_HAVE = {"alpaca": ("input",)}
FOUND_BY_COLUMNS = ("messages", "sharegpt", "completion", "alpaca")
"""The layouts that `auto` knows by their columns."""


def layout_of(row: Row, columns: Mapping[str, str]) -> str:
    """The layout that `auto` reads a row by. A map with other columns for `user` or `answer` is a wish for them."""
    mine = PLAIN | dict(columns)
    if {mine["user"], mine["answer"]} <= row.keys():
        return "columns"
    if any(mine[key] != PLAIN[key] for key in PLAIN):
        return "columns"
    return next((name for name in FOUND_BY_COLUMNS if set(NEEDED[name]) <= row.keys()), "columns")


def read_row(layout: str, row: Row, columns: Mapping[str, str], repeated: RepeatedTurns) -> Parsed:
    """The fields that a layout other than `auto` finds in a row, with its columns `system` and `history`, and notes of
    what is not used. Raises DataError with the reason why the row cannot train."""
    parsed = LAYOUTS[layout](row, columns, repeated)
    used = {*NEEDED[layout], *_MAY_HAVE.get(layout, ()), *columns.values()}
    system = row.get(_SYSTEM)
    if _SYSTEM not in columns and isinstance(system, str):
        own = parsed.fields.get("system", "")
        if own.strip() and system.strip() and own.strip() != system.strip():
            raise DataError("the row has a system message in its conversation and another in its column 'system'")
        parsed.fields["system"] = own if own.strip() else system
        used.add(_SYSTEM)
    history = row.get(_HISTORY)
    is_text = isinstance(history, str) and (not history or history.lstrip().startswith("["))  # as tables hold a list
    if _HISTORY not in columns and (isinstance(history, list) or is_text):
        parsed.fields["history"] = (*read_history(history or []), *parsed.fields.get("history", ()))
        used.add(_HISTORY)
    unused = sorted(name for name in row if name not in used and row[name] not in (None, "", [], {}))
    parsed.notes.extend(("have columns that are not used", name) for name in unused)
    return parsed


def cell(row: Row, column: str) -> Any:
    """Raises DataError where the column is missing."""
    if column not in row:
        raise DataError(f"column {column!r} is missing")
    return row[column]


def text(value: Any, where: str) -> str:
    """Raises DataError where a value of column `where` is not a text."""
    if not isinstance(value, str):
        raise DataError(f"column {where!r} holds {'nothing' if value is None else type(value).__name__}, not text")
    return value


def _of(conversation: StoredConversation) -> Parsed:
    *history, last = conversation.turns
    fields = {"system": conversation.system, "user": last.user, "answer": last.answer, "history": tuple(history)}
    if conversation.reasoning:
        fields["reasoning"] = conversation.reasoning
    return Parsed(fields, conversation.notes)


def _turns(value: Any, role: str, what: str) -> list[Any]:
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        return [{"role": role, "content": value}]
    return as_list(value, what)
