"""Any JSON lines file or hub data set, by naming its columns; FLAN's own layout among them.

    {"inputs": "Premise: ...", "targets": "yes", "_task_name": "mnli", "_template_type": "zs_opt"}
        columns: user=inputs, gold=targets, task=_task_name;  only: {_template_type: "zs_opt zs_noopt"}

A row is checked by itself: number, yes or no, a listed option; any other answer counts as a span or free
text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orca2.errors import ConfigError, DataError
from orca2.records import Rejected
from orca2.rows.collections.fields import (
    broken,
    items_of_lines,
    json_object,
    matching,
    text_field,
    texts_field,
)
from orca2.rows.collections.gold_kinds import kind_of_row
from orca2.rows.hub import load_hub, reading
from orca2.rows.items import TaskItem
from orca2.rows.pinning import unpinned


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that hold each field. Raises ConfigError for an `only` without a choice."""

    user: str
    gold: str
    task: str | None = None
    """Column with the task's name; None where the collection is one task."""
    only: Mapping[str, str] = field(default_factory=dict)
    """Column to the values that are read, separated by blanks; other rows are left out."""

    def __post_init__(self) -> None:
        for column, values in self.only.items():
            if not values.split():
                raise ConfigError(f"columns.only.{column} names no value; name some, separated by blanks")


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """Every `*.jsonl` of a folder."""

    name: str
    folder: str
    columns: Mapping[str, Any]
    category: str
    licence: str

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where no file is there."""
        item = _mapper(self.name, self.columns, self.category, self.licence)
        for path in matching(Path(self.folder), "*.jsonl", self.name):

            def parse(number: int, line: str, stem: str = path.stem) -> TaskItem | Rejected:
                return item(f"{stem}.jsonl", number, json_object(line))

            yield from items_of_lines(path, self.name, parse)


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """One split of a hub data set, streamed by `datasets`; `repo` can also be a local folder of such a
    set."""

    name: str
    repo: str
    subset: str | None
    split: str
    revision: str | None
    """A commit, so that a run can be repeated; None only for local folders."""
    columns: Mapping[str, Any]
    category: str
    licence: str

    def __post_init__(self) -> None:
        if reason := unpinned(self.repo, self.revision, "tasks.revision"):
            raise ConfigError(f"tasks={self.name}: {reason}")

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError where the data set cannot be loaded, and where reading it breaks off."""
        item = _mapper(self.name, self.columns, self.category, self.licence)
        # The block-list of benchmarks goes by names, the split's among them; a local folder's own path tells nothing.
        repo = Path(self.repo).name if Path(self.repo).is_dir() else self.repo
        file = "/".join(part for part in (repo, self.subset, self.split) if part)
        what = f"tasks={self.name}"
        rows = load_hub(what, self.repo, self.subset, split=self.split, revision=self.revision, streaming=True)
        with reading(what, self.repo):
            for number, row in enumerate(rows):
                try:
                    yield item(file, number, row)
                except DataError as error:
                    yield broken(self.name, f"{self.split}:{number}", str(error))


Mapper = Callable[[str, int, dict[str, Any]], TaskItem | Rejected]


def _mapper(name: str, columns: Mapping[str, Any], category: str, licence: str) -> Mapper:
    wanted = Columns(**columns)

    def item(file: str, number: int, row: dict[str, Any]) -> TaskItem | Rejected:
        for column, values in wanted.only.items():
            if text_field(row, column) not in values.split():
                reason = f"{column} is {row[column]!r}, not one of {values}"
                return Rejected(source=name, row=f"{file}:{number}", kind="left_out", reason=reason)
        user = text_field(row, wanted.user)
        gold = tuple(answer.strip() for answer in texts_field(row, wanted.gold))
        kind, options, gold = kind_of_row(user, gold)
        task = name if wanted.task is None else text_field(row, wanted.task)
        return TaskItem(
            id=f"{name}/{task}/{Path(file).stem}:{number}",
            collection=name,
            task=task,
            category=category,
            user=user,
            gold=gold,
            answer_kind=kind,
            options=options,
            licence=licence,
            lineage=f"{file}#{number}",
        )

    return item
