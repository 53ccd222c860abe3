"""Train a student: `python train.py model=tiny strategy=mixed source=procedural`; `--help` lists the rest.

The same command again resumes a run that was stopped or killed, and says so when it is done. With `plan=true` it
only says what the run would take, and whether it fits.
"""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_modules.job import Interrupted, TrainingJob, open_and_run
from lightning_modules.planning import plan_run
from lightning_modules.quiet import quiet_libraries
from orca2.launch import STOPPED, reporting, start_ranks
from orca2.ranks import is_first, joined
from orca2.runs import RunDirectory
from orca2.settings import build_all, job_overrides, run_main, storable

METRIC = "held_out/cautious/accuracy"
"""Of `results.json`; what a run returns, and what a sweep compares."""


def train(cfg: Any) -> float | None:
    """Run one job, or what is left of it; returns the mean held-out accuracy, which a sweep can compare."""
    quiet_libraries()
    run = RunDirectory(Path(cfg.run_dir))
    with reporting():
        built = build_all(cfg, leave_out=("run_dir", "plan"))
        gpu, assumptions = built.pop("gpu"), built.pop("planning")
        job = TrainingJob(**built)
        if cfg.plan:
            plan_run({job.name: job}, gpu, assumptions, Console(width=None if sys.stdout.isatty() else 140))
            return None
        job.require_here()
        if job.trainer.starts_ranks and not run.is_done:
            start_ranks(__file__, job_overrides(), job.trainer.world)
            metrics = json.loads(run.results.read_text(encoding="utf-8"))
        else:
            metrics = train_here(job, run, cfg)
    accuracy: float | None = metrics.get(METRIC)
    return accuracy


def train_here(job: TrainingJob, run: RunDirectory, cfg: Any) -> dict[str, Any]:
    """Run the job in this process, one rank of those that were launched."""
    with joined(job.trainer.device.type):
        try:
            return open_and_run(job, run, settings_of_run(cfg), job_overrides())
        except Interrupted as stop:
            if is_first():
                print(stop)
            raise SystemExit(STOPPED) from None


def settings_of_run(cfg: Any) -> dict[str, Any]:
    """What is stored with a run and must not change; how it was planned changes nothing in it."""
    return {key: value for key, value in storable(cfg).items() if key not in ("plan", "gpu", "planning")}


if __name__ == "__main__":
    run_main("train", train, sweep_metric=METRIC)
