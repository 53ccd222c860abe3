"""`curriculum=` as people type it: killed in the middle, on one process and on several, and completed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.commands import OFFLINE, ROOT, SMALL_STUDENT

STAGES = ("gold", "explained", "erased")
SMALL = (
    *SMALL_STUDENT,
    *(f"curriculum.stages.{key}.source.size=160" for key in STAGES),
    *(f"curriculum.stages.{key}.held_out.questions_per_task=1" for key in STAGES),
    "held_out.max_new_tokens=4",
    "held_out.sample_every_steps=1000",
    "log_every_steps=1",
    "checkpoint_every_steps=1",
    "logger.mode=offline",
)
"""Three stages of a few steps each."""


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "curriculum=smoke", f"run_dir={folder}", *SMALL, *overrides]


def kill_in_the_second_stage(folder: Path, *overrides: str) -> None:
    """kill -9 of one process that trains, once the second stage has a checkpoint."""
    with (folder.parent / "killed.log").open("w") as log:
        head = subprocess.Popen(
            command(folder, *overrides), cwd=folder.parent, env=OFFLINE, stdout=log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 400
        while not (begun := list((folder / "2-explained" / "checkpoints").glob("step-*/manifest.json"))):
            if time.monotonic() > deadline or head.poll() is not None:
                break
            time.sleep(0.01)
        assert begun, (folder.parent / "killed.log").read_text()
        ranks = [child for child in psutil.Process(head.pid).children() if "train.py" in " ".join(child.cmdline())]
        os.kill(ranks[-1].pid if ranks else head.pid, signal.SIGKILL)
        assert head.wait(timeout=120) != 0
    assert (folder / "1-gold" / "DONE").exists()
    assert not (folder / "2-explained" / "DONE").exists(), "the stage was over before it was killed"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # seconds; up to ten processes start one after the other
@pytest.mark.parametrize("trainer", ["cpu", "ddp", "fsdp"])
def test_killed_in_the_second_stage_and_completed_by_the_same_command(trainer: str, tmp_path: Path) -> None:
    """A kill must cost the steps since the last checkpoint, not a stage; and each stage is a run of its own."""
    folder = tmp_path / "three"
    kill_in_the_second_stage(folder, f"trainer={trainer}")
    done = subprocess.run(
        command(folder, f"trainer={trainer}"),
        cwd=tmp_path,
        env=OFFLINE,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stage 1 of 3: gold, done before" in done.stdout
    assert done.stdout.count("resuming after step") == 1

    results = json.loads((folder / "results.json").read_text())
    assert (folder / "DONE").exists() and (folder / results["samples"]).exists()
    for number, key in enumerate(STAGES, start=1):
        stage = folder / f"{number}-{key}"
        own = json.loads((stage / "results.json").read_text())
        assert (stage / "DONE").exists() and (stage / "student" / "model.safetensors").exists()
        assert results[f"stage/{key}/held_out/cautious/accuracy"] == own["held_out/cautious/accuracy"]
        runs = list(stage.glob("wandb/offline-run-*"))
        assert len({run.name.rpartition("-")[2] for run in runs}) == 1, "one W&B run, also when it was resumed"
        # What was killed may not have written its group yet.
        logs = [file.read_bytes() for run in runs for file in run.glob("*.wandb")]
        assert any(b"tiny-smoke" in log for log in logs), "its group"
    assert json.loads((folder / "3-erased" / "results.json").read_text())["data/rows"] == 176
