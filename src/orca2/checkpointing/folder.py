"""The folders of checkpoints: their names, their manifests, and why one is refused."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orca2.files import atomic_write_json

FORMAT = 1
"""Raised when an older reader would misread a newer checkpoint."""

MANIFEST, PROGRESS = "manifest.json", "progress.json"
UNFINISHED = ".tmp"
_NAME = re.compile(r"step-(\d+)(?:\..*)?")
_READ_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest says of one file."""

    bytes: int
    sha256: str


def checkpoint_step(path: Path) -> int:
    """Optimizer steps that were done when the checkpoint was taken."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, f"not a checkpoint name: {path.name}"
    return int(match.group(1))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Path of the complete checkpoint of a step."""
    return folder / f"step-{step:08d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """Everything named like a checkpoint, oldest first; `refusal` says whether it can be used."""
    found = (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.suffix != UNFINISHED)
    return sorted(found, key=checkpoint_step)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left half written."""
    for path in folder.glob(f"step-*{UNFINISHED}"):
        if path.is_symlink():  # made by nobody here; what it leads to is not ours
            path.unlink()
        shutil.rmtree(path, ignore_errors=True)


def record_of(path: Path) -> FileRecord:
    """Size and checksum of a file on disk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return FileRecord(path.stat().st_size, digest.hexdigest())


def publish(
    temporary: Path,
    final: Path,
    files: Mapping[str, FileRecord],
    progress: Mapping[str, Any],
    about: Mapping[str, Any],
    keep: int,
) -> None:
    """Make a written checkpoint the newest one, then delete all but the newest `keep`.

    `about` goes into the manifest. Raises OSError where the disk is full; older checkpoints are then untouched.
    """
    atomic_write_json(temporary / PROGRESS, progress)
    records = {**files, PROGRESS: record_of(temporary / PROGRESS)}
    manifest = {"format": FORMAT, **about, "files": {name: asdict(record) for name, record in records.items()}}
    atomic_write_json(temporary / MANIFEST, manifest)
    if final.exists():  # it was refused, and the run came to its step again
        shutil.rmtree(final)
    os.rename(temporary, final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # else a power cut may undo the rename after the older one is gone
    finally:
        os.close(descriptor)
    # A later one can only be one that was refused: it must not push out the good ones.
    older = [path for path in checkpoints_in(final.parent) if checkpoint_step(path) <= checkpoint_step(final)]
    for path in older[:-keep]:
        # Out of sight first: half a deletion must not look like a damaged checkpoint.
        hidden = path.with_name(path.name + UNFINISHED)
        os.rename(path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def refusal(path: Path, signature: str | None, share: tuple[int, int] = (0, 1)) -> str | None:
    """Why this checkpoint cannot be used, naming the file; None if it can.

    `signature`: that of the config which it must have; None: any. `share` = (i, n): of the checksums, only every n-th
    file from the i-th is computed, for n ranks to divide the reading.
    """
    if not path.is_dir():
        return f"{path}: not a folder; a checkpoint of another program or version"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"]
        if found != FORMAT:
            return f"{path / MANIFEST}: format {found!r}, and this version reads {FORMAT}"
        if signature not in (None, manifest["signature"]):
            return f"{path / MANIFEST}: it belongs to a run of another config"
        files = {name: FileRecord(**record) for name, record in manifest["files"].items()}
    except FileNotFoundError:
        return f"{path / MANIFEST}: missing, so the checkpoint is incomplete"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path / MANIFEST}: cannot be read ({type(error).__name__}: {error})"
    if strange := [name for name in files if Path(name).name != name]:
        return f"{path / MANIFEST}: names {strange[0]!r}, which is not a file of its folder"
    if PROGRESS not in files:
        return f"{path / MANIFEST}: names no {PROGRESS}"
    return _wrong_size(path, files) or _wrong_content(path, files, share)


def read_progress(path: Path) -> dict[str, Any]:
    """What was saved beside the tensors of a checkpoint that is not refused."""
    progress: dict[str, Any] = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
    return progress


def _wrong_size(path: Path, files: Mapping[str, FileRecord]) -> str | None:
    for name, record in files.items():
        try:
            size = (path / name).stat().st_size
        except OSError as error:
            return f"{path / name}: {error.strerror}"
        if size != record.bytes:
            return f"{path / name}: {size:,} bytes of {record.bytes:,}; it is truncated or overwritten"
    return None


def _wrong_content(path: Path, files: Mapping[str, FileRecord], share: tuple[int, int]) -> str | None:
    first, step = share
    for name in sorted(files)[first::step]:
        try:
            if record_of(path / name) != files[name]:
                return f"{path / name}: its SHA-256 is not that of the manifest; it is damaged"
        except OSError as error:
            return f"{path / name}: {error.strerror}"
    return None
