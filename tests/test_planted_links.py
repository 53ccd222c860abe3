"""Links that somebody planted in a shared folder: no byte of theirs is overwritten; see `orca2.files`."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orca2.checkpointing.folder import MANIFEST, refusal, remove_unfinished
from orca2.errors import CheckpointError, DataError
from orca2.evaluation.sample_records import RecordWriter
from orca2.files import atomic_write_json, atomic_write_text, fresh, growing
from orca2.rows.importing import import_file
from orca2.runs import RunDirectory
from orca2.settings import sweeps
from orca2.synthesis.dataset_files import EXAMPLES, write_lines, write_shards
from orca2.synthesis.spill import Spill

THEIRS = "theirs, without a line break"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file of the user's that is not a part of a run."""
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text(THEIRS)
    return path


def write_table(path: Path) -> None:
    row = dict.fromkeys(EXAMPLES.names[:8], "x") | {"reasoning": ""}
    write_shards(iter([row]), 1, EXAMPLES, path.parent, "train", 10)


WHOLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text": ("results.json", lambda path: atomic_write_text(path, "ours")),
    "list": ("rejected.jsonl", lambda path: write_lines(iter([{"a": 1}]), path)),
    "its temporary file": (".a.jsonl.tmp", lambda path: write_lines(iter([{}]), path.with_name("a.jsonl"))),
    "shard": ("train-00000-of-00001.parquet", write_table),
    "its temporary shard": (".train-00000-of-00001.parquet.tmp", write_table),
    "a shard of a checkpoint": ("shard-00001.safetensors", lambda path: fresh(path).close()),
}  # fmt: skip
"""What is written whole -> where a link is planted, and how it is written."""
GROWING: dict[str, tuple[str, Callable[[Path], object]]] = {
    "answers": ("0.jsonl", RecordWriter),
    "lock": (".lock", lambda path: RunDirectory(path.parent).locked().__enter__()),
    "log": ("job.log", growing),
}


@pytest.mark.parametrize("what", WHOLE)
def test_a_file_that_is_written_whole_takes_a_links_place(what: str, theirs: Path, tmp_path: Path) -> None:
    """A list and a shard were written through a link at their temporary file, over what it led to."""
    name, write = WHOLE[what]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(theirs)
    write(tmp_path / "out" / name)
    assert theirs.read_text() == THEIRS
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("what", GROWING)
def test_a_file_that_grows_is_no_link(what: str, theirs: Path, tmp_path: Path) -> None:
    """The writer of answers cut the last line of the file off that a link led to, and went on behind it."""
    name, write = GROWING[what]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(theirs)
    with pytest.raises((OSError, DataError, CheckpointError), match="symbolic link"):
        write(tmp_path / "out" / name)
    assert theirs.read_text() == THEIRS


def test_a_lock_makes_no_file_elsewhere(theirs: Path, tmp_path: Path) -> None:
    """A link to nothing made a file there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(theirs.with_name("new"))
    with pytest.raises(CheckpointError, match="symbolic link"), RunDirectory(tmp_path / "out").locked():
        pass
    assert not theirs.with_name("new").exists()


def test_the_log_of_a_job_is_no_link(theirs: Path, tmp_path: Path) -> None:
    """What a job printed was appended to whatever `job.log` led to."""
    (tmp_path / "job.log").symlink_to(theirs)
    sweep: Any = SimpleNamespace(script="x.py", echo=False, metrics=())
    record = sweeps.JobRecord(name="j", number=0, values={}, state="running", invocation="i")
    ended, stopped = sweeps._attempt(sweep, record, RunDirectory(tmp_path), [])
    assert (ended.state, stopped) == ("failed", False) and "symbolic link" in ended.reason
    assert theirs.read_text() == THEIRS


def test_an_import_writes_through_no_link(theirs: Path, tmp_path: Path) -> None:
    """A cache that users share: the name of its temporary file can be known beforehand."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"a": 1}\n')
    cached = import_file(str(rows), str(tmp_path / "cache"))
    cached.unlink()
    (cached.parent / f".{cached.name}.partial").symlink_to(theirs)
    assert import_file(str(rows), str(tmp_path / "cache")).is_file()
    cached.unlink()
    lock = cached.parent / f"{cached.name}.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(theirs)
    with pytest.raises(DataError, match="cannot be imported"):
        import_file(str(rows), str(tmp_path / "cache"))
    assert theirs.read_text() == THEIRS


def test_an_unfinished_checkpoint_that_is_a_link_is_taken_away(theirs: Path, tmp_path: Path) -> None:
    """A save made its folder anew only where none was, so that it wrote into what a link led to."""
    (tmp_path / "step-00000001.tmp").symlink_to(theirs.parent)
    remove_unfinished(tmp_path)
    assert not (tmp_path / "step-00000001.tmp").is_symlink() and theirs.read_text() == THEIRS


@pytest.mark.parametrize("name", ["../elsewhere/precious", "/etc/passwd", "a/b"])
def test_a_checkpoint_names_files_of_its_folder(name: str, theirs: Path, tmp_path: Path) -> None:
    """A manifest of strangers made a resume read files outside of the checkpoint."""
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    files = {name: {"bytes": len(THEIRS), "sha256": "x"}, "progress.json": {"bytes": 2, "sha256": "x"}}
    atomic_write_json(folder / MANIFEST, {"format": 1, "signature": "s", "files": files})
    assert "not a file of its folder" in str(refusal(folder, "s"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_the_user_wants(umask: int, mode: int, tmp_path: Path) -> None:
    """Prompts and answers may be secret: nothing is world-writable, and a strict umask is kept."""
    before = os.umask(umask)
    try:
        atomic_write_text(tmp_path / "text", "x")
        write_lines(iter([{}]), tmp_path / "list")
        write_table(tmp_path / "train")
        growing(tmp_path / "log").close()
        with RecordWriter(tmp_path / "answers"), RunDirectory(tmp_path).locked(), Spill(tmp_path / "spill") as rows:
            rows.write("example", "id", {})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert len(modes) == 7 and set(modes.values()) == {mode}, modes
