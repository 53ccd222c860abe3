"""A file of rows -> a memory-mapped cache. Broken lines stay rows, with their reason.

    line  text                      error
    1     {"user": "1+1?", ...}
    2                               not JSON: Expecting ',' delimiter at character 18
    4     {"user": "2+2?", ...}                                   line 3 was blank

The cache is one Arrow file, named after what it depends on, written to a temporary name and renamed. A file
is imported once, whichever ranks and jobs ask for it at the same time.
"""

import csv
import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from typing_extensions import override

from orca2.errors import DataError
from orca2.hashing import is_unicode

PARSER_VERSION = 1
"""To be raised when the same file would give other rows."""
BATCH_ROWS = 1024
_SHARD = re.compile(r".*-\d+-of-(\d+)\.parquet")
_SCHEMA = pa.schema([("line", pa.int64()), ("text", pa.large_string()), ("error", pa.string())])

Record = tuple[int, str | None, str | None]
"""(line, JSON text of the row or None, why there is none)."""


class StoredRow(NamedTuple):
    """One row of a cache."""

    line: int
    """From 1, as an editor counts; of Parquet the row, from 1."""
    row: dict[str, Any] | None
    error: str | None


class StoredRows:
    """The memory-mapped rows of an imported file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._lines, self._texts, self._errors = (table.column(name).chunks for name in _SCHEMA.names)
        self._size = int(table.num_rows)

    def __len__(self) -> int:
        return self._size

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (str(self._path),)  # a worker process maps the file itself

    def __getitem__(self, row: int) -> StoredRow:
        batch, at = divmod(row, BATCH_ROWS)
        text = self._texts[batch][at].as_py()
        line = self._lines[batch][at].as_py()
        return StoredRow(line, None if text is None else json.loads(text), self._errors[batch][at].as_py())


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
    reader = _reader(files[0])
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
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _write(_renumbered(reader, files) if len(files) > 1 else reader(files[0]), target)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"file {path!r} cannot be imported: {reason}; the file may be damaged or cut off") from error
    return target


def is_text(path: str) -> bool:
    """Whether rows are lines of text, as an editor counts them."""
    return not (path.endswith(".parquet") or Path(path).expanduser().is_dir())


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


def _renumbered(reader: Callable[[Path], Iterator[Record]], files: list[Path]) -> Iterator[Record]:
    """The rows of several files with numbers that go on from file to file."""
    rows = (record for file in files for record in reader(file))
    return ((number, text, error) for number, (_, text, error) in enumerate(rows, start=1))


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "orca2"


def _write(records: Iterator[Record], target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            batch: list[Record] = []
            for record in records:
                batch.append(record)
                if len(batch) == BATCH_ROWS:
                    _write_batch(writer, batch)
                    batch = []
            if batch:
                _write_batch(writer, batch)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_batch(writer: pa.RecordBatchFileWriter, batch: list[Record]) -> None:
    columns = [pa.array(values, kind.type) for values, kind in zip(zip(*batch, strict=True), _SCHEMA, strict=True)]
    writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))


def _reader(path: Path) -> Callable[[Path], Iterator[Record]]:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _READERS or (path.suffix == ".gz" and suffix == ".parquet"):
        raise DataError(f"file {str(path)!r} is of no known kind; known are {sorted(_READERS)}, and .gz of text")
    return _READERS[suffix]


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_jsonl(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        for line, raw in enumerate(file, start=1):
            if line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
                if raw.lstrip().startswith(b"["):
                    raise DataError(f"file {str(path)!r} is a JSON array; write one object per line (JSONL) instead")
            if raw.strip():
                yield (line, *_json_line(raw))


def _json_line(raw: bytes) -> tuple[str | None, str | None]:
    if b"\0" in raw:
        return None, f"NUL byte at byte {raw.index(0)} of the line"
    try:
        text = raw.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: byte {raw[error.start]:#04x} at byte {error.start} of the line"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:
        cut_off = "" if raw.endswith(b"\n") else "; the file ends inside this line"
        reason = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
        return None, f"not JSON: {reason}{cut_off}"
    if not isinstance(row, dict):
        return None, f"not an object but {type(row).__name__}"
    return text.strip(), None


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _opened(path) as file:
        # Undecodable bytes become lone surrogates, which are found again below, row by row.
        lines = (line.decode(errors="surrogateescape") for line in file)
        reader = csv.reader(lines, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, None, f"not CSV: {error}{_lines_taken(line, reader.line_num)}"
                continue
            if header is None:
                header = [cell.removeprefix("\ufeff") for cell in cells]
                if not all(map(is_unicode, header)):
                    raise DataError(f"file {str(path)!r} has a header that is not UTF-8; save the file as UTF-8")
                if len(set(header)) != len(header):
                    raise DataError(f"file {str(path)!r} names a column twice in its header {header}")
            elif cells:
                row, problem = _csv_row(header, cells)
                yield line, row, problem and problem + _lines_taken(line, reader.line_num)


def _lines_taken(first: int, last: int) -> str:
    """A quote that is never closed takes all lines to the next one, or to the end of the file."""
    return f"; lines {first} to {last} were read as this row, so a quote may not be closed" if last > first else ""


def _csv_row(header: list[str], cells: list[str]) -> tuple[str | None, str | None]:
    if len(cells) != len(header):
        return None, f"{len(cells)} cells where the header has {len(header)}"
    for name, cell in zip(header, cells, strict=True):
        if "\0" in cell:
            return None, f"NUL byte in column {name!r}"
        if not is_unicode(cell):
            return None, f"not UTF-8 in column {name!r}"
    return json.dumps(dict(zip(header, cells, strict=True)), ensure_ascii=False), None


def _read_parquet(path: Path) -> Iterator[Record]:
    line = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                line += 1
                yield line, json.dumps(row, ensure_ascii=False, default=_no_json), None


def _no_json(value: Any) -> dict[str, str]:
    # An object where text is wanted: the row is rejected only if a used column holds such a value.
    return {"unreadable": type(value).__name__}


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
