"""Finds what an evaluation left behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from orca2.errors import ConfigError, DataError
from orca2.evaluation.runner import stored_records
from orca2.evaluation.sample_records import SampleRecord
from orca2.evaluation.verdicts import JudgeVerdict, read_verdicts

REJECTED = "rejected.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One evaluation: a student, or what stood in for one, on some benchmarks under some messages."""

    name: str
    records: tuple[SampleRecord, ...]
    verdicts: tuple[JudgeVerdict, ...]
    rows: Mapping[str, Mapping[str, float]]
    """Benchmark -> `rows`, `asked` and `rejected` rows of its files, and its `absent_tasks`; empty
    where the run is not finished."""
    problems: tuple[str, ...]


def load_run(name: str, folder: Path) -> Run:
    """The evaluation in a folder, finished or not.

    Raises:
        DataError: there is no record in it.
    """
    found, wrong = stored_records(folder) if folder.is_dir() else ({}, [])
    if not found:
        raise DataError(
            f"{folder} holds no answered samples; give the out_dir of a finished `python evaluate.py` "
            "(or of one that has begun)"
        )
    results = _results(folder)
    problems = [*wrong, *_absent(folder)]
    if not results:
        problems.append("the evaluation is not finished: figures are of what is there")
    rows: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        first, _, rest = key.partition("/")
        if first == "data":
            benchmark, _, count = rest.rpartition("/")
            rows.setdefault(benchmark, {})[count] = value
    return Run(
        name=name,
        records=tuple(found.values()),
        verdicts=tuple(read_verdicts(folder)),
        rows=rows,
        problems=tuple(problems),
    )


def load_runs(chosen: object, out_dir: str | None) -> list[Run]:
    """The evaluations of `runs={name: folder, ...}`, or else the one in `out_dir`.

    Raises:
        ConfigError: neither says where an evaluation is.
        DataError: a folder has no record in it.
    """
    if out_dir is None:
        raise ConfigError(
            "out_dir = null: give out_dir=<folder of an evaluation>, or where a report of runs={...} goes"
        )
    if chosen is None:
        return [load_run(run_name(Path(out_dir)), Path(out_dir))]
    if not isinstance(chosen, Mapping) or not chosen or not all(isinstance(one, str) for one in chosen.values()):
        raise ConfigError(f"runs = {chosen!r}: give names and folders, such as 'runs={{base: runs/a, ours: runs/b}}'")
    return [load_run(str(name), Path(folder)) for name, folder in chosen.items()]


def run_name(folder: Path) -> str:
    """What to call an evaluation: the student that it measured, or else its folder."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        student = config["student"] or config["backend"]["name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        student = folder.resolve().name
    return Path(str(student)).name


def _absent(folder: Path) -> list[str]:
    """What to say of benchmarks that were left out because their files are not there."""
    path = folder / REJECTED
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        absent = [row for row in rows if row["kind"] == "absent"]
        return [f"{row['source']} was not asked{' whole' if row['row'] else ''}: {row['reason']}" for row in absent]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}; give the evaluate.py command again") from error


def _results(folder: Path) -> dict[str, float]:
    path = folder / "results.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; give the evaluate.py command again") from error
    return {key: value for key, value in content.items() if isinstance(value, (int, float))}
