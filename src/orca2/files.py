"""Files that are written whole or not at all, and records that grow while a run works: a full disk costs lines of
them, not the run. In folders that others may also write to, a planted link leads no byte outside:

planted                                         what happens
link at a record that grows, a log, a lock      refused with OSError: `growing`
link at the temporary file of a whole one       taken away, and the file made anew: `fresh`
link at the whole file itself                   replaced by the file; its target stays as it was (`os.replace`)
link at the folder of a run or of a cache       followed: people keep such folders on other disks
"""

import errno
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO


def atomic_write_text(path: Path, text: str) -> None:
    """Write all of `text` to `path` or nothing: a reader, or a crash, never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    # With the mode that the user's umask leaves: mkstemp's 0600 would hide the file from a user's group.
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` like `atomic_write_text`, indented so that it can be read and compared."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def growing(path: Path) -> FileIO:
    """The file at `path`, made if it is missing, to be read and appended to; its mode is what the umask leaves.

    Raises OSError, also where `path` is a symbolic link.
    """
    return open(path, "a+b", buffering=0, opener=_no_link)


def fresh(path: Path) -> BinaryIO:
    """A new file at `path`, open for writing. A file that a killed process or anybody else left there is removed first.

    Raises OSError, also where something is put there meanwhile.
    """
    path.unlink(missing_ok=True)
    return path.open("xb")


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def append_whole(path: Path, text: str) -> None:
    """Append all of `text` to `path` or nothing.

    Raises OSError, such as for a full disk, or where `path` is a symbolic link: it may lead out of the run's folder.
    """
    data = text.encode()
    with growing(path) as file:
        end = file.tell()
        if (file.write(data) or 0) < len(data):  # the disk filled up in the middle
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def unwritten_is_a_warning(path: Path) -> Iterator[None]:
    """Within the block `path`, a record of a run, is written; where it cannot be, the run goes on and says so once."""
    try:
        yield
    except OSError as error:
        if path not in _unwritten:
            _unwritten.add(path)
            print(f"WARNING: {path} cannot be written ({error.strerror}); training goes on", file=sys.stderr)


_unwritten: set[Path] = set()
