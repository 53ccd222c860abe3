"""Records that grow while a run works: a full disk costs lines of them, not the run."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orca2.links import growing


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
