"""A file of rows -> a memory-mapped cache. Broken lines stay rows, with their reason.

    line  text                      error
    1     {"user": "1+1?", ...}
    2                               not JSON: Expecting ',' delimiter at character 18
    4     {"user": "2+2?", ...}                                   line 3 was blank

The cache is one Arrow file, named after what it depends on, written to a temporary name and renamed. A file
is imported once, whichever ranks and jobs ask for it at the same time.
"""

import hashlib
import json
import os
import re
import zlib
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from filelock import FileLock, Timeout
from typing_extensions import override

from orca2.errors import DataError
from orca2.files import fresh
from orca2.rows.decoding import Decoded, Record, Unit, decode

PARSER_VERSION = 2
"""Version of the parser; raise it when the same file would give other rows."""
BATCH_ROWS = 1024
BATCH_BYTES = 2**26
"""A batch is written when it has so many rows or bytes."""
_SHARD = re.compile(r".*-\d+-of-(\d+)\.parquet")
_SCHEMA = pa.schema([("line", pa.int64()), ("text", pa.large_string()), ("error", pa.string())])


class StoredRow(NamedTuple):
    """One row of a cache."""

    line: int
    """Number of the row from 1, in the unit of the file."""
    row: dict[str, Any] | None
    error: str | None


class StoredRows:
    """The memory-mapped rows of an imported file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        # The last batch is empty: what is known only at the end stands beside it.
        batches = [file.get_batch(at) for at in range(file.num_record_batches - 1)]
        about = file.get_batch_with_custom_metadata(file.num_record_batches - 1).custom_metadata
        self.unit: Unit = about["unit"].decode()
        self.digest: str = about["digest"].decode()
        """BLAKE2b of the numbers and texts of all rows: the same for the same content at another place or time."""
        self._ends = list(accumulate(batch.num_rows for batch in batches))
        self._columns = [[batch.column(name) for batch in batches] for name in _SCHEMA.names]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (str(self._path),)  # a worker process maps the file itself

    def __getitem__(self, row: int) -> StoredRow:
        batch = bisect_right(self._ends, row)
        at = row - (self._ends[batch - 1] if batch else 0)
        line, text, error = (column[batch][at].as_py() for column in self._columns)
        return StoredRow(line, None if text is None else json.loads(text), error)


def open_rows(path: str, cache_dir: str | None) -> StoredRows:
    """The rows of a file, imported if it is new or changed. Raises DataError if it cannot be read."""
    return _open(str(import_file(path, cache_dir)))


@cache
def _open(path: str) -> StoredRows:
    return StoredRows(Path(path))


def import_file(path: str, cache_dir: str | None) -> Path:
    """Path of the cache of a file. Raises DataError for a missing, unknown or unreadable file."""
    source = Path(path).expanduser()
    if not source.exists():
        raise DataError(f"file {path!r} cannot be read: No such file or directory; check the path of the source")
    files = shards_of(source) if source.is_dir() else [source]
    key = f"{source.resolve()}|{PARSER_VERSION}"
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(f"file {path!r} cannot be read: {error.strerror}; check the path of the source") from error
        key += f"|{status.st_size}|{status.st_mtime_ns}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    folder = (Path(cache_dir).expanduser() if cache_dir else _default_cache()) / "sources"
    target = folder / f"{source.name}-{digest}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        if not target.exists():
            with FileLock(_lock_of(target)):
                if not target.exists():
                    _write(_one_after_another(files), target)
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:  # a column's name, say
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"file {path!r} cannot be imported: {reason}; the file may be damaged or cut off") from error
    return target


def shards_of(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of its folder `data`, by name.

    Raises DataError where there is none, or where one of `<name>-00000-of-00003.parquet` is missing.
    """
    files = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    if not files:
        raise DataError(
            f"folder {str(folder)!r} holds no Parquet file, nor does its folder `data`; a data set that is still being "
            "made has none yet"
        )
    for file in files:
        if (match := _SHARD.fullmatch(file.name)) and len(files) != int(match[1]):
            raise DataError(
                f"folder {str(file.parent)!r} holds {len(files)} of {int(match[1])} shards; some are missing"
            )
    return files


def _one_after_another(files: list[Path]) -> Decoded:
    """The rows of several files with numbers that go on from file to file."""
    if len(files) == 1:
        return decode(files[0])
    rows = (record for file in files for record in decode(file).records)
    return Decoded("row", ((number, text, error) for number, (_, text, error) in enumerate(rows, start=1)))


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "orca2"


def _lock_of(target: Path) -> str:
    return f"{target}.lock"


def _temporary_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed imports left behind: nobody holds the lock of such a file."""
    for leftover in folder.glob(".*.partial"):
        target = folder / leftover.name.removeprefix(".").removesuffix(".partial")
        try:
            with FileLock(_lock_of(target), timeout=0):
                leftover.unlink(missing_ok=True)
        except Timeout:
            continue  # another process is importing this file


def _write(decoded: Decoded, target: Path) -> None:
    temporary, digest = _temporary_of(target), hashlib.blake2b(digest_size=16)
    try:
        with fresh(temporary) as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            batch: list[Record] = []
            size = 0
            for number, text, error in decoded.records:
                digest.update(f"{number} {'-' if text is None else len(text)} {text or ''}\n".encode())
                batch.append((number, text, error))
                size += len(text or "")
                if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
                    writer.write_batch(_batch_of(batch))
                    batch, size = [], 0
            writer.write_batch(_batch_of(batch))
            writer.write_batch(_batch_of([]), custom_metadata={"unit": decoded.unit, "digest": digest.hexdigest()})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _batch_of(records: list[Record]) -> pa.RecordBatch:
    columns = list(zip(*records, strict=True)) if records else [()] * len(_SCHEMA)
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)
