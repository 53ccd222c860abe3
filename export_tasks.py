"""Write this project's benchmarks as tasks of lm-evaluation-harness.

Writes one task a benchmark and prints the command that measures a student with lm-eval on the same samples.

    python export_tasks.py benchmark=gsm8k data_dir=<official files> out_dir=tasks
    python export_tasks.py benchmark=arc_easy limit=200
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

from pathlib import Path
from typing import Any

from orca2.console import open_console
from orca2.evaluation.benchmark import flatten
from orca2.evaluation.lm_eval_tasks import command, export_tasks
from orca2.evaluation.sample_plan import make_plan
from orca2.settings import build_all, run_main


def main(cfg: Any) -> None:
    """Write the tasks."""
    job = build_all(cfg)
    data_dir = None if job["data_dir"] is None else Path(job["data_dir"])
    plan = make_plan(flatten(job["benchmark"]), data_dir, job["limit"], job["seed"], job["allow_missing"])
    tasks = export_tasks(plan, Path(job["out_dir"]))
    console = open_console()
    for task, samples in tasks.items():
        console.print(f"{task}: {samples:,} samples")
    print(command(list(tasks), Path(job["out_dir"]).resolve(), "<run>/student"))


if __name__ == "__main__":
    run_main("export_tasks", main)
