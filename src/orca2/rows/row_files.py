"""A file of stored rows as a source, or a folder of shards: JSONL, a JSON array, CSV or Parquet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orca2.records import Example, Rejected
from orca2.rows.conversations import Note, RepeatedTurns
from orca2.rows.importing import StoredRow, StoredRows, open_rows
from orca2.rows.parsing import RowParser
from orca2.rows.source import Survey, rows_over
from orca2.strategies import StrategyChoice

FIRST_ROWS, SPREAD_ROWS = 100, 10_000
"""Rows at the start of a source, and spread over it: if none of them is usable, the columns are wrong, not the rows."""


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """The rows of `path`, each an example or a reason. Blank lines are not rows.

    A folder stands for its Parquet files, or for those of its folder `data`, one after the other.

    Raises ConfigError for a layout or column map that makes no sense. The file is first touched by `prepare`.
    """

    name: str
    path: str
    layout: str
    """One of `layouts.LAYOUTS`, or `auto`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of an Example -> column of the file."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Field of an Example -> text, for what the file does not say."""
    repeated_turns: RepeatedTurns = "join"
    """Several turns in a row of one speaker: joined by a blank line, or the row is rejected."""
    cache_dir: str | None = None
    """Folder of imported files; None: `$XDG_CACHE_HOME/orca2`, or `~/.cache/orca2`."""

    def __post_init__(self) -> None:
        _ = self._parser

    @property
    def size(self) -> int:
        """Rows of the file, broken ones included."""
        return len(self._rows)

    @property
    def digest(self) -> str:
        """Digest of the stored rows; the file's name and time do not change it."""
        return self._rows.digest

    def prepare(self) -> None:
        """Import the file if it is new. Raises DataError if it cannot be read or no row is usable."""
        rows = (self._rows[row] for row in rows_over(self.size, FIRST_ROWS, SPREAD_ROWS))
        self._parser.check_first(stored.row if stored.row is not None else _reason(stored) for stored in rows)

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        """One row of the file."""
        stored = self._rows[row]
        place = f"{self._rows.unit} {stored.line}"
        if stored.row is None:
            return Rejected(source=self.name, row=place, kind="broken", reason=_reason(stored))
        return self._parser.read(place, str(stored.line), stored.row, choice)

    def notes(self, row: int) -> tuple[Note, ...]:
        """What of a row is left out or not used."""
        return self._parser.notes(self._rows[row].row or {})

    def survey(self, choice: StrategyChoice) -> Survey:
        """Counts from the task and strategy columns alone; broken rows are in neither count."""
        if not self._parser.labelled:
            return self._parser.survey_all(self.size, choice)
        return self._parser.survey((self._rows[row].row or {} for row in range(self.size)), choice)

    @cached_property
    def _parser(self) -> RowParser:
        return RowParser(
            source=self.name,
            layout=self.layout,
            columns=self.columns,
            constants=self.constants,
            repeated_turns=self.repeated_turns,
        )

    @cached_property
    def _rows(self) -> StoredRows:
        return open_rows(self.path, self.cache_dir)


def _reason(stored: StoredRow) -> str:
    return stored.error or "empty"
