"""Training runs on real models: the jobs, and how a test, a rank or a process that will be killed runs one.

Every job is what `train.py` makes of its overrides, with the same checks and the same order. Processes start once and
run many jobs, because importing torch takes longer than a tiny student trains.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_modules.job import open_and_run
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config, storable

ANSWER = "It is so."
"""Answer of every row, so that a student with random weights learns in some steps to write it and to end there."""
COMMON = (
    *("source=jsonl", "packs_per_step=2", "packs_per_micro_batch=1", "log_every_steps=1", "model.max_len=256"),
    *("held_out=procedural", "held_out.questions_per_task=1", "held_out.max_new_tokens=4", "held_out.samples=0"),
)


@dataclass(frozen=True)
class Case:
    """How much one real model trains, so that all of them together are done in minutes."""

    rows: int
    epochs: int
    learning_rate: float
    checkpoint_every_steps: int
    kill_after: int
    """Steps after which a run is killed; some more follow."""

    def overrides(self, folder: Path, data: Path, run: Path, *more: str) -> list[str]:
        """Overrides of `train.py`; `data`: a folder for the rows and their cache."""
        rows = data / f"rows-{self.rows}.jsonl"
        if not rows.exists():
            lines = ({"user": f"Does {i} + {i} make {2 * i}?", "answer": ANSWER} for i in range(self.rows))
            rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return [
            *(*COMMON, "model=hub", f"model.weights={folder}", f"source.path={rows}", f"source.cache_dir={data}"),
            *(f"epochs={self.epochs}", f"optimizer.learning_rate={self.learning_rate}"),
            *(f"checkpoint_every_steps={self.checkpoint_every_steps}", f"run_dir={run}", *more),
        ]


TINY = Case(rows=60, epochs=4, learning_rate=1e-2, checkpoint_every_steps=4, kill_after=10)
CASES = {
    "smollm2": Case(rows=12, epochs=1, learning_rate=2e-5, checkpoint_every_steps=1, kill_after=1),
    **dict.fromkeys(("tiny_llama2", "tiny_llama3", "tiny_qwen3", "tiny_deepseek_v3"), TINY),
    "tiny_gemma3": replace(TINY, epochs=7, learning_rate=3e-2),  # a quarter of a million rows, which are its output too
}


def run_job(overrides: Sequence[str]) -> dict[str, Any]:
    """What `train.py` does in one process, or in one rank of several; returns the figures of `results.json`."""
    config = compose_config("train", list(overrides))
    job = TrainingJob(**build_all(config, leave_out=NOT_OF_THE_JOB))
    job.require_here()
    left_out = ("plan", "gpu", "planning")
    stored = {key: value for key, value in storable(config).items() if key not in left_out}
    return open_and_run(job, RunDirectory(Path(config.run_dir)), stored, list(overrides))


def losses(run: Path) -> list[float]:
    """Losses of each step, as metrics.csv has them."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
