"""Data sets of the hub are named by commit: a branch moves, and then a run is another run under the same name."""

import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


def unpinned(repo: str, revision: str | None, key: str) -> str | None:
    """Why a data set cannot be told by its name, with the setting `key` as the remedy; None where it can be.

    Folders, and names without an owner, which are builders such as `json`, have no commits.
    """
    if "/" not in repo or Path(repo).expanduser().is_dir() or _COMMIT.fullmatch(revision or ""):
        return None
    what = "has no `revision`" if revision is None else f"is named at {revision!r}, which is not a commit and can move"
    return (
        f"the hub data set {repo!r} {what}: set {key} to a commit, all 40 digits of it, such as the newest of "
        f"https://huggingface.co/datasets/{repo}/commits/main"
    )
