"""`train.py` in several processes, as people start it: what is left behind, and what happens when a process dies."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.commands import OFFLINE, ROOT, SMALL_STUDENT

SMALL = (
    *SMALL_STUDENT,
    "source.size=420",
    "held_out.questions_per_task=1",
    "held_out.max_new_tokens=8",
    "held_out.sample_every_steps=10",
    "log_every_steps=1",
)
LONG = ("source.size=20000", "checkpoint_every_steps=5")
STOPPED, MENDABLE = 130, 2

pytestmark = pytest.mark.slow


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *SMALL, *overrides]


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that train in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # ended meanwhile
            continue
        if f"run_dir={folder}" in line:
            found.append(line)
    return found


def wait_until(true: Callable[[], bool], seconds: float, process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.2)


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A long run in two ranks, some steps after its start."""
    process = subprocess.Popen(
        command(f"run_dir={folder}", *LONG, *arguments),
        cwd=folder.parent,
        env=OFFLINE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: (folder / "metrics.csv").exists() and len(losses(folder)) > 7, 240, process)
    return process


def ranks_of(head: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{head.pid}/task/{head.pid}/children").read_text().split()
    assert len(children) == 2
    return [int(child) for child in children]


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_a_run_in_two_processes_ends_like_any_other(trainer: str, tmp_path: Path) -> None:
    """One command must do: train, export, answer, mark done; with one voice."""
    folder = tmp_path / "run"
    done = subprocess.run(
        command(f"run_dir={folder}", f"trainer={trainer}", "model.activation_checkpointing=selective"),
        cwd=tmp_path,
        env=OFFLINE,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "DONE").exists()
    assert done.stdout.count("self-test passed") == 1
    results = json.loads((folder / "results.json").read_text())
    assert results["data/rows"] == 420
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len({answer["id"] for answer in answers}) * 2 == len(answers) == results["held_out/cautious/n"] * 2
    steps = losses(folder)
    assert steps[-1] < steps[0]
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


def test_a_sweep_over_two_processes_makes_exactly_its_jobs(tmp_path: Path) -> None:
    """Ranks that are still in multirun mode would each run the whole sweep."""
    done = subprocess.run(
        [*command("model=tiny", "strategy=direct,mixed", "trainer=ddp"), "-m"],
        cwd=tmp_path,
        env=OFFLINE,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    finished = [path.parent for path in tmp_path.rglob("DONE")]
    assert len(finished) == 2 and {path.name.rpartition("-")[2] for path in finished} == {"direct", "mixed"}
    assert len(list(tmp_path.rglob("results.json"))) == 2
    offline = list(tmp_path.rglob("offline-run-*"))
    assert len({path.name.rpartition("-")[2] for path in offline}) == len(offline) == 2
    assert done.stdout.count("self-test passed") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_passed_on_and_the_run_goes_on_later(number: signal.Signals, tmp_path: Path) -> None:
    """Preemption and Ctrl-C must cost one step at most, and leave no process behind."""
    folder = tmp_path / "run"
    head = started(folder, "trainer=fsdp")
    head.send_signal(number)
    printed, _ = head.communicate(timeout=120)
    assert head.returncode == STOPPED, printed
    assert printed.count("the same command goes on from there") == 1
    assert "Traceback" not in printed
    assert processes_of(folder) == []
    saved = [path.name for path in (folder / "checkpoints").iterdir()]
    assert f"step-{len(losses(folder)):08d}" in saved


def test_a_killed_rank_ends_the_run_with_one_message(tmp_path: Path) -> None:
    """The out-of-memory killer takes one rank; the others would wait for it for half an hour."""
    folder = tmp_path / "run"
    head = started(folder, "trainer=ddp")
    os.kill(ranks_of(head)[1], signal.SIGKILL)
    printed, _ = head.communicate(timeout=60)
    assert head.returncode == MENDABLE, printed
    assert "rank 1 was killed by SIGKILL" in printed or "rank 0 was killed by SIGKILL" in printed
    assert "Traceback" not in printed
    assert processes_of(folder) == []


def test_ranks_do_not_outlive_their_head(tmp_path: Path) -> None:
    """A killed head must not leave ranks that train, and hold the GPUs, unseen."""
    folder = tmp_path / "run"
    head = started(folder, "trainer=ddp")
    head.kill()
    head.wait()
    wait_until(lambda: processes_of(folder) == [], 60)
    assert any((folder / "checkpoints").glob("step-*"))


def test_an_error_is_told_once_with_its_rank(tmp_path: Path) -> None:
    """The same traceback from every rank hides its reason."""
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "train.py"), f"run_dir={tmp_path / 'run'}", "trainer=ddp"),
            *("model=hub", f"model.weights={tmp_path}/none", "packing.length=256"),
        ],
        cwd=tmp_path,
        env=OFFLINE,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == MENDABLE, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("is not a folder") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_srun_starts_the_ranks_itself(tmp_path: Path) -> None:
    """Under SLURM every task is a rank; a head in each would start ranks of its own."""
    folder = tmp_path / "run"
    shared = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    shared |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_NODEID": "0"}
    tasks = [
        subprocess.Popen(
            command(f"run_dir={folder}", "trainer=fsdp", "source.size=200"),
            cwd=tmp_path,
            env=OFFLINE | shared | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], printed
    assert (folder / "DONE").exists()
    assert "self-test passed" in printed[0] and "self-test passed" not in printed[1]
