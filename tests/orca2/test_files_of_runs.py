"""Lines of a record: whole, or not there."""

import resource
import signal
from pathlib import Path

import pytest

from orca2.files import append_whole


def test_what_is_appended_is_whole_or_not_there(tmp_path: Path) -> None:
    """Half a line at the end of a full disk would swallow the line that is written once there is space."""
    path = tmp_path / "log"
    append_whole(path, "one\n")
    # The file may grow to six bytes and no further, as on a full disk.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            append_whole(path, "two\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    append_whole(path, "three\n")
    assert path.read_text() == "one\nthree\n"


def test_a_link_in_the_folder_leads_no_line_outside(tmp_path: Path) -> None:
    """In a folder that others may write to, a link would let a run write into its user's files."""
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    (tmp_path / "log").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        append_whole(tmp_path / "log", "line\n")
    assert outside.read_text() == "mine\n"
