"""Rows of files: what every reader needs to turn bytes into checked fields, and faults into `Rejected`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orca2.errors import DataError
from orca2.records import Rejected
from orca2.rows.items import TaskItem

Row = tuple[int, str]
"""(number of the line from 1, its text)."""


def found(path: Path, what: str) -> Path:
    """`path`, if it exists. Raises DataError that names the remedy."""
    if not path.exists():
        raise DataError(
            f"{what}: {path} does not exist; download the collection and point the key `folder` or `path` "
            "of its "
            "conf/tasks file at it (see docs/tasks.md), or take it out of the mix by giving it a share of 0"
        )
    return path


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A file that is a folder, or may not be read, as one DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def matching(folder: Path, pattern: str, what: str) -> list[Path]:
    """The files of a folder, sorted by name. Raises DataError where there are none."""
    paths = sorted(found(folder, what).glob(pattern))
    if not paths:
        raise DataError(f"{what}: {folder} holds no file that matches {pattern!r}; point `folder` at the collection")
    return paths


def lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Every line that is not empty, numbered from 1, without its end; None where it is not UTF-8.

    Raises DataError where the file cannot be read.
    """
    # Only b"\n" ends a line: text mode would also split at the separators that JSON strings may hold.
    with readable(path), path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield number, None
                continue
            # A line of tabs is a damaged row of a table, not a blank line.
            if line.strip(" "):
                yield number, line


def items_of_lines(
    path: Path, source: str, parse: Callable[[int, str], TaskItem | Rejected]
) -> Iterator[TaskItem | Rejected]:
    """Parse a file line by line; a DataError of `parse` becomes `Rejected` with the file and the line."""
    for number, line in lines(path):
        row = f"{path.name}:{number}"
        if line is None:
            yield broken(source, row, "not UTF-8")
            continue
        try:
            yield parse(number, line)
        except DataError as error:
            yield broken(source, row, str(error))


def broken(source: str, row: str, reason: str) -> Rejected:
    return Rejected(source=source, row=row, kind="broken", reason=reason)


def json_object(text: str) -> dict[str, Any]:
    """Raises DataError where `text` is not one JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a plain ValueError: a whole number of more than 4,300 digits
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"a JSON object is needed, not {type(value).__name__}")
    return value


def text_field(row: dict[str, Any], key: str) -> str:
    """A text that is not blank. Raises DataError."""
    if key not in row:
        raise DataError(f"field {key!r} is missing; fields are {', '.join(sorted(row)) or 'none'}")
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"field {key!r} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise DataError(f"field {key!r} is empty")
    return value


def texts_field(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """One text, or a list of at least one, none of them blank. Raises DataError."""
    value = row.get(key)
    if not isinstance(value, list):
        return (text_field(row, key),)
    if not value:
        raise DataError(f"field {key!r} is an empty list")
    for entry in value:
        if not isinstance(entry, str):
            raise DataError(f"field {key!r} must hold texts, not {type(entry).__name__}")
        if not entry.strip():
            raise DataError(f"field {key!r} holds an empty text")
    return tuple(value)
