"""Make a data set: a teacher answers tasks under strategy instructions, and its answers are checked.

The same command again goes on where it was stopped or killed, pays for no answer twice, and says so when it is done.

    python synthesize.py tasks=procedural strategy=mixed teacher=rule size=20000
    python synthesize.py tasks=gsm8k tasks.path=train.jsonl teacher=openai teacher.model=<name> estimate=true
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

from pathlib import Path
from typing import Any

from orca2.console import open_console
from orca2.runs import RunDirectory
from orca2.settings import build_all, job_overrides, run_main, storable
from orca2.synthesis.pipeline import Stopped, pre_flight, synthesize
from orca2.synthesis.synthesis_job import OPERATIONAL, SynthesisJob


def main(cfg: Any) -> None:
    """Make the data set, or what is left of it, or only estimate it."""
    console = open_console()
    job = SynthesisJob(**build_all(cfg, leave_out=("out_dir",)))
    if job.estimate:
        with job.opened_cache(None if Path(job.cache).exists() else ":memory:") as cache:
            pre_flight(job, cache, console)
        return
    job.require_here()
    run = RunDirectory(Path(cfg.out_dir), key="out_dir", operational=OPERATIONAL)
    try:
        synthesize(job, run, storable(cfg), job_overrides(), console)
    except Stopped as stop:
        console.print(str(stop))
        raise SystemExit(130) from None


if __name__ == "__main__":
    run_main("synthesize", main)
