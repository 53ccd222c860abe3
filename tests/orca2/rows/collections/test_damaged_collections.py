"""Real collections with a tenth of their rows damaged: each damaged row is listed, and every other one is read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orca2.records import Rejected
from orca2.rows.collections.flan_tables import ChainOfThoughtTables
from orca2.rows.collections.mathematics import AquaRat, Gsm8k
from orca2.rows.collections.natural_instructions import NaturalInstructions
from orca2.rows.items import TaskReader

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[5] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not (SHARED / "tasks").is_dir(), reason="the shared data are not here")
SHARE = 0.1

INSTANCES: tuple[Callable[[dict[str, Any]], Any], ...] = (
    lambda row: 5,
    lambda row: None,
    lambda row: {"id": "x", "output": row["output"]},
    lambda row: {"id": "x", "input": row["input"]},
    lambda row: row | {"input": "  "},
    lambda row: row | {"output": []},
    lambda row: row | {"output": [3]},
    lambda row: row | {"output": [""]},
    lambda row: row | {"id": 7},
)
BYTES: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[: len(line) // 2],
    lambda line: b"[1]",
    lambda line: b"null",
    lambda line: b"\xff" + line,
    lambda line: b"{" * 9999,
    lambda line: b"{}",
)
CELLS: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line.replace(b"\t", b" "),
    lambda line: line + b"\textra",
    lambda line: b"\t\t",
    lambda line: b"question\t\treason",
    lambda line: b"\xff" + line,
)


def check(reader: TaskReader, rows: int, damaged: set[str]) -> None:
    """Every damaged row and no other is rejected, with a reason."""
    read = list(reader.stream())
    rejected = {row.row: row.reason for row in read if isinstance(row, Rejected)}
    assert set(rejected) == damaged and all(rejected.values())
    assert len(read) == rows > len(damaged) > 0.5 * SHARE * rows


def damage_lines(source: Path, copy: Path, ways: tuple[Callable[[bytes], bytes], ...]) -> tuple[int, set[str]]:
    rng, damaged, lines = Random(7), set(), source.read_bytes().rstrip(b"\n").split(b"\n")
    for number, line in enumerate(lines):
        if rng.random() < SHARE:
            lines[number] = rng.choice(ways)(line)
            damaged.add(f"{copy.name}:{number + 1}")
    copy.write_bytes(b"\n".join(lines) + b"\n")
    return len(lines), damaged


def test_natural_instructions(tmp_path: Path) -> None:
    """One bad instance must cost neither its neighbours nor its file."""
    rng, damaged, rows = Random(7), set(), 0
    for path in sorted((SHARED / "tasks" / "natural_instructions").glob("task*.json")):
        content = json.loads(path.read_text())
        for place, row in enumerate(content["Instances"]):
            rows += 1
            if rng.random() < SHARE:
                content["Instances"][place] = rng.choice(INSTANCES)(row)
                damaged.add(f"{path.name}:Instances[{place}]")
        (tmp_path / path.name).write_text(json.dumps(content))
    check(NaturalInstructions(name="ni", folder=str(tmp_path)), rows, damaged)


def test_lines_of_json(tmp_path: Path) -> None:
    """A line that is cut off, of another type, or not text at all."""
    copy = tmp_path / "train.jsonl"
    rows, damaged = damage_lines(SHARED / "benchmarks" / "gsm8k" / "train.jsonl", copy, BYTES)
    check(Gsm8k(name="gsm8k", path=str(copy)), rows, damaged)
    copy = tmp_path / "dev.json"
    rows, damaged = damage_lines(SHARED / "tasks" / "aqua_rat" / "dev.json", copy, BYTES)
    check(AquaRat(name="aqua_rat", path=str(copy)), rows, damaged)


def test_tables(tmp_path: Path) -> None:
    """A row that lost a tab, or gained one, must not shift the others."""
    rows, damaged = damage_lines(
        SHARED / "tasks" / "flan_cot" / "qasc_train.tsv", tmp_path / "qasc_train.tsv", CELLS
    )  # fmt: skip
    tables = ChainOfThoughtTables(name="cot", folder=str(tmp_path), pattern="*_train.tsv", licence="x")
    check(tables, rows, damaged)
