"""Whether a run still reads the rows that it began with.

    manifest.json    "data": {"mine": "9f86d081884c7d65..."}      source -> digest of its rows

The digest of a file is BLAKE2b over the numbers and texts of all its rows. It is taken while the file is imported, so
that asking for it costs nothing however large the file is, and a copy with another name or time has the same.
"""

import json
from collections.abc import Mapping
from typing import Any

from orca2.data.validation_rows import leaves
from orca2.errors import CheckpointError, DataError
from orca2.rows.source import DigestedSource, Source
from orca2.runs import RunDirectory

_KEY = "data"


def digests_of(source: Source) -> dict[str, str]:
    """Digests of the parts of a source that are files; parts that a config names whole, such as a commit, have none."""
    return {leaf.name: leaf.digest for _, leaf in leaves(source) if isinstance(leaf, DigestedSource)}


def changed(run: RunDirectory, digests: Mapping[str, str]) -> list[str]:
    """The sources whose rows are not those that the run in this directory began with."""
    began = _began(run)
    return [name for name in digests if began.get(name, digests[name]) != digests[name]]


def require_same(run: RunDirectory, digests: Mapping[str, str], begun: bool) -> None:
    """Take note of what a run reads. Raises CheckpointError if it read other rows and has `begun`: it holds work
    that rests on them."""
    began = _began(run)
    if begun and (names := changed(run, digests)):
        lines = (f"\n  - source {name!r}: digest {began[name]} then, {digests[name]} now" for name in names)
        raise CheckpointError(
            f"{run.key} = {run.path} holds a run that began with other rows:{''.join(lines)}\n"
            "Put the file back as it was to continue that run, start anew on the changed one with another name=<name>, "
            "or delete the folder."
        )
    if began != dict(digests):
        run.record(_KEY, dict(digests))


def require_everywhere(ranks: list[dict[str, str]]) -> None:
    """Raises DataError where machines hold different copies of a file: each rank would train on its own."""
    for rank, digests in enumerate(ranks):
        names = [name for name in digests if digests[name] != ranks[0].get(name)]
        if names:
            raise DataError(
                f"rank {rank} reads other rows of source {names[0]!r} than rank 0: the machines have different copies "
                "of its file"
            )


def _began(run: RunDirectory) -> dict[str, str]:
    """What the manifest says; nothing of a run from before there were digests."""
    record: dict[str, Any] = json.loads(run.manifest.read_text(encoding="utf-8")) if run.manifest.exists() else {}
    return dict(record.get(_KEY) or {})
