"""Finds the real models, and what was trained on each of them.

Tests that need a real model carry the marker `real` and ask the fixture `real_model`. The runs are made once and looked
at by many tests.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ENVIRONMENT, run_ranks
from tests.real.make_real_models import FOLDER, MODELS
from tests.real.runs import CASES, run_job

WORKER = Path(__file__).with_name("worker.py")
RANKS_TIMEOUT_S = 1500
"""Seconds for all jobs of two ranks together: twelve trainings, of which two have real weights."""
NEVER = "checkpoint_every_steps=100000"
"""Only a run that is killed needs checkpoints on its way; of a large vocabulary each is 100 MB."""


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """`real_model("tiny_llama2")`: the folder of that model; skips where it is not there."""

    def find(name: str) -> Path:
        folder = FOLDER / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there: `make real` makes it; ORCA2_REAL names another place")
        return folder

    return find


@dataclass
class Runs:
    """The runs of some real models. A property is made when it is first looked at, for all of the models together."""

    models: tuple[str, ...]
    folder: Path
    """Folder of runs and rows."""

    def overrides(self, model: str, kind: str, *more: str) -> list[str]:
        return CASES[model].overrides(FOLDER / model, self.folder, self.folder / f"{model}-{kind}", *more)

    @cached_property
    def one(self) -> dict[str, Path]:
        """Trained on one device, in this process."""
        return {model: self._here(model, "one", "trainer=cpu", NEVER) for model in self.models}

    @cached_property
    def lora(self) -> dict[str, Path]:
        """Trained with adapters, which are merged."""
        return {model: self._here(model, "lora", "trainer=cpu", "lora=default", NEVER) for model in self.models}

    @cached_property
    def in_two_processes(self) -> dict[str, dict[str, Path]]:
        """Trained by two ranks, as copies (ddp) and cut in halves (fsdp)."""
        jobs = {
            f"{model}-{trainer}": self._job(model, trainer, f"trainer={trainer}", "trainer.accelerator=cpu", NEVER)
            for model in self.models
            for trainer in ("ddp", "fsdp")
        }
        run_ranks(2, WORKER, "ranks", str(self._listed("ranks", jobs)), timeout_s=RANKS_TIMEOUT_S)
        return {
            trainer: {model: self._without_error(f"{model}-{trainer}") for model in self.models}
            for trainer in ("ddp", "fsdp")
        }

    @cached_property
    def killed(self) -> dict[str, Path]:
        """Killed after some steps on one device, like `one` otherwise."""
        jobs = {
            model: self._job(model, "killed", "trainer=cpu") | {"kill_after": CASES[model].kill_after}
            for model in self.models
        }
        command = [sys.executable, str(WORKER), "kill", str(self._listed("kill", jobs))]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {model: self._without_error(f"{model}-killed") for model in self.models}

    def _here(self, model: str, kind: str, *more: str) -> Path:
        run_job(self.overrides(model, kind, *more))
        return self.folder / f"{model}-{kind}"

    def _job(self, model: str, kind: str, *more: str) -> dict[str, Any]:
        return {"overrides": self.overrides(model, kind, *more), "run": str(self.folder / f"{model}-{kind}")}

    def _listed(self, name: str, jobs: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(jobs))
        return path

    def _without_error(self, name: str) -> Path:
        errors = [path.read_text() for path in sorted(self.folder.glob(f"{name}.error-*"))]
        assert not errors, errors[0]
        return self.folder / name


@pytest.fixture(scope="session")
def runs(real_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs of all real models; $ORCA2_REAL_ONLY names some of them, for mending one."""
    only = os.environ.get("ORCA2_REAL_ONLY")
    models = tuple(only.split()) if only else MODELS
    for model in models:
        real_model(model)
    return Runs(models, tmp_path_factory.mktemp("runs"))
