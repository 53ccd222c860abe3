"""What comes from the environment may be a secret: no file of a run holds it, whichever way the run was started."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import OFFLINE, ROOT, SMALL_STUDENT

SECRET = "hunter2-4711"
SMALL = (
    *SMALL_STUDENT, "source.size=40",
    "held_out.questions_per_task=1", "held_out.max_new_tokens=2", "held_out.samples=0",
)  # fmt: skip
STAGES = tuple(
    f"curriculum.stages.{key}.{rest}"
    for key in ("gold", "explained", "erased")
    for rest in ("source.size=40", "held_out.questions_per_task=1")
)
WAYS = {
    "one process": SMALL,
    "ranks": (*SMALL, "trainer=ddp"),
    "sweep": (*SMALL, "seed=1,2", "-m"),
    "stages": (*SMALL_STUDENT, *STAGES, "held_out.max_new_tokens=2", "held_out.samples=0", "curriculum=smoke"),
}


@pytest.mark.slow
@pytest.mark.timeout(900)  # seconds; up to three processes, one after the other
@pytest.mark.parametrize("way", WAYS)
def test_no_file_holds_what_an_override_takes_from_the_environment(way: str, tmp_path: Path) -> None:
    """`overrides.txt` held a secret in clear while `config.yaml` kept the reference; so did the manifest and W&B."""
    folder = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), "name=x-${oc.env:MYSECRET}", f"run_dir={folder}", *WAYS[way]]
    environment = OFFLINE | {"MYSECRET": SECRET}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"overrides.txt", "config.yaml", "manifest.json"} <= names and any(n.endswith(".wandb") for n in names)
    assert "job.json" in names or way != "sweep"
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in "".join(map(str, files))
    stored = [path.read_text() for path in files if path.name == "overrides.txt"]
    assert all("${oc.env:MYSECRET}" in text for text in stored)
