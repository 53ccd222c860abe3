"""Bytes of a file -> its rows as JSON texts, one at a time: JSONL, a JSON array, CSV or Parquet.

    rows.json    [{"user": "1+1?"},           (1, '{"user": "1+1?"}', None)
                  {"user": 2+2},              (2, None, "not JSON: Expecting ',' delimiter at character 10")
                  ...]

At most one row of `MAX_ROW_BYTES` is held, however large a file, a row or an unpacked `.gz` is. Only Parquet
has to decode 64 rows before it can measure them.
"""

import csv
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pyarrow.parquet as pq

from orca2.errors import DataError
from orca2.hashing import is_unicode

MAX_ROW_BYTES = 8 * 2**20
"""Bytes of one row's text; ours: about two million tokens, more than a student's context. A longer row is rejected."""
PARQUET_ROWS = 64
"""Rows of a Parquet file that are decoded at once."""
_CHUNK_BYTES = 2**16
_TOO_LONG = f"longer than {MAX_ROW_BYTES // 2**20} MiB, the most that a row may have"
_BLANK = b" \t\r\n"
_OUTSIDE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)
"""A whole text, or a sign that counts outside of texts; a quote alone begins a text that ends in a later chunk."""
_INSIDE = re.compile(rb'["\\]')

Record = tuple[int, str | None, str | None]
"""(number from 1, JSON text of the row or None, why there is no text)."""

Unit = Literal["line", "item", "row"]
"""What the numbers count: lines as an editor shows them, items of a JSON array, or rows of a table."""


class Decoded(NamedTuple):
    """The rows of a file, to be read once."""

    unit: Unit
    records: Iterator[Record]


def decode(path: Path) -> Decoded:
    """Raises DataError for a file of another kind; its rows raise what reading and unpacking raise."""
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in _KINDS or (path.suffix == ".gz" and suffix == ".parquet"):
        raise DataError(f"file {str(path)!r} is of no known kind; known are {sorted(_KINDS)}, and .gz of text")
    return _KINDS[suffix](path)


def json_row(raw: bytes, *, whole: bool = True) -> tuple[str | None, str | None]:
    """The text of one JSON object, or why it is not one; not `whole` if the file ended inside it."""
    if b"\0" in raw:
        return None, f"NUL byte at byte {raw.index(0)} of the row"
    try:
        text = raw.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: byte {raw[error.start]:#04x} at byte {error.start} of the row"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:
        cut_off = "" if whole else "; the file ends inside this row"
        reason = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
        return None, f"not JSON: {reason}{cut_off}"
    if not isinstance(row, dict):
        return None, f"not an object but {type(row).__name__}"
    return text.strip(), None


def _opened(path: Path) -> BinaryIO:
    """The bytes of a text file, after the mark of UTF-8 if there is one. Raises DataError for UTF-16."""
    opened = gzip.open if path.suffix == ".gz" else open
    file: BinaryIO = opened(path, "rb")  # type: ignore[assignment]
    try:
        start = file.read(3)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"file {str(path)!r} is UTF-16; save it as UTF-8")
        file.seek(3 if start == b"\xef\xbb\xbf" else 0)
    except BaseException:
        file.close()
        raise
    return file


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines with their ends; None for one that is too long, of which no more than a part is ever held."""
    while line := file.readline(MAX_ROW_BYTES + 2):
        if len(line) <= MAX_ROW_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (part := file.readline(_CHUNK_BYTES)) and not part.endswith(b"\n"):
            pass
        yield None


def _decode_json(path: Path) -> Decoded:
    """Lines, or the items of an array where a bracket is the first sign."""
    with _opened(path) as file:
        first = next((chunk.lstrip() for chunk in iter(lambda: file.read(_CHUNK_BYTES), b"") if chunk.strip()), b"")
    if first.startswith(b"["):
        return Decoded("item", _read_items(path))
    line, line_end, _ = first.partition(b"\n")
    if line_end and line.rstrip()[-1:] in (b"{", b"[", b",") and json_row(line)[0] is None:
        raise DataError(
            f"file {str(path)!r} is one JSON object over several lines; what can be read is an array of objects, "
            "`[{...}, {...}]`, and one object a line. `jq -c '.data[]' in.json > out.jsonl` takes out the list of a key"
        )
    return Decoded("line", _read_lines(path))


def _read_lines(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        for number, raw in enumerate(_lines(file), start=1):
            if raw is None:
                yield number, None, _TOO_LONG
            elif raw.strip():
                yield (number, *json_row(raw, whole=raw.endswith(b"\n")))


def _read_items(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        scanner, number, problem = _ItemScanner(file, path), 0, None
        for number, raw in enumerate(scanner, start=1):
            text, problem = (None, _TOO_LONG) if raw is None else json_row(raw, whole=scanner.ended)
            yield number, text, problem
        if not scanner.closed and (scanner.ended or problem is None):
            yield number + 1, None, "the file ends before its JSON array does: it was cut off here"


class _ItemScanner:
    """Cuts an array into its items at the commas and brackets outside of texts, without understanding them: a broken
    item costs itself alone, unless its brackets or quotes are not closed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._depth, self._in_text, self._escaped = 0, False, False
        self.closed = False
        """Whether the array came to its end."""
        self.ended = True
        """Whether the item that was given last came to its end."""

    def __iter__(self) -> Iterator[bytes | None]:
        """The items; None for one that is too long, of which no more than a part is ever held."""
        item, too_long = bytearray(), False
        for chunk in iter(lambda: self._file.read(_CHUNK_BYTES), b""):
            start = 0
            for end, is_start in self._borders(chunk):
                item += chunk[start:end]
                start = end + 1
                # `[]` has no item, nor has what stands before the bracket that closes `[1, 2, ]`.
                if not is_start and (item.strip() or too_long or not self.closed):
                    yield None if too_long or len(item) > MAX_ROW_BYTES else bytes(item).strip()
                item.clear()
                too_long = False
            item += chunk[start:]
            if self.closed:
                self._refuse_more(item)
            if self.closed or len(item) > MAX_ROW_BYTES:
                too_long = not self.closed
                item.clear()
        if not self.closed and (item.strip() or too_long):
            self.ended = False
            yield None if too_long else bytes(item).strip()

    def _borders(self, chunk: bytes) -> Iterator[tuple[int, bool]]:
        """Places in a chunk where an item ends, and with True the place of the bracket that opens the array."""
        at = int(self._escaped)
        self._escaped = False
        while not self.closed and (match := (_INSIDE if self._in_text else _OUTSIDE).search(chunk, at)):
            at, sign = match.end(), match[0]
            if sign == b"\\":
                self._escaped = at == len(chunk)
                at += 1
            elif sign[0] == ord('"'):
                self._in_text ^= len(sign) == 1
            elif sign in b"[{":
                self._depth += 1
                if self._depth == 1:
                    yield match.start(), True
            elif sign in b"]}" and self._depth > 1:
                self._depth -= 1
            elif self._depth == 1 and sign in b",]":
                self.closed = sign == b"]"
                yield match.start(), False

    def _refuse_more(self, rest: bytes | bytearray) -> None:
        if rest.strip(_BLANK):
            more = bytes(rest.strip(_BLANK)[:20])
            raise DataError(
                f"file {str(self._path)!r} goes on after its JSON array with {more!r}; a file "
                'is one array, or one object a line: rows that are bare lists need a name, as {"messages": [...]}'
            )


class _RowTooLong(Exception):
    """A row of a CSV file went beyond `MAX_ROW_BYTES`."""


class _CsvLines:
    """Lines for `csv.reader`, which joins those of a quoted text: what it joins is bounded here."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = _lines(file)
        self.of_row = 0
        """Bytes since the row began."""

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.of_row += 0 if line is None else len(line)
        if line is None or self.of_row > MAX_ROW_BYTES:
            raise _RowTooLong
        # Undecodable bytes become lone surrogates, which are found again below, row by row.
        return line.decode(errors="surrogateescape")


def _decode_csv(path: Path) -> Decoded:
    return Decoded("line", _read_csv(path))


def _read_csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _opened(path) as file:
        lines = _CsvLines(file)
        reader = csv.reader(lines, strict=True)
        header: list[str] | None = None
        skipped = 0  # lines that the reader does not count: it was interrupted while it waited for them
        while True:
            first, lines.of_row = reader.line_num + skipped + 1, 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, _RowTooLong) as error:
                skipped += isinstance(error, _RowTooLong)
                reason = _TOO_LONG if isinstance(error, _RowTooLong) else f"not CSV: {error}"
                if header is None:
                    raise DataError(f"file {str(path)!r} has a header that cannot be read: {reason}") from error
                yield first, None, reason + _lines_taken(first, reader.line_num + skipped)
                continue
            if header is None:
                header = _checked_header(cells, path)
            elif cells:
                row, problem = _csv_row(header, cells)
                yield first, row, problem and problem + _lines_taken(first, reader.line_num + skipped)


def _checked_header(cells: list[str], path: Path) -> list[str]:
    if not all(map(is_unicode, cells)):
        raise DataError(f"file {str(path)!r} has a header that is not UTF-8; save the file as UTF-8")
    if len(set(cells)) != len(cells):
        raise DataError(f"file {str(path)!r} names a column twice in its header {cells}")
    return cells


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


def _decode_parquet(path: Path) -> Decoded:
    return Decoded("row", _read_parquet(path))


def _read_parquet(path: Path) -> Iterator[Record]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for row in _rows_of(batch):
                number += 1
                if isinstance(row, str):
                    yield number, None, row
                    continue
                text = json.dumps(row, ensure_ascii=False, default=_no_json)
                too_long = len(text.encode(errors="replace")) > MAX_ROW_BYTES
                yield (number, None, _TOO_LONG) if too_long else (number, text, None)


def _rows_of(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch, each by itself where one holds a text that is not UTF-8, or a year after 9999: a reason."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            yield f"a value cannot be read: {error}".splitlines()[0]
        else:
            for at in range(batch.num_rows):
                yield from _rows_of(batch.slice(at, 1))


def _no_json(value: Any) -> dict[str, str]:
    # An object where text is wanted: the row is rejected only if a used column holds such a value.
    return {"unreadable": type(value).__name__}


_KINDS: dict[str, Callable[[Path], Decoded]] = {
    ".jsonl": _decode_json,
    ".ndjson": _decode_json,
    ".json": _decode_json,
    ".csv": _decode_csv,
    ".parquet": _decode_parquet,
}
