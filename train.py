"""Train a student.

The same command again resumes a run that was stopped. `plan=true` only says what a run would take, and whether it fits.

    python train.py                           # the demo: a small student on generated tasks
    python train.py model=hub model.weights=<folder or hub id> source=jsonl source.path=mine.jsonl name=mine
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

from rich.console import Console

from lightning_modules.curriculum_run import run_stages
from lightning_modules.job import Interrupted, open_and_run
from lightning_modules.planning import plan_run
from lightning_modules.quiet import quiet_libraries
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.console import open_console
from orca2.errors import ConfigError
from orca2.processes.launch import STOPPED, reporting, start_ranks
from orca2.processes.ranks import is_first, joined
from orca2.runs import RunDirectory, movable
from orca2.settings import build, build_all, expected_tokens, job_overrides, run_main, stage_configs, storable
from orca2.settings.targets import nearest

METRICS = ("held_out/cautious/accuracy", "held_out/own/accuracy")
"""Entries of `results.json`: what a run returns and a sweep compares, and what a sweep shows beside it."""
OF_PLANS = ("plan", "gpu", "planning")  # root keys that change nothing in a run


class Planned(NamedTuple):
    """A run that can start: everything that its config can get wrong has been looked at."""

    job: TrainingJob
    run: RunDirectory
    config: dict[str, Any]


def train(cfg: Any) -> float | None:
    """Run one job, or what is left of it; returns the mean held-out accuracy, which a sweep can compare."""
    quiet_libraries()
    console = open_console(quiet=not is_first())
    with reporting():
        stages = {} if cfg.curriculum is None else {key: planned(one, True) for key, one in stage_configs(cfg).items()}
        if cfg.only_stage not in (None, *stages):
            raise ConfigError(f"only_stage = {cfg.only_stage}: no such stage{nearest(cfg.only_stage, stages)}")
        runs = stages or {str(cfg.name): planned(cfg)}
        jobs = {key: run.job for key, run in runs.items()}
        if cfg.plan:
            plan_run(jobs, build(cfg.gpu), build(cfg.planning), console, expected_tokens(cfg))
            return None
        for job in jobs.values():
            job.require_here()
        with joined(job.trainer.device.type):
            in_stages = bool(stages) and cfg.only_stage is None
            one = runs[cfg.only_stage or next(iter(runs))]
            metrics = train_stages(cfg, stages, console) if in_stages else train_one(one, job_overrides())
    return cast(float | None, metrics.get(METRICS[0]))


def planned(cfg: Any, is_stage: bool = False) -> Planned:
    """The run that a config without a curriculum describes, by itself or as a stage of one."""
    job = TrainingJob(**build_all(cfg, leave_out=NOT_OF_THE_JOB))
    config = storable(cfg, leave_out=OF_PLANS)
    return Planned(job, RunDirectory(Path(cfg.run_dir)), movable(config) if is_stage else config)


def train_stages(cfg: Any, stages: dict[str, Planned], console: Console) -> dict[str, Any]:
    """The stages of the curriculum that are not done."""
    run, overrides = RunDirectory(Path(cfg.run_dir)), job_overrides()
    folders = {key: stage.run for key, stage in stages.items()}

    def train_stage(key: str) -> dict[str, Any]:
        return train_one(stages[key], [*overrides, f"only_stage={key}"])

    return run_stages(run, storable(cfg, leave_out=OF_PLANS), overrides, folders, train_stage, console)


def train_one(planned: Planned, overrides: list[str]) -> dict[str, Any]:
    """One run: started in ranks of its own if it is for several devices, else in this process, which may be a rank."""
    job, run, config = planned
    if job.trainer.starts_ranks and not run.is_done:
        start_ranks(__file__, overrides, job.trainer.world)
        return dict(json.loads(run.results.read_text(encoding="utf-8")))
    try:
        return open_and_run(job, run, config, overrides)
    except Interrupted as stop:
        if is_first():
            print(stop)
        raise SystemExit(STOPPED) from None


if __name__ == "__main__":
    run_main("train", train, sweep_metrics=METRICS)
