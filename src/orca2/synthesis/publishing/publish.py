"""The last step of a synthesis: card and browser beside the shards, and the hub where asked for."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from orca2.erasing import Erasing
from orca2.files import atomic_write_text
from orca2.records import Example
from orca2.synthesis.merging import DATA, FIELDS, example_of
from orca2.synthesis.publishing.browser import even_sample, write_browser
from orca2.synthesis.publishing.data_card import card
from orca2.synthesis.publishing.upload import push

READ_ROWS = 1000
"""Rows in memory while the sample is read; ours."""


def publish(folder: Path, name: str, record: Mapping[str, Any], config: Mapping[str, Any], erasing: Erasing) -> None:
    """Write `README.md` and `browser.html`. Doing it again gives the same files."""
    atomic_write_text(folder / "README.md", card(name, record, config))
    places = even_sample(row["id"] for row in _stored(folder, ["id"]))
    write_browser(folder / "browser.html", name, _examples(folder, places), record["examples"], erasing)


def push_and_tell(folder: Path, repository: str, private: bool, console: Console) -> None:
    """Raises ConfigError and DataError as `push`."""
    console.print(f"pushing {folder} to {repository}")
    console.print(f"pushed: {push(folder, repository, private)}")


def _examples(folder: Path, places: Sequence[int]) -> Iterator[Example]:
    """The examples at these places of a written data set, in order; only they become Python objects."""
    first = 0
    for batch in _batches(folder, FIELDS):
        inside = places[bisect_left(places, first) : bisect_left(places, first + batch.num_rows)]
        yield from map(example_of, batch.take(pa.array([place - first for place in inside], pa.int64())).to_pylist())
        first += batch.num_rows


def _stored(folder: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in _batches(folder, columns):
        yield from batch.to_pylist()


def _batches(folder: Path, columns: list[str]) -> Iterator[Any]:
    for path in sorted((folder / DATA).glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(READ_ROWS, columns=columns)
