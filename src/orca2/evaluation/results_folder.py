"""An evaluation's folder: how it is opened, and what stands in it once every sample has a record.

`results.json` is there when the evaluation is whole, and only then.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orca2.errors import CheckpointError
from orca2.evaluation.report.load import REJECTED, load_run
from orca2.evaluation.report.write import add_judged, write_report
from orca2.evaluation.results import flat_results
from orca2.evaluation.runner import SAMPLES, AskedSample, merge
from orca2.evaluation.sample_plan import SamplePlan
from orca2.files import atomic_write_json, atomic_write_text
from orca2.records import Rejected
from orca2.runs import RunDirectory, State


def open_folder(run: RunDirectory, config: Mapping[str, Any], overrides: Sequence[str]) -> State:
    """Do what `RunDirectory.open_or_resume` does; samples without a manifest belong to another command and stay.

    Raises:
        CheckpointError: the folder holds an evaluation of another config, or samples of another command.
    """
    if not run.manifest.exists() and (run.path / SAMPLES).exists():
        raise CheckpointError(
            f"{run.key} = {run.path} holds {SAMPLES} of another command, and no manifest.json that says of which; "
            f"choose another folder with {run.key}=<folder>"
        )
    return run.open_or_resume(config, overrides)


def open_for(plan: SamplePlan, run: RunDirectory, config: Mapping[str, Any], overrides: Sequence[str]) -> State:
    """Do what `open_folder` does; a finished evaluation goes on if a benchmark that it lacked is there now."""
    state = open_folder(run, config, overrides)
    if state != "done" or is_whole(plan, run):
        return state
    run.results.unlink(missing_ok=True)
    run.done.unlink()
    return run.open_or_resume(config, overrides)


def is_whole(plan: SamplePlan, run: RunDirectory) -> bool:
    """Whether the folder is done with every benchmark of the plan."""
    try:
        results = json.loads(run.results.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return run.is_done and all(f"data/{name}/asked" in results for name in plan.benchmarks)


def write_rejected(plan: SamplePlan, folder: Path) -> None:
    """Write `rejected.jsonl`: every row that is not asked, and every absent task and benchmark, with the reason."""
    rejected = [row for one in plan.benchmarks.values() for row in (*one.rejected, *one.absent)]
    rejected += [Rejected(source=name, row="", kind="absent", reason=reason) for name, reason in plan.absent.items()]
    lines = [json.dumps(asdict(row)) + "\n" for row in rejected]  # ASCII: a row may quote half of a surrogate pair
    atomic_write_text(folder / REJECTED, "".join(lines))


def finish(plan: SamplePlan, asked: list[AskedSample], folder: Path, name: str) -> dict[str, float]:
    """Merge the records, write `results.json` and the report of a run called `name`, and mark the folder as done.

    Returns the flat figures. Raises DataError where a sample has no record.
    """
    run = RunDirectory(folder)
    flat = flat_results(merge(asked, folder), plan)
    atomic_write_json(run.results, {**flat, "samples": SAMPLES})
    summary = write_report([load_run(name, folder)], folder)
    add_judged(folder, summary.judged)
    run.mark_done()
    return flat
