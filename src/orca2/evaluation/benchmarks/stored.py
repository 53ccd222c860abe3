"""A benchmark that is read from rows: every one but the procedural task families.

YAML: kind, prompt, tasks, layouts ──▶ rows of each task ──▶ Sample, or Rejected with the reason
"""

import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from orca2.answers.extraction import Extraction
from orca2.errors import ConfigError, DataError
from orca2.evaluation.benchmark import DOMAINS, Domain, Judgement, Sample
from orca2.evaluation.benchmarks.kinds import KINDS, Filled, KindRules, rules_of, score_of
from orca2.hashing import is_unicode
from orca2.records import AnswerKind, Rejected
from orca2.rows.benchmark_rows import Layout

_EVERYWHERE = frozenset({"id", "task"})


@dataclass(frozen=True, kw_only=True)
class StoredBenchmark:
    """One test set that lies in files or on the hub.

    Raises:
        ConfigError: an unknown kind, domain, layout key or place in the prompt, or no task or layout.
    """

    name: str
    version: int
    domain: Domain
    kind: AnswerKind
    max_new_tokens: int
    prompt: str
    """Template of the first user turn; `{places}` are those of the kind."""
    tasks: Mapping[str, str]
    """Task -> its name in file names and hub configs, which layouts write `{name}`."""
    layouts: Mapping[str, Mapping[str, str | None]]
    """Layouts by preference: for a task, the first whose files exist; without a folder, the first on the hub."""
    shuffle: bool = False
    """Order options by a seed made of the sample's id; needed where a source puts the right one first."""
    judgement: Judgement = "none"

    def __post_init__(self) -> None:
        where = f"benchmark {self.name!r}"
        rules = rules_of(self.kind, where)
        if self.domain not in DOMAINS:
            raise ConfigError(f"{where}: domain = {self.domain!r}; allowed are {list(DOMAINS)}")
        if not self.tasks or not self.layouts:
            raise ConfigError(f"{where}: needs at least one task and one layout")
        if self.version < 1 or self.max_new_tokens < 1:
            raise ConfigError(
                f"{where}: version {self.version} and max_new_tokens {self.max_new_tokens} must be at least 1"
            )
        places = {place for _, place, _, _ in string.Formatter().parse(self.prompt) if place is not None}
        if places - rules.places:
            raise ConfigError(
                f"{where}: the prompt names {sorted(places - rules.places)}; kind {self.kind!r} fills "
                f"{sorted(rules.places)}"
            )
        self._layouts()

    @property
    def metrics(self) -> tuple[str, ...]:
        return self._rules.metrics

    @property
    def _rules(self) -> KindRules:
        return KINDS[self.kind]

    def _layouts(self) -> list[Layout]:
        known = self._rules.columns | _EVERYWHERE
        return [Layout.read(self.name, name, entries, known) for name, entries in self.layouts.items()]

    def samples(self, data_dir: Path | None) -> Iterator[Sample | Rejected]:
        """See `Benchmark.samples`. The absent files of one task are one `Rejected`."""
        chosen = {task: self._layout(name, data_dir) for task, name in self.tasks.items()}
        if data_dir is not None and not any(chosen.values()):
            patterns = ", ".join(layout.settings["files"] for layout in self._layouts() if not layout.on_hub)
            raise DataError(
                f"benchmark {self.name!r}: none of its files is in {data_dir}; it looks for {patterns}. "
                "Put the official files there, see docs/benchmarks.md"
            )
        for task, layout in chosen.items():
            if layout is None:
                reason = f"no file for task {task!r}"
                yield Rejected(source=self.name, row=f"{task}/*", kind="absent", reason=reason)
            else:
                yield from self._of_task(task, layout, data_dir)

    def _layout(self, name: str, data_dir: Path | None) -> Layout | None:
        layouts = self._layouts()
        if data_dir is not None:
            return next((one for one in layouts if not one.on_hub and one.paths(data_dir, name)), None)
        hub = next((one for one in layouts if one.on_hub), None)
        if hub is None:
            patterns = ", ".join(one.settings["files"] for one in layouts)
            raise DataError(f"benchmark {self.name!r} has no hub form; give data_dir=<folder> with {patterns}")
        return hub

    def _of_task(self, task: str, layout: Layout, data_dir: Path | None) -> Iterator[Sample | Rejected]:
        seen: Counter[str] = Counter()
        for number, row in enumerate(layout.rows(data_dir, self.tasks[task])):
            if "broken" in row:
                yield self._rejected(f"{task}/{number}", row["broken"])
                continue
            subtask = str(row["task"]) if row.get("task") else task
            key = str(number) if row.get("id") in (None, "") else str(row["id"])
            seen[key] += 1
            # Questions about one passage may share its id; they are told apart by their order.
            key = key if seen[key] == 1 else f"{key}#{seen[key]}"
            sample_id = f"{self.name}/{subtask}/{key}"
            try:
                yield self._sample(sample_id, subtask, row)
            except (DataError, ValueError, TypeError, OverflowError) as error:
                yield self._rejected(f"{subtask}/{key}", str(error))

    def _sample(self, sample_id: str, task: str, row: Mapping[str, Any]) -> Sample:
        filled = self._rules.fill(row, Random(sample_id) if self.shuffle else None)
        first, document = _fill_prompt(self.prompt, filled)
        for text in (sample_id, first, *filled.later_turns, *(part for gold in filled.gold for part in gold)):
            if not is_unicode(text):
                raise DataError("a text holds half of a surrogate pair; no file can hold it")
        return Sample(
            id=sample_id,
            benchmark=self.name,
            task=task,
            turns=(first, *filled.later_turns),
            kind=self.kind,
            gold=filled.gold,
            choices=filled.choices,
            document=document,
            metadata=filled.metadata,
        )

    def _rejected(self, row: str, reason: str) -> Rejected:
        return Rejected(source=self.name, row=row, kind="broken", reason=reason)

    def read(self, text: str, sample: Sample) -> Extraction:
        return self._rules.read(text, sample)

    def score(self, extraction: Extraction, sample: Sample) -> dict[str, float]:
        return score_of(extraction, sample, self._rules)


def _fill_prompt(template: str, filled: Filled) -> tuple[str, tuple[int, int] | None]:
    """The prompt's text, and where the document stands in it."""
    text, document = "", None
    for literal, place, _, _ in string.Formatter().parse(template):
        text += literal
        if place == "document":
            document = (len(text), len(text) + len(filled.texts[place]))
        text += filled.texts[place] if place else ""
    lead = len(text) - len(text.lstrip())
    return text.strip(), (document[0] - lead, document[1] - lead) if document else None
