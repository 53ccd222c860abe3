"""The scripts of the docs on a real SLURM: two gloo ranks, stopped for another job, back in the queue, then exact.

One node, made from Debian's packages by `cluster.py`; what a stand-in of environment variables cannot show is who gets
which signal, what srun makes of exit codes, and what is put back into the queue.
"""

import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import OFFLINE, ROOT, SMALL_STUDENT
from tests.slurm.cluster import Cluster, missing, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

SMALL = (
    *SMALL_STUDENT,
    "held_out.questions_per_task=1",
    "held_out.max_new_tokens=8",
    "log_every_steps=1",
    "checkpoint_every_steps=500",
    "workers=1",  # processes that SLURM signals as well
)
ROWS = 1200
"""Steps of some seconds in all: enough to be stopped in the middle."""

SIZES = {
    r"--nodes=\d+": "--nodes=1",
    r"--(ntasks|gpus)-per-node=\d+": r"--\1-per-node=2",
    r"--cpus-per-task=\d+": "--cpus-per-task=2",
    r"model=13b strategy=mixed": " ".join(("model=tiny strategy=mixed", *SMALL)),
    r"source=synthesized \S+": f"source=procedural source.size={ROWS}",
    r"packing.length=\d+ packs_per_step=\d+": "packing.length=512 packs_per_step=2",
}
"""What the test makes smaller in the script of docs/scaling.md; all else is run as it stands there."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, running_cluster(Path(folder)) as running:
        running.environment.update({"WANDB_MODE": "offline", "PYTHONPATH": OFFLINE["PYTHONPATH"]})
        # What `source .venv/bin/activate` does.
        running.environment["PATH"] = f"{Path(sys.executable).parent}:{running.environment['PATH']}"
        yield running


def script_of_docs(folder: Path, name: str) -> Path:
    """The batch script of docs/scaling.md, small, with its run in `folder`/`name`."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    for pattern, small in SIZES.items():
        script, found = re.subn(pattern, small, script)
        assert found, pattern
    script = script.replace("/shared/runs/13b-mixed", str(folder / name))
    assert "/shared" not in script
    file = folder / f"{name}.sh"
    file.write_text(script)
    return file


def submitted(cluster: Cluster, script: Path, *options: str) -> int:
    return cluster.submit(script, f"--chdir={ROOT}", f"--output={script.with_suffix('.out')}", *options)


def losses(run: Path) -> list[float]:
    if not (run / "metrics.csv").exists():
        return []
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def wait_until(true: Callable[[], bool], seconds: float, shown: Path) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, shown.read_text() if shown.exists() else f"no {shown}"
        time.sleep(0.3)


def test_a_run_makes_room_and_goes_on_as_if_nothing_had_happened(cluster: Cluster, tmp_path: Path) -> None:
    """SLURM signals every process of a job, W&B's too, and srun kills all tasks when one ends: a run that has to make
    room for another job ended as FAILED with code 143, was not put back into the queue, and had saved nothing."""
    first, second = script_of_docs(tmp_path, "first"), script_of_docs(tmp_path, "second")
    stopped = submitted(cluster, first)
    wait_until(lambda: len(losses(tmp_path / "first")) > 3, 240, first.with_suffix(".out"))
    urgent = submitted(cluster, second, "--partition=urgent", "--exclusive")
    end = cluster.wait_for(urgent, "COMPLETED", "FAILED", seconds=400)
    printed = second.with_suffix(".out").read_text()
    assert end["JobState"] == "COMPLETED" and end["Restarts"] == "0", printed
    assert printed.count("self-test passed") == 1
    assert (tmp_path / "second" / "DONE").exists()

    end = cluster.wait_for(stopped, "COMPLETED", "FAILED", seconds=400)
    printed = first.with_suffix(".out").read_text()
    assert end["JobState"] == "COMPLETED" and end["Restarts"] == "1", printed
    step = int(re.findall(r"stopped after step (\d+); the same command goes on", printed)[0])
    assert f"resuming after step {step}" in printed
    assert "Traceback" not in printed
    never_stopped = losses(tmp_path / "second")
    assert 3 < step < len(never_stopped)
    assert losses(tmp_path / "first") == never_stopped, "to the last bit"
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second")]
    assert results[0] == results[1]


def test_a_run_that_is_still_loading_goes_back_into_the_queue_and_a_cancelled_one_does_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Loading a large model takes minutes, in which a SIGTERM killed the run; SLURM took that for its failure."""
    script = script_of_docs(tmp_path, "loading")
    job = submitted(cluster, script)
    wait_until(lambda: (tmp_path / "loading" / "config.yaml").exists(), 240, script.with_suffix(".out"))
    cluster.call("scancel", "--signal=TERM", str(job))
    requeued = cluster.wait_for(job, "PENDING", "FAILED", seconds=120)
    assert requeued["JobState"] == "PENDING" and requeued["Restarts"] == "1", script.with_suffix(".out").read_text()
    cluster.wait_for(job, "RUNNING", seconds=120)
    time.sleep(2)
    cluster.call("scancel", str(job))
    ended = cluster.wait_for(job, "CANCELLED", seconds=120)
    assert ended["Restarts"] == "1"


def test_a_killed_task_ends_the_job_and_no_requeue_hides_it(cluster: Cluster, tmp_path: Path) -> None:
    """Out of memory again and again, the same job would go round forever."""
    script = script_of_docs(tmp_path, "killed")
    job = submitted(cluster, script)
    wait_until(lambda: len(losses(tmp_path / "killed")) > 3, 240, script.with_suffix(".out"))
    tasks = cluster.call("scontrol", "listpids", f"{job}.0").splitlines()[1:]
    last = max(int(line.split()[0]) for line in tasks if line.split()[3] == "1")
    subprocess.run(["kill", "-KILL", str(last)], check=True)
    ended = cluster.wait_for(job, "FAILED", "COMPLETED", seconds=120)
    assert ended["JobState"] == "FAILED" and ended["Restarts"] == "0", script.with_suffix(".out").read_text()


def test_jobs_of_a_sweep_that_are_stopped_go_on(cluster: Cluster, tmp_path: Path) -> None:
    """The launcher's SIGUSR2 reached every process of the job and killed the training before it could save; after a
    SIGTERM the job ended, and the sweep went without it."""
    sweep, head = tmp_path / "sweep", tmp_path / "head.out"
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-m", "strategy=direct,mixed", "trainer=fsdp", f"run_dir={sweep}"),
        *("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=2"),
        *("hydra.launcher.cpus_per_task=4", "hydra.launcher.mem_gb=8", f"source.size={ROWS}", *SMALL),
    ]
    with head.open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=cluster.environment, stdout=out, stderr=out)
    try:
        runs = {name: sweep / f"strategy-{name}" for name in ("direct", "mixed")}
        wait_until(lambda: all(len(losses(run)) > 3 for run in runs.values()), 400, head)
        jobs = cluster.call("squeue", "--noheader", "--format=%A").split()
        assert len(jobs) == 2
        for job, number in zip(jobs, ("USR2", "TERM"), strict=True):
            cluster.call("scancel", f"--signal={number}", job)
        wait_until(lambda: process.poll() is not None, 500, head)
    finally:
        process.kill()
    assert process.returncode == 0, head.read_text()
    for run in runs.values():
        log = (run / "job.log").read_text()
        step = re.findall(r"stopped after step (\d+);", log)
        assert len(step) == 1 and f"resuming after step {step[0]}" in log, log
        assert json.loads((run / "job.json").read_text())["state"] == "done"
    assert "| direct |" in (sweep / "sweep.md").read_text()


def test_synthesis_and_evaluation_share_the_work_of_sruns_tasks(cluster: Cluster, tmp_path: Path) -> None:
    """Taken for a single process, each task would do the whole of the work."""
    made = tmp_path / "made"
    asked = ["python", "synthesize.py", "tasks=procedural", "strategy=mixed", "teacher=rule", "size=40"]
    printed = cluster.call("srun", "--ntasks=2", f"--chdir={ROOT}", *asked, f"out_dir={made}")
    assert (made / "DONE").exists(), printed
    answers = tmp_path / "gold"
    asked = ["python", "evaluate.py", "backend=gold", "benchmark=smoke", f"out_dir={answers}"]
    printed = cluster.call("srun", "--ntasks=2", f"--chdir={ROOT}", *asked)
    assert (answers / "DONE").exists(), printed
