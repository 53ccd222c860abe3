"""The files of a data set: Parquet shards and lists of JSON lines, each written whole or not at all.

    rows in their order ──▶ train-00000-of-00003.parquet   shard_rows rows      the name says how many there are, so
                            train-00001-of-00003.parquet   shard_rows rows      a folder that lacks one is seen to
                            train-00002-of-00003.parquet   the rest

The same rows give the same bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from orca2.errors import DataError
from orca2.files import fresh
from orca2.serving.outcomes import Usage
from orca2.synthesis.spill import clear_disk_errors

GROUP_ROWS = 10_000
"""Rows in memory while a shard is written, and of one Parquet row group; ours."""

_TURN = pa.struct([("user", pa.string()), ("answer", pa.string())])
_USAGE = pa.struct([(field.name, pa.int64()) for field in fields(Usage)])
_TEXTS = ("id", "source", "task", "strategy", "system", "user", "answer", "teacher", "reasoning")
EXAMPLES = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
        ("history", pa.list_(_TURN)),
        ("suggested", pa.string()),
        ("gold", pa.string()),
        ("verdict", pa.string()),
        ("lineage", pa.string()),
        ("usage", _USAGE),
    ]
)
"""The fields of `orca2.records.Example`."""
ANSWERS = pa.schema([*EXAMPLES, ("sample", pa.int64()), ("reason", pa.string())])
"""An answer that was not kept: as an example, with its number among the item's answers and why it was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """One file of a data set."""

    rows: int
    bytes: int
    sha256: str


def write_shards(
    rows: Iterator[Mapping[str, Any]], total: int, schema: pa.Schema, folder: Path, stem: str, shard_rows: int
) -> dict[str, WrittenFile]:
    """Write `total` rows as shards of `shard_rows`; returns name of file -> what it holds.

    Shards of an earlier division are removed. Raises DataError where there are fewer rows, or no room.
    """
    count = math.ceil(total / shard_rows)
    files: dict[str, WrittenFile] = {}
    with clear_disk_errors(folder):
        if count:
            folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = folder / f"{stem}-{number:05d}-of-{count:05d}.parquet"
            wanted = min(shard_rows, total - number * shard_rows)
            with _whole(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
                _write_groups(writer, rows, wanted, schema)
            files[path.name] = _written(path, wanted)
        for old in folder.glob(f"{stem}-*.parquet"):
            if old.name not in files:
                old.unlink()
    return files


def write_lines(rows: Iterator[Mapping[str, Any]], path: Path) -> WrittenFile:
    """Write rows as JSON lines."""
    count = 0
    # Half a surrogate pair of a broken row becomes its JSON escape.
    errors = "backslashreplace"
    with (
        clear_disk_errors(path),
        _whole(path) as file,
    ):
        for row in rows:
            file.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors=errors))
            count += 1
    return _written(path, count)


def _write_groups(writer: pq.ParquetWriter, rows: Iterator[Mapping[str, Any]], wanted: int, schema: pa.Schema) -> None:
    names = set(schema.names)
    left = wanted
    while left:
        group = [{key: row[key] for key in names & row.keys()} for row in islice(rows, min(left, GROUP_ROWS))]
        if len(group) < min(left, GROUP_ROWS):
            raise DataError(f"{left - len(group)} rows are missing: the folder `work` was changed; delete it")
        writer.write_table(pa.Table.from_pylist(group, schema=schema))
        left -= len(group)


def _written(path: Path, rows: int) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(rows=rows, bytes=path.stat().st_size, sha256=digest)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that becomes `path` when all went well."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with fresh(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
