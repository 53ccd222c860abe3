"""The last step of a synthesis: card and browser beside the shards, and the hub where asked for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from orca2.erasing import Erasing
from orca2.records import Example
from orca2.runs import atomic_write_text
from orca2.synthesis.merging import DATA, FIELDS, example_of
from orca2.synthesis.publishing.browser import write_browser
from orca2.synthesis.publishing.card import card
from orca2.synthesis.publishing.hub import push

READ_ROWS = 1000
"""Rows in memory while the sample is drawn; ours."""


def publish(folder: Path, name: str, record: Mapping[str, Any], config: Mapping[str, Any], erasing: Erasing) -> None:
    """Write `README.md` and `browser.html`. Doing it again gives the same files."""
    atomic_write_text(folder / "README.md", card(name, record, config))
    write_browser(folder / "browser.html", name, stored_examples(folder), erasing)


def push_and_tell(folder: Path, repository: str, private: bool, console: Console) -> None:
    """Raises ConfigError and DataError as `push`."""
    console.print(f"pushing {folder} to {repository}", highlight=False)
    console.print(f"pushed: {push(folder, repository, private)}", highlight=False)


def stored_examples(folder: Path) -> Iterator[Example]:
    """The examples of a written data set, in its order."""
    for path in sorted((folder / DATA).glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(READ_ROWS, columns=FIELDS):
                yield from map(example_of, batch.to_pylist())
