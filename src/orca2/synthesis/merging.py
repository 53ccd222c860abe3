"""The end of a synthesis: the rows of all ranks become the files of a data set.

<out_dir>/
  data/train-00000-of-00004.parquet           the examples; what `datasets` and source=synthesized read
  rejected_answers/answers-00000-of-….parquet answers that were not kept, with reasons: pairs of preference
  rejected.jsonl                              items that were not asked, with stage and reason
  failures.jsonl                              requests without an answer, with their kind
  manifest.json                               its entry `output` counts all of it
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from orca2.errors import DataError
from orca2.records import Example, Turn
from orca2.synthesis.builders.few_shot import FewShot
from orca2.synthesis.dataset_files import ANSWERS, EXAMPLES, WrittenFile, write_lines, write_shards
from orca2.synthesis.sampling import TaskMix
from orca2.synthesis.spill import LineKind, Spill, count_rows, sorted_rows
from orca2.synthesis.synthesis_job import SynthesisJob

DATA, ANSWERS_FOLDER = "data", "rejected_answers"
REJECTED, FAILURES = "rejected.jsonl", "failures.jsonl"
FIELDS = [one.name for one in fields(Example)]


class Composition:
    """Counts examples on their way to the shards."""

    def __init__(self) -> None:
        self.strategies: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.teachers: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.traces = 0
        self._sources: dict[str, Counter[str]] = {}
        self._licences: dict[str, Counter[str]] = {}

    def counted(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same rows."""
        for row in rows:
            self.strategies[row["strategy"]] += 1
            self.verdicts[row["verdict"] or "none"] += 1
            self.teachers[row["teacher"]] += 1
            self.usage.update(row["usage"] or {})
            self.traces += bool(row["reasoning"])
            self._sources.setdefault(row["source"], Counter())[row["task"]] += 1
            self._licences.setdefault(row["source"], Counter())[row["licence"]] += 1
            yield row

    def as_json(self) -> dict[str, Any]:
        return {
            "strategies": dict(self.strategies.most_common()),
            "verdicts": dict(self.verdicts.most_common()),
            "teachers": dict(self.teachers.most_common()),
            "usage": dict(sorted(self.usage.items())),
            "with_reasoning": self.traces,
            "sources": {
                source: {
                    "examples": tasks.total(),
                    "licences": dict(self._licences[source].most_common()),
                    "tasks": dict(sorted(tasks.items())),
                }
                for source, tasks in sorted(self._sources.items())
            },
        }


class NothingKept(DataError):
    """No item has an answer that verification keeps."""


def write_data_set(job: SynthesisJob, ranks: Sequence[Path], few_shot: Path, out: Path) -> dict[str, Any]:
    """Write all files from the spills of the ranks; returns the counts for the manifest.

    `few_shot` is a folder for the spill of the examples built here. Raises NothingKept, DataError where there is no
    room.
    """
    built = _build_few_shot(job, ranks, few_shot)
    folders = [*ranks, few_shot]
    kept, others = count_rows(folders, "example"), count_rows(ranks, "answer")
    if not kept:
        raise NothingKept(_why_none(job, ranks))
    composition = Composition()
    rows = composition.counted(sorted_rows(folders, "example"))
    files = _named(DATA, write_shards(rows, kept, EXAMPLES, out / DATA, "train", job.shard_rows))
    rows = sorted_rows(ranks, "answer")
    answers = write_shards(rows, others, ANSWERS, out / ANSWERS_FOLDER, "answers", job.shard_rows)
    files |= _named(ANSWERS_FOLDER, answers)
    not_asked, failures = Counter[str](), Counter[str]()
    files[REJECTED] = write_lines(_tallied(ranks, "rejected", not_asked, "stage"), out / REJECTED)
    files[FAILURES] = write_lines(_tallied(ranks, "failure", failures, "kind"), out / FAILURES)
    return {
        "examples": kept,
        "few_shot": built,
        **composition.as_json(),
        "answers_not_kept": others,
        "not_asked": dict(not_asked.most_common()),
        "failures": dict(failures.most_common()),
        "files": {name: asdict(file) for name, file in files.items()},
    }


def example_row(example: Example, licence: str) -> dict[str, Any]:
    """An example as a spill keeps it."""
    return {**asdict(example), "licence": licence}


def _build_few_shot(job: SynthesisJob, ranks: Sequence[Path], folder: Path) -> int:
    licences: dict[tuple[str, str], str] = {}
    sources = job.reader.few_shot_sources if isinstance(job.reader, TaskMix) else frozenset[str]()

    def examples() -> Iterator[Example]:
        for row in sorted_rows(ranks, "example"):
            if row["source"] in sources:
                licences[row["source"], row["task"]] = row["licence"]
                yield example_of(row)

    built = 0
    with Spill(folder) as spill:
        for example in FewShot(seed=job.seed).build(examples, job.few_shot) if job.few_shot else ():
            spill.write("example", example.id, example_row(example, licences[example.source, example.task]))
            built += 1
    return built


def example_of(row: Mapping[str, Any]) -> Example:
    """A stored row as an example."""
    values = {name: row[name] for name in FIELDS}
    return Example(**values | {"history": tuple(Turn(**turn) for turn in row["history"])})


def _named(folder: str, files: Mapping[str, WrittenFile]) -> dict[str, WrittenFile]:
    return {f"{folder}/{name}": file for name, file in files.items()}


def _tallied(ranks: Sequence[Path], kind: LineKind, tally: Counter[str], key: str) -> Iterator[dict[str, Any]]:
    for row in sorted_rows(ranks, kind):
        tally[row[key]] += 1
        yield row


def _why_none(job: SynthesisJob, ranks: Sequence[Path]) -> str:
    kinds: tuple[tuple[LineKind, str, str], ...] = (
        ("rejected", "not asked", "reason"), ("failure", "without an answer", "reason"),
        ("answer", "answers that verification does not keep", "reason"),
    )  # fmt: skip
    found = []
    for kind, what, key in kinds:
        reasons = Counter(row[key] for row in sorted_rows(ranks, kind))
        found += [f"{reasons.total():,} {what}, such as: {reason}" for reason, _ in reasons.most_common(1)]
    return (
        f"no answer was kept (verification={job.verification.name}): {'; '.join(found) or 'there are no items'}. "
        "Mend that and run the same command again, or another one in another out_dir with this one's cache=…; what "
        "was answered is in the cache"
    )
