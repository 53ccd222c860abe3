"""Measure a student on benchmarks, zero-shot.

The same command again resumes an evaluation that was stopped or killed, and shows its results when it is done.

    python evaluate.py student=runs/mine benchmark=smoke
    python evaluate.py student=<hub id> format=own messages=empty benchmark=gsm8k limit=100    # a model of others
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

import os
import sys
from pathlib import Path
from typing import Any

from lightning_modules.quiet import quiet_libraries
from orca2.console import open_console
from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.settings import build_all, job_overrides, run_main, storable


def evaluate(cfg: Any) -> float | None:
    """Run one evaluation, or what is left of it; returns the mean accuracy of its benchmarks and messages."""
    quiet_libraries()
    console = open_console()
    job = EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))
    try:
        results = run_evaluation(
            job,
            out_dir=None if cfg.out_dir is None else Path(cfg.out_dir),
            config=storable(cfg),
            overrides=job_overrides(),
            command=[sys.executable, str(Path(__file__).resolve()), *job_overrides()],
            environment=os.environ,
            console=console,
        )
    except KeyboardInterrupt:
        console.print("stopped; what was answered is kept, and the same command goes on from there")
        raise SystemExit(130) from None
    accuracies = [value for key, value in (results or {}).items() if key.endswith("/accuracy")]
    return sum(accuracies) / len(accuracies) if accuracies else None


if __name__ == "__main__":
    run_main("evaluate", evaluate)
