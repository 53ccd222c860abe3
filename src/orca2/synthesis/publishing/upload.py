"""The finished folder as a data set on the Hugging Face hub. Only ever on request, and private unless said otherwise.

The token comes from the environment variable `HF_TOKEN` alone and is written nowhere. Only what `PUBLISHED` names is
sent: a cache holds every prompt that was ever paid for, and is not sent.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from orca2.errors import ConfigError, DataError

TOKEN = "HF_TOKEN"
PUBLISHED = ("README.md", "manifest.json", "browser.html", "*.parquet")


class Hub(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, allow_patterns: list[str], commit_message: str
    ) -> Any: ...


def check_hub(repository: str, environment: Mapping[str, str] = os.environ) -> None:
    """Whether a push could start; asked before anything is paid for.

    Raises:
        ConfigError: no token, or a name that is not `<owner>/<data set>`.
    """
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise ConfigError(f"push_to_hub is {repository!r}; write <owner>/<data set>, or null to push nothing")
    if TOKEN not in environment or not environment[TOKEN].strip():
        raise ConfigError(
            f"push_to_hub={repository} takes its token from the environment variable {TOKEN}, which is not set; "
            "set it, or push_to_hub=null"
        )


def push(folder: Path, repository: str, private: bool = True, hub: Hub | None = None) -> str:
    """Upload a finished data set; returns its address. Pushing the same folder again sends what has changed.

    Raises:
        ConfigError: as `check_hub`.
        DataError: the folder is not finished, or the hub refuses it or cannot be reached.
    """
    check_hub(repository)
    if not (folder / "manifest.json").is_file():
        raise DataError(f"{folder} has no manifest.json, so it is not finished; nothing was pushed")
    secret = os.environ[TOKEN].strip()
    try:
        hub = hub or _client(secret)
        hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=str(folder),
            allow_patterns=list(PUBLISHED),
            commit_message=f"Data set of {folder.name}",
        )
    except Exception as error:  # the hub's client raises its own, the HTTP library's and the system's errors
        reason = str(error).replace(secret, "***").strip().partition("\n")[0]
        raise DataError(
            f"push_to_hub={repository}: {type(error).__name__}: {reason}; the data set is complete in {folder}, run "
            "the same command again to push it"
        ) from None
    return f"https://huggingface.co/datasets/{repository}"


def _client(secret: str) -> Hub:
    from huggingface_hub import HfApi

    client: Hub = HfApi(token=secret)
    return client
