"""Finds a student by run directory, export folder or hub id, before anything of it is loaded.

runs/mine            -> runs/mine/student
exports/mine         -> itself: a folder with config.json
owner/model          -> its snapshot in the hub's cache, downloaded if need be; safetensors only
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orca2.errors import ConfigError, ModelError
from orca2.generation.protocol import StudentFiles
from orca2.modelling.export import PROMPT_FILE

WANTED_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")
"""Files fetched from a hub repository; pickled weights are never fetched."""
BLOCK_BYTES, BLOCKS = 65_536, 64
"""What of each large file goes into a fingerprint: evenly spaced blocks, 4 MiB of it; ours. Any training step
changes every block, and all of a 13B model would take a minute to read."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_student(student: str | None) -> StudentFiles:
    """The student's folder and fingerprint.

    Raises:
        ConfigError: no student is given, or nothing is called like this.
        ModelError: the folder is not a model, or the hub cannot be reached.
    """
    if student is None:
        raise ConfigError("student = null: this backend needs student=<run directory, export folder or hub id>")
    folder = Path(student)
    if (folder / "student").is_dir():
        folder = folder / "student"
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(student) or folder.parent.is_dir():
            raise ConfigError(f"student = {student!r}: no such folder, and no hub id such as owner/model")
        folder = _snapshot(student)
    if not (folder / "config.json").is_file():
        hint = "; the run has not come to its end yet" if (Path(student) / "manifest.json").exists() else ""
        raise ModelError(f"student = {student!r}: {folder} has no config.json, so it is not a model{hint}")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"student = {student!r}: {folder} has no *.safetensors; pickled weights are not read")
    prompt = prompt_info(folder)
    name = Path(student).resolve().name if Path(student).is_dir() else student.rpartition("/")[2]
    return StudentFiles(
        name=name,
        location=str(folder),
        fingerprint=fingerprint(folder),
        own_messages={str(prompt["erasing"]): str(prompt["system"])} if prompt else {},
    )


def prompt_info(folder: Path) -> Mapping[str, Any] | None:
    """What the exported student says about how it was asked in training; None for others' models.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / PROMPT_FILE
    if not path.is_file():
        return None
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"renderer", "erasing", "system"} <= info.keys():
            return info
    except (OSError, ValueError, AttributeError):
        pass
    raise ModelError(f"{path} is damaged; export the student again")


def fingerprint(folder: Path) -> str:
    """32 hex digits over the folder's models, tokenizer and settings, the same for every copy of the folder."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for pattern in WANTED_FILES for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= BLOCKS * BLOCK_BYTES:
                digest.update(file.read())
                continue
            for block in range(BLOCKS):
                file.seek(block * (size - BLOCK_BYTES) // (BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def _snapshot(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # needed for hub ids only

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(WANTED_FILES)))
    except Exception as error:  # whatever its network and cache raise
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"student = {hub_id!r} is not a folder here, and could not be fetched from the hub "
            f"({type(error).__name__}: {reason}); give a folder, or fetch it on a machine that reaches the hub"
        ) from error
