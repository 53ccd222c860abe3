"""The paper's results, each with how well it is known, and ours beside them.

The paper publishes neither its prompts nor its patterns nor its sample counts, so its rows are neighbours of ours,
not targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal

import yaml
from typing_extensions import override

TAGS = {
    "P": "text reproduced from the paper",
    "F": "read off the paper's own figure",
    "S": "from a third party's notes that were checked against the paper",
    "X": "from another paper",
    "C": "unverified: recalled, fits a known average, never compared with the paper",
}
UNVERIFIED = "C"
AVERAGE = "average"

Mean = Literal["tasks", "samples", "judged"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the paper."""

    value: float
    tag: str

    @override
    def __str__(self) -> str:
        mark = "?" if self.tag == UNVERIFIED else ""
        return f"{self.value:.2f}{mark} [{self.tag}]"


@dataclass(frozen=True, slots=True)
class PaperTable:
    """One table or figure."""

    name: str
    title: str
    columns: Mapping[str, tuple[str, Mean]]
    """Benchmark -> our metric beside it, and how ours is averaged."""
    rows: Mapping[str, Mapping[str, Cell]]
    """Model, with its system message where that is not empty -> benchmark or `average` -> cell."""

    @property
    def has_average(self) -> bool:
        return any(AVERAGE in row for row in self.rows.values())


@lru_cache(maxsize=1)
def paper_tables() -> Sequence[PaperTable]:
    """All tables of `paper.yaml`, in order."""
    text = resources.files(__package__).joinpath("paper.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return [
        PaperTable(
            name,
            table["title"],
            {benchmark: (column["metric"], column["mean"]) for benchmark, column in table["columns"].items()},
            {model: {key: _cell(cell) for key, cell in row.items()} for model, row in table["rows"].items()},
        )
        for name, table in content.items()
    ]


def _cell(text: str) -> Cell:
    value, tag = text.split()
    return Cell(float(value), tag)


GROUPS: Mapping[str, Sequence[str]] = {
    table.name: tuple(table.columns)
    for table in paper_tables()
    if all(metric == "accuracy" for metric, _ in table.columns.values())
}
"""Groups of benchmarks that stand in one table of the paper and are right or wrong."""
