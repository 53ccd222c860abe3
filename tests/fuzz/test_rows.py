"""Stored rows of every kind of file and every layout: examples, reasons, or one error; never a traceback."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orca2.records import Example
from orca2.rows.conversations import read_conversation, read_history
from orca2.rows.decoding import _KINDS as SUFFIXES
from orca2.rows.importing import StoredRows, import_file
from orca2.rows.layouts import AUTO, LAYOUTS
from orca2.rows.parsing import RowParser
from orca2.rows.row_files import FileSource
from orca2.strategies import AnyStrategy
from tests.fuzz.mutations import DEEP, FILE_LOOPS, LOOPS, ROWS_SECONDS, Mutator, attack
from tests.linear_time import assert_linear

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>one and one</think>2", "weight": 0},
    {"role": "user", "content": [{"type": "text", "text": "And 2+2?"}]},
    {"role": "assistant", "content": "4", "reasoning_content": "two and two", "tool_calls": None},
]
SHAREGPT = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}, {"from": "human", "value": "?"}]
ROWS: dict[str, dict[str, Any]] = {
    "columns": {
        "user": "1+1?", "answer": "2", "system": "Add.", "task": "sums", "strategy": "direct", "id": "7",
        "history": [["Hi?", "Hello."], {"user": "a", "answer": "b"}], "usage": {"prompt_tokens": 3}, "reasoning": "r",
        "suggested": "direct", "gold": "2", "verdict": "right", "lineage": "f#1",
    },
    "messages": {"messages": CHAT, "system": "", "history": '[["a", "b"]]', "extra": 1},
    "sharegpt": {"conversations": SHAREGPT, "system": "Be brief."},
    "completion": {"prompt": CHAT[:2], "completion": [CHAT[4]]},
    "alpaca": {"instruction": "Add.", "input": "1+1", "output": "2"},
    "gsm8k": {"question": "48 clips?", "answer": "48/2 = <<48/2=24>>24 clips\nSo 72.\n#### 1,072"},
}  # fmt: skip
ALL = AnyStrategy(name="any")
PAIR = {"user": "user", "answer": "answer", "task": "task", "strategy": "strategy"}
TABLE = 'user,answer,system\n"1+1, or?",2,"say ""hi""\nplease"\nx,y,\né,日本,🙂\n'
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS.values())
FILES: dict[str, bytes] = {
    ".jsonl": LINES.encode(),
    ".ndjson": LINES.encode(),
    ".json": json.dumps([*ROWS.values(), {"a": '[{\\"]}'}], indent=1, ensure_ascii=False).encode(),
    ".csv": TABLE.encode(),
    ".parquet": b"",
}
"""Ending -> a file of that kind; Parquet's is made by the test."""
FILE_INPUTS, PARQUET_INPUTS, ROW_INPUTS, TURN_INPUTS, SOURCE_INPUTS = 1_000, 2_000, 4_000, 6_000, 500
"""Inputs of each kind of text file and its `.gz`; of tables; of each layout; of conversations; of whole sources."""
INPUTS = (
    2 * (len(FILES) - 1) * FILE_INPUTS + PARQUET_INPUTS + (len(ROWS) + 1) * ROW_INPUTS + 2 * TURN_INPUTS
    + SOURCE_INPUTS
)  # fmt: skip


def read_file(path: Path, content: bytes) -> None:
    """Through the cache, as every source does, to rows or reasons. The cache is left empty."""
    path.write_bytes(content)
    cached = import_file(str(path), str(path.parent / "cache"))
    try:
        rows = StoredRows(cached)
        for at in range(len(rows)):
            line, row, reason = rows[at]
            assert line >= 1 and isinstance(row, dict) is (reason is None)
    finally:
        cached.unlink()


def test_every_kind_of_file_and_layout_is_here() -> None:
    """A new kind of file or layout must not go unfuzzed."""
    assert set(FILES) == set(SUFFIXES) and set(ROWS) == set(LAYOUTS)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [suffix for suffix in FILES if suffix != ".parquet"])
def test_text_files(suffix: str, packed: bool, tmp_path: Path) -> None:
    """A damaged file ended a run in a traceback of a library."""
    path = tmp_path / f"rows{suffix}{'.gz' * packed}"
    seed = FILES[suffix]
    whole = gzip.compress(seed, 1)

    def make(mutator: Mutator) -> bytes:
        if packed and mutator.draw.random() < 0.5:
            return mutator.data(whole)
        content = mutator.data(seed)
        return gzip.compress(content, 1) if packed else content

    attack(path.name, FILE_INPUTS, make, lambda content: read_file(path, content))


def tables() -> list[bytes]:
    """Parquet files of texts, nested columns, bytes, times and numbers."""
    when = pa.array([0, 2**62, None], pa.timestamp("us"))
    columns = {"user": ["a", "é", None], "answer": ["b", "", "c"], "messages": [CHAT[:1], [], None], "n": [1, 2, 3],
               "bytes": [b"x", b"\xff", None], "when": when}  # fmt: skip
    made = []
    for names in (list(columns), ["user", "answer"], ["messages"]):
        for compression in ("none", "snappy"):
            file = io.BytesIO()
            pq.write_table(pa.table({name: columns[name] for name in names}), file, compression=compression)
            made.append(file.getvalue())
    return made


@pytest.mark.slow
def test_parquet_files(tmp_path: Path) -> None:
    """A damaged table ended a run in a traceback; most damage is in its first and last bytes, where lengths stand."""
    path, seeds = tmp_path / "rows.parquet", tables()

    def make(mutator: Mutator) -> bytes:
        seed = mutator.draw.choice(seeds)
        if mutator.draw.random() < 0.3:
            return mutator.data(seed)
        content = bytearray(seed)
        for _ in range(mutator.draw.randint(1, 6)):
            content[mutator.draw.randrange(len(content))] = mutator.draw.randrange(256)
        return bytes(content)

    attack("parquet", PARQUET_INPUTS, make, lambda content: read_file(path, content))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [AUTO, *ROWS])
def test_rows_of_every_layout(layout: str) -> None:
    """A row of a strange shape must cost itself alone, not the run."""
    parser = RowParser(source="s", layout=layout, columns=PAIR if layout == "columns" else {})
    seeds = list(ROWS.values()) if layout == AUTO else [ROWS[layout]]
    keys = sorted({key for row in ROWS.values() for key in row})

    def read(row: dict[str, Any]) -> None:
        parser.notes(row)
        parser.survey([row], ALL)
        found = parser.read("line 1", "1", row, ALL)
        if isinstance(found, Example):
            assert found.user.strip() and found.answer.strip()
            assert all(turn.user.strip() and turn.answer.strip() for turn in found.history)
            for text in (found.id, found.task, found.strategy, found.system, found.user, found.answer, found.reasoning):
                text.encode()
        parser.check_first([row])

    def make(mutator: Mutator) -> dict[str, Any]:
        changed = mutator.value(mutator.draw.choice(seeds), keys)
        return changed if isinstance(changed, dict) else {"messages": changed}

    attack(f"layout {layout}", ROW_INPUTS, make, read)


@pytest.mark.slow
@pytest.mark.parametrize("read", [lambda turns: read_conversation(turns, "join"), read_history])
def test_turns(read: Callable[[Any], object]) -> None:
    """Conversations and histories, also as the texts that tables hold."""
    seeds = [CHAT, SHAREGPT, [["a", "b"]], [{"user": "a", "answer": "b", "loss": False}]]

    def make(mutator: Mutator) -> Any:
        turns = mutator.value(mutator.draw.choice(seeds), ("role", "from", "content", "value", "weight", "thinking"))
        return turns if mutator.draw.random() < 0.8 else mutator.text(json.dumps(turns))

    attack("turns", TURN_INPUTS, make, read)


@pytest.mark.slow
def test_whole_sources(tmp_path: Path) -> None:
    """A file, its layout and its counts together, as training meets them."""
    path = tmp_path / "rows.jsonl"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        source = FileSource(name="s", path=str(path), layout="auto", cache_dir=str(tmp_path / "cache"))
        source.prepare()
        for row in range(source.size):
            source.read(row, ALL)
            source.notes(row)

    attack("source", SOURCE_INPUTS, lambda mutator: mutator.data(LINES.encode()), read)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [suffix for suffix in FILES if suffix != ".parquet"])
def test_files_are_read_in_linear_time(suffix: str, tmp_path: Path) -> None:
    """One sign all over a file, as a broken writer or an attacker leaves it."""
    path = tmp_path / f"rows{suffix}"
    for piece in FILE_LOOPS:
        for head in ("", FILES[suffix].decode()[:40]):
            assert_linear(
                lambda content: read_file(path, content),
                lambda length: (head + piece * (length // len(piece))).encode(),  # noqa: B023
                (head, piece),
                ROWS_SECONDS,
            )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ROWS)
def test_rows_are_read_in_linear_time(layout: str) -> None:
    """One sign all over a text of a row."""
    parser = RowParser(source="s", layout=layout, columns=PAIR if layout == "columns" else {})
    texts = [(key, value) for key, value in ROWS[layout].items() if isinstance(value, str)] or [("answer", "a")]
    for piece in LOOPS:
        for key, value in texts:
            for shape in ("{}", value + "{}y", "{}" + value, "\n#### a{}b"):
                assert_linear(
                    lambda row: (parser.example("1", row), parser.notes(row)),
                    lambda length: ROWS[layout] | {key: shape.replace("{}", piece * (length // len(piece)))},  # noqa: B023
                    (key, piece[:20], shape),
                )


@pytest.mark.parametrize("name", ["deep.jsonl", "deep.json", "deep.csv"])
def test_brackets_without_end_cost_a_row(name: str, tmp_path: Path) -> None:
    """Python's parser goes a thousand brackets down, and then raised what no reader expected."""
    shapes = {"deep.jsonl": '{"a": %s}\n', "deep.json": "[%s]", "deep.csv": "a\n%s\n"}
    read_file(tmp_path / name, (shapes[name] % ("[" * DEEP + "]" * DEEP)).encode())
