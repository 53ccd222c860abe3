"""Train a student: `python train.py model=tiny strategy=mixed source=procedural`; `--help` lists the rest.

The same command again resumes a run that was stopped or killed, and says so when it is done.
"""

import json
from pathlib import Path
from typing import Any

from lightning_modules.job import Interrupted, TrainingJob, open_and_run
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
        job = TrainingJob(**build_all(cfg, leave_out=("run_dir",)))
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
            return open_and_run(job, run, storable(cfg), job_overrides())
        except Interrupted as stop:
            if is_first():
                print(stop)
            raise SystemExit(STOPPED) from None


if __name__ == "__main__":
    run_main("train", train, sweep_metric=METRIC)
