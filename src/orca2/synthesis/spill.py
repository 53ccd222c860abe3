"""Rows on their way to the data set: written as they come, read back in one order, in constant memory.

    write("example", "gsm8k/…/17", row) ──▶ bucket-042     a line: tag, hash of the id, the row as JSON
    sorted_rows([rank 0, rank 1], "example")               bucket by bucket, each sorted in memory

The order is that of a hash of the ids. So it depends neither on the order in which rows were asked and answered
nor on how many processes shared the work, and any stretch of the data set is a fair sample of it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from orca2.errors import DataError
from orca2.files import fresh
from orca2.hashing import hash64

BUCKETS = 128
"""Files of one spill; a bucket is sorted in memory. A million rows of 2 kB make buckets of 16 MB."""

LineKind = Literal["example", "answer", "failure", "rejected"]
"""`example`: kept; `answer`: an answer that was not kept; `failure`: a request without an answer; `rejected`: an
item that was not asked."""
_TAGS: Mapping[LineKind, bytes] = {"example": b"e", "answer": b"a", "failure": b"f", "rejected": b"r"}


class Spill:
    """The rows of one process; `folder` is emptied first. Use as a context manager.

    Raises:
        DataError: the disk is full or not writable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with clear_disk_errors(folder):
            for old in folder.glob("bucket-*"):
                old.unlink()
            folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[int, BinaryIO] = {}

    def write(self, kind: LineKind, id: str, row: Mapping[str, Any]) -> None:
        """`id` decides the row's place; rows of one id are ordered by their JSON."""
        place = hash64(id)
        line = b"%s%016x%s\n" % (_TAGS[kind], place, json.dumps({"id": id, **row}).encode())
        with clear_disk_errors(self.folder):
            self._bucket(place * BUCKETS >> 64).write(line)

    def close(self) -> None:
        """Everything is on the disk afterwards."""
        with clear_disk_errors(self.folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
        self._files = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bucket(self, number: int) -> BinaryIO:
        if number not in self._files:
            self._files[number] = fresh(self.folder / f"bucket-{number:03d}")
        return self._files[number]


def sorted_rows(folders: Sequence[Path], kind: LineKind) -> Iterator[dict[str, Any]]:
    """All rows of a kind in the folders of several spills, in the order of their ids' hashes."""
    tag = _TAGS[kind]
    for number in range(BUCKETS):
        lines: list[bytes] = []
        for folder in folders:
            path = folder / f"bucket-{number:03d}"
            if path.exists():
                with path.open("rb") as file:
                    lines += [line for line in file if line.startswith(tag)]
        for line in sorted(lines):
            yield json.loads(line[17:])


def count_rows(folders: Sequence[Path], kind: LineKind) -> int:
    """How many rows `sorted_rows` gives."""
    count = 0
    for path in (path for folder in folders for path in folder.glob("bucket-*")):
        with path.open("rb") as file:
            count += sum(line.startswith(_TAGS[kind]) for line in file)
    return count


def remove(folder: Path) -> None:
    """Delete a folder of spills, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """A full or read-only disk as one DataError that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; make room or choose another out_dir, then run the "
            "same command again: nothing that was answered is asked twice"
        ) from error
