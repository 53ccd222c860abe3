"""Natural Instructions v2 (Wang et al. 2022, github.com/allenai/natural-instructions): one JSON file a task.

    release   {"Definition": ["..."], "Categories": [...], "Instances": [{"id": "task1-..", ...}]}
    earlier   {"Definition": "...",                        "Instances": [{"input": "..", "output": [".."] or ".."}]}

An instance without an id is named after its content, so that a later release or another order keeps the name.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from orca2.errors import DataError
from orca2.records import AnswerKind, Rejected
from orca2.rows.collections.fields import (
    broken,
    found,
    json_object,
    matching,
    readable,
    text_field,
    texts_field,
)
from orca2.rows.collections.gold_kinds import kind_of_answers
from orca2.rows.items import Option, TaskItem


class Task(NamedTuple):
    """What the instances of one file share."""

    path: Path
    name: str
    category: str
    definition: str
    answer_kind: AnswerKind
    options: tuple[Option, ...]
    licence: str


@dataclass(frozen=True, kw_only=True)
class NaturalInstructions:
    """Every `task*.json` of a folder, or those that a split file names, one a line."""

    name: str
    folder: str
    split: str | None = None
    """Path of a list of tasks such as `splits/default/train_tasks.txt`; None for all files."""

    def stream(self) -> Iterator[TaskItem | Rejected]:
        """Raises DataError for a missing folder, or a split that names a task without a file."""
        for path in self._paths():
            yield from self._read(path)

    def _paths(self) -> list[Path]:
        paths = matching(Path(self.folder), "task*.json", self.name)
        if self.split is None:
            return paths
        wanted = found(Path(self.split), f"{self.name}: split").read_text(encoding="utf-8").split()
        by_name = {path.stem: path for path in paths}
        missing = [task for task in wanted if task not in by_name]
        if missing:
            raise DataError(
                f"{self.name}: {self.split} names {len(missing)} tasks without a file in {self.folder}, "
                f"the first is {missing[0]!r}; take the split and the tasks from the same commit"
            )
        return [by_name[task] for task in sorted(set(wanted))]

    def _read(self, path: Path) -> Iterator[TaskItem | Rejected]:
        with readable(path):
            raw = path.read_bytes()
        try:
            content = json_object(raw.decode("utf-8-sig"))
            instances = content.get("Instances")
            if not isinstance(instances, list):
                raise DataError(f"field 'Instances' must be a list, not {type(instances).__name__}")
            rows = [_instance(instance) for instance in instances]
            task = _task(path, content, [row.output for row in rows if isinstance(row, _Instance)])
        except (UnicodeDecodeError, DataError) as error:
            yield broken(self.name, path.name, f"the whole file: {error}")
            return
        seen: set[str] = set()
        for index, row in enumerate(rows):
            where = f"{path.name}:Instances[{index}]"
            if isinstance(row, str):
                yield broken(self.name, where, row)
            elif row.id in seen:
                yield broken(self.name, where, f"id {row.id!r} was seen before in this file")
            else:
                seen.add(row.id)
                try:
                    yield self._item(task, row, where)
                except DataError as error:
                    yield broken(self.name, where, str(error))

    def _item(self, task: Task, row: "_Instance", where: str) -> TaskItem:
        return TaskItem(
            id=f"{self.name}/{task.name}/{row.id}",
            collection=self.name,
            task=task.name,
            category=task.category,
            user=f"{task.definition}\n\n{row.input}",
            preamble=len(task.definition),
            gold=row.output,
            answer_kind=task.answer_kind,
            options=task.options,
            licence=task.licence,
            lineage=f"{task.path.name}#{where.partition(':')[2]}",
        )


class _Instance(NamedTuple):
    id: str
    input: str
    output: tuple[str, ...]


def _instance(instance: Any) -> _Instance | str:
    """The instance, or the reason why it cannot be used."""
    if not isinstance(instance, Mapping):
        return f"an instance must be an object, not {type(instance).__name__}"
    row = dict(instance)
    try:
        text, output = text_field(row, "input"), texts_field(row, "output")
        name = text_field(row, "id") if "id" in row else _content_id(text, output)
    except DataError as error:
        return str(error)
    return _Instance(name, text.strip(), tuple(dict.fromkeys(answer.strip() for answer in output)))


def _content_id(text: str, output: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(json.dumps([text, output]).encode(), digest_size=16)
    return digest.hexdigest()


def _task(path: Path, content: dict[str, Any], outputs: list[tuple[str, ...]]) -> Task:
    kind, options = kind_of_answers(outputs)
    return Task(
        path=path,
        name=path.stem,
        category=_first_text(content, "Categories", "uncategorized"),
        definition="\n".join(texts_field(content, "Definition")).strip(),
        answer_kind=kind,
        options=options,
        licence=_first_text(content, "Instance License", "unknown"),
    )


def _first_text(content: dict[str, Any], key: str, otherwise: str) -> str:
    """The first entry of an optional field; earlier releases lack it, or have one text or a path `A -> B`."""
    if key not in content or content[key] in ([], "", None):
        return otherwise
    return texts_field(content, key)[0].partition("->")[0].strip()
