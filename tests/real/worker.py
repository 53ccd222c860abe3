"""A process that trains several real models one after the other; the tests start and judge it.

    RANK=… WORLD_SIZE=… python tests/real/worker.py ranks JOBS.json    one rank of a process group
    python tests/real/worker.py kill JOBS.json                         each run is killed (SIGKILL) after some steps

JOBS.json: {name: {"overrides": […], "run": folder, "kill_after": steps}}. What ends a job is written to
<run>.error-<rank>, and the next job begins.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from orca2.processes.ranks import here, joined
from tests.real.runs import losses, run_job

PATIENCE_S = 500.0


def train(job: dict[str, Any]) -> None:
    """Run a job, or write down what ended it."""
    try:
        run_job(job["overrides"])
    except BaseException:
        Path(f"{job['run']}.error-{here().rank}").write_text(traceback.format_exc())


def train_and_kill(job: dict[str, Any]) -> None:
    """Run a job in a child, which is killed as soon as it has taken its steps. This process itself computes nothing:
    a child of one that has would refuse to."""
    run, child = Path(job["run"]), os.fork()
    if child == 0:
        train(job)
        os._exit(0)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
        if (run / "metrics.csv").exists() and len(losses(run)) >= job["kill_after"]:
            break
        time.sleep(0.005)
    else:
        return  # the run ended by itself, and the test will say so
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main(mode: str, jobs: dict[str, dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    if mode == "kill":
        for job in jobs.values():
            train_and_kill(job)
        return
    # All on this machine, as the head process of train.py tells its ranks; Lightning asks for it.
    os.environ |= {"LOCAL_RANK": os.environ["RANK"], "LOCAL_WORLD_SIZE": os.environ["WORLD_SIZE"], "GROUP_RANK": "0"}
    with joined("cpu"):
        for job in jobs.values():
            train(job)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
