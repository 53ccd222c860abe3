"""Data sets of the Hugging Face Hub, or of local files, through the library `datasets`.

    HubSource   downloaded once and memory-mapped: any row at any time
    HubStream   read while training, nothing stored; shuffled in blocks

Code that a data set brings along is never run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from orca2.errors import ConfigError, DataError
from orca2.records import Example, Rejected
from orca2.rows.conversations import Note, RepeatedTurns
from orca2.rows.order import Permutation
from orca2.rows.parsing import RowParser
from orca2.rows.pinning import unpinned
from orca2.rows.row_files import FIRST_ROWS, SPREAD_ROWS
from orca2.rows.source import Survey, rows_over
from orca2.strategies import StrategyChoice

_SURVEY_ROWS = 10_000
_STREAM_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A map-style data set. Raises ConfigError for a layout or columns that make no sense."""

    name: str
    path: str
    """Name on the Hub, or a builder such as `json` with `data_files`."""
    split: str
    layout: str
    config: str | None = None
    revision: str | None = None
    """The commit; None for a folder or a builder."""
    data_files: Mapping[str, str] | None = None
    """Split -> file or pattern."""
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    repeated_turns: RepeatedTurns = "join"
    tokens_per_example: int | None = None
    """Mean length of a rendered example, for plans, which download nothing."""
    expected_rows: int | None = None
    """Rows of the split, for plans."""

    def __post_init__(self) -> None:
        _ = self._parser

    def unpinned(self) -> list[str]:
        """Reasons why the data set could change; none if it cannot."""
        return _unpinned(self)

    @property
    def size(self) -> int:
        """Rows of the split."""
        return len(self._data)

    def prepare(self) -> None:
        """Download if needed. Raises DataError if that fails or no row is usable."""
        self._parser.check_first(self._data[row] for row in rows_over(self.size, FIRST_ROWS, SPREAD_ROWS))

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        """One row of the split."""
        return self._parser.read(f"row {row}", str(row), self._data[row], choice)

    def notes(self, row: int) -> tuple[Note, ...]:
        """What of a row is left out or not used."""
        return self._parser.notes(self._data[row])

    def survey(self, choice: StrategyChoice) -> Survey:
        """Counts from the task and strategy columns alone; broken rows are in neither count."""
        parser = self._parser
        names = [name for name in parser.label_columns if name in self._data.column_names]
        if not names:
            return Survey(self.size) if parser.labelled else parser.survey_all(self.size, choice)
        batches = self._data.select_columns(names).iter(batch_size=_SURVEY_ROWS)
        rows = (
            dict(zip(batch, cells, strict=True)) for batch in batches for cells in zip(*batch.values(), strict=True)
        )
        return parser.survey(rows, choice)

    @cached_property
    def _parser(self) -> RowParser:
        return _parser_of(self)

    @cached_property
    def _data(self) -> Any:
        return _loaded(self, streaming=False)


@dataclass(frozen=True, kw_only=True)
class HubStream:
    """A data set that is read from start to end in each epoch.

    Order: consecutive blocks of `shuffle_rows` rows, each shuffled in memory by (seed, epoch, block); blocks
    stay in their place. Every rank and worker reads the whole stream and renders its share. To resume, the
    rows before are read again, or skipped by file where `datasets` can. For many ranks, download instead.
    """

    name: str
    path: str
    split: str
    layout: str
    rows: int | None
    """Rows of an epoch, from the start of the split. None: to its end; then the length of a stage is unknown.
    """
    shuffle_rows: int
    """Rows of a block, all in memory."""
    config: str | None = None
    revision: str | None = None
    data_files: Mapping[str, str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    repeated_turns: RepeatedTurns = "join"
    tokens_per_example: int | None = None
    """Mean length of a rendered example, for plans, which download nothing."""

    def __post_init__(self) -> None:
        _ = self._parser
        if self.shuffle_rows < 1 or (self.rows is not None and self.rows < 1):
            raise ConfigError(
                f"source {self.name!r}: rows={self.rows} and shuffle_rows={self.shuffle_rows} must be 1 or more"
            )

    def unpinned(self) -> list[str]:
        """Reasons why the data set could change; none if it cannot."""
        return _unpinned(self)

    @property
    def size(self) -> int | None:
        """Rows of an epoch, where they are configured."""
        return self.rows

    def prepare(self) -> None:
        """Raises DataError if the stream cannot be opened or no row is usable."""
        self._parser.check_first(self._read(0, FIRST_ROWS + SPREAD_ROWS))

    def stream(self, seed: int, epoch: int, start: int, choice: StrategyChoice) -> Iterator[Example | Rejected]:
        """The rows of an epoch from position `start`. Raises DataError if there are fewer than `rows`."""
        first = start // self.shuffle_rows * self.shuffle_rows
        rows = self._read(first, None if self.rows is None else self.rows - first)
        position = first
        while block := list(islice(rows, self.shuffle_rows)):
            # A seed for each block; blocks are numbered far below this factor.
            order = Permutation(len(block), seed * 2**40 + first // self.shuffle_rows, epoch)
            for number in order.at(np.arange(max(0, start - position), len(block))).tolist():
                yield self._parser.read(f"row {first + number}", str(first + number), block[number], choice)
            position = first = first + len(block)
        if self.rows is not None and position < self.rows:
            raise DataError(f"source {self.name!r}: the stream ends after {position} rows; set rows={position}")

    def _read(self, start: int, count: int | None) -> Iterator[dict[str, Any]]:
        with reading(f"source {self.name!r}", self.path):
            # By batches: plain iteration would deal the rows out among DataLoader workers, a second time.
            batches = self._data.skip(start).iter(batch_size=_STREAM_ROWS)
            rows = (
                dict(zip(batch, cells, strict=True)) for batch in batches for cells in zip(*batch.values(), strict=True)
            )
            yield from islice(rows, count)

    @cached_property
    def _parser(self) -> RowParser:
        return _parser_of(self)

    @cached_property
    def _data(self) -> Any:
        return _loaded(self, streaming=True)


def _unpinned(source: HubSource | HubStream) -> list[str]:
    reason = unpinned(source.path, source.revision, "its `revision`")
    return [] if reason is None else [f"source {source.name!r}: {reason}"]


def _parser_of(source: HubSource | HubStream) -> RowParser:
    return RowParser(
        source=source.name,
        layout=source.layout,
        columns=source.columns,
        constants=source.constants,
        repeated_turns=source.repeated_turns,
    )


def _loaded(source: HubSource | HubStream, streaming: bool) -> Any:
    return load_hub(
        f"source {source.name!r}",
        source.path,
        source.config,
        split=source.split,
        revision=source.revision,
        data_files=None if source.data_files is None else dict(source.data_files),
        streaming=streaming,
    )


def load_hub(
    what: str,
    path: str,
    config: str | None,
    *,
    split: str | None,
    revision: str | None = None,
    data_files: Any = None,
    streaming: bool = False,
) -> Any:
    """A data set of the hub, or of local files, by `datasets.load_dataset`. `what` asks for it: errors begin with it.

    Raises DataError where it cannot be loaded.
    """
    import datasets  # half a second; only what reads such a set pays it

    try:
        return datasets.load_dataset(
            path, config, split=split, revision=revision, data_files=data_files, streaming=streaming
        )
    except Exception as error:  # the library raises a dozen kinds: connection, missing names, damaged files
        raise _unreadable(what, path, error) from error


@contextmanager
def reading(what: str, path: str) -> Iterator[None]:
    """Raises DataError where a data set breaks off while its rows are read within the block."""
    from datasets.exceptions import DatasetsError  # as above

    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise _unreadable(what, path, error) from error


def _unreadable(what: str, path: str, error: Exception) -> DataError:
    cause = error.__cause__ or error
    reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
    return DataError(
        f"{what}: data set {path!r} cannot be read: {reason}. Check path, config, split and "
        "revision; without a network, download it first (`hf download --repo-type dataset`) and "
        "set HF_HUB_OFFLINE=1"
    )
