"""Measured strategies from end to end: a student that saw the strategies is probed, another trains on the outcome."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, ROOT, SMALL_STUDENT

FAMILIES = "{counting:1,passage_total:1,running_total:1}"
SMALL = (
    *SMALL_STUDENT, "source.size=150", f"source.families={FAMILIES}",
    "held_out.questions_per_task=1", "held_out.max_new_tokens=8", "held_out.samples=0", 'logger.mode="off"',
)  # fmt: skip


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_student_is_measured_and_another_trains_on_the_outcome(tmp_path: Path) -> None:
    """The loop of "guided by the performance of Orca": each command takes what the one before it left."""
    run("train.py", "strategy=random", "erasing=keep", f"run_dir={tmp_path / 'seen'}", *SMALL)
    probing = (
        "synthesize.py", "tasks=procedural", f"tasks.families={FAMILIES}", "teacher=rule", "size=30",
        "strategy=measured", "strategy.ask_teacher=false", "teacher@strategy.student=local",
        f"strategy.student.path={tmp_path / 'seen' / 'student'}", "strategy.student.max_tokens=16",
        f"out_dir={tmp_path / 'data'}",
    )  # fmt: skip
    assert "strategies measured with" in run(*probing)
    outcome = tmp_path / "data" / "strategy" / "measured_procedural.yaml"
    groups = json.loads(outcome.with_suffix(".json").read_text())["groups"]
    assert set(groups) == {"counting", "passage_total", "running_total"}
    for group in groups.values():
        assert group["chosen"] in group["strategies"]
        assert {judge for one in group["strategies"].values() for judge in one["tallies"]} == {"student"}
    assert "is done" in run(*probing)
    run("train.py", f"strategy={outcome}", f"run_dir={tmp_path / 'trained'}", *SMALL)
    config = (tmp_path / "trained" / "config.yaml").read_text()
    assert "name: measured_procedural" in config and "StrategyMixture" in config
    # The data set's rows carry the chosen strategies, so a student can be trained on them as well.
    run(
        "train.py", f"strategy={outcome}", "source=synthesized", f"source.path={tmp_path / 'data'}",
        f"run_dir={tmp_path / 'stored'}", *(one for one in SMALL if not one.startswith("source.")),
    )  # fmt: skip
    assert (tmp_path / "stored" / "DONE").exists()
