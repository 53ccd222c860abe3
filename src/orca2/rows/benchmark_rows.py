"""Rows of a benchmark: from the files of a folder or from the hub, as plain dictionaries.

layout                                      of one benchmark, in its YAML
  files: arc/ARC-{name}-test*.jsonl         or  hub: allenai/ai2_arc   config: ARC-{name}   split: test
                                            or  hub: json   data_files: https://...         split: train
  form: flat                                how a file's content becomes rows, see `forms`
  question: question.stem                   column of the kind of answer: where it stands in a row
  options: question.choices.text

path                "question.choices.text"  goes into mappings, and into every item of a list
several paths       "1, 2, 3, 4"             their values as a list
"""

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orca2.errors import ConfigError, DataError
from orca2.rows.forms import FORMS
from orca2.rows.hub import load_hub
from orca2.rows.pinning import unpinned

_FILES = frozenset({"files", "form"})
_HUB = frozenset({"hub", "config", "split", "revision", "data_files", "form"})


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a benchmark's rows are stored, and where the columns stand in them."""

    name: str
    settings: Mapping[str, str]
    columns: Mapping[str, str]
    """Column that the kind of answer knows -> path in the row."""

    @classmethod
    def read(cls, benchmark: str, name: str, stated: Mapping[str, str | None], known: frozenset[str]) -> "Layout":
        """A layout from its YAML entries; null is as good as none.

        Raises ConfigError for a key that is neither a setting nor a known column.
        """
        entries = {key: value for key, value in stated.items() if value is not None}
        reserved = _HUB if "hub" in entries else _FILES
        where = f"benchmark {benchmark!r}, layout {name!r}"
        if ("hub" in entries) == ("files" in entries):
            raise ConfigError(f"{where}: needs either `files` or `hub`")
        unknown = sorted(set(entries) - reserved - known)
        if unknown:
            raise ConfigError(f"{where}: unknown keys {unknown}; allowed are {sorted(reserved | known)}")
        form = entries.get("form", "flat")
        if form not in FORMS:
            raise ConfigError(f"{where}: unknown form {form!r}; allowed are {sorted(FORMS)}")
        settings = {key: value for key, value in entries.items() if key in reserved}
        settings["form"] = form
        return cls(name, settings, {key: value for key, value in entries.items() if key in known})

    @property
    def on_hub(self) -> bool:
        return "hub" in self.settings

    def paths(self, data_dir: Path, task: str) -> list[Path]:
        """The files of a task, sorted by name."""
        pattern = self.settings["files"].replace("{name}", task)
        return sorted(Path(path) for path in glob.glob(str(Path(glob.escape(str(data_dir))) / pattern)))

    def rows(self, data_dir: Path | None, task: str) -> Iterator[dict[str, Any]]:
        """Rows of a task, with the columns' values under the columns' names.

        A row whose form is broken has the single key `broken` with the reason.

        Raises:
            DataError: a file cannot be parsed, or the hub cannot be reached.
        """
        form = FORMS[self.settings["form"]]
        if data_dir is None:
            raw = form.rows(self._hub_rows(task))
        else:
            raw = (row for path in self.paths(data_dir, task) for row in form.file(path))
        for row in raw:
            yield (row if "broken" in row else {name: value_at(row, path) for name, path in self.columns.items()})

    def _hub_rows(self, task: str) -> Iterator[dict[str, Any]]:
        named = {key: value.replace("{name}", task) for key, value in self.settings.items()}
        if reason := unpinned(named["hub"], named.get("revision"), "benchmark.layouts.hub.revision"):
            raise DataError(f"{reason}; or give data_dir=<folder with the official files>")
        loaded = load_hub(
            "benchmark (data_dir=<folder with the official files> needs no hub)",
            named["hub"],
            named.get("config"),
            split=named.get("split"),
            revision=named.get("revision"),
            data_files=named.get("data_files"),
        )
        yield from (dict(row) for row in loaded)


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where it is absent."""
    if "," in path:
        return [value_at(row, part.strip()) for part in path.split(",")]
    value: Any = row
    for key in path.split("."):
        if isinstance(value, list):
            value = [item[key] if isinstance(item, Mapping) and key in item else None for item in value]
        else:
            value = value[key] if isinstance(value, Mapping) and key in value else None
    return value
