"""Files of a run in folders that others may write to, too: a link that stands there leads no byte outside.

planted                                         what happens
link at a record that grows, a log, a lock      refused with OSError: `growing`
link at the temporary file of a whole one       taken away, and the file made anew: `fresh`
link at the whole file itself                   replaced by the file; its target stays as it was (`os.replace`)
link at the folder of a run or of a cache       followed: people keep such folders on other disks
"""

import os
from io import FileIO
from pathlib import Path
from typing import BinaryIO


def growing(path: Path) -> FileIO:
    """The file at `path`, made where there is none, to be read and appended to; its mode is what the umask leaves.

    Raises OSError, also where `path` is a symbolic link.
    """
    return open(path, "a+b", buffering=0, opener=_no_link)


def fresh(path: Path) -> BinaryIO:
    """A new file at `path`, open for writing. What a killed process or anybody else left there is taken away first.

    Raises OSError, also where something is put there meanwhile.
    """
    path.unlink(missing_ok=True)
    return path.open("xb")


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
