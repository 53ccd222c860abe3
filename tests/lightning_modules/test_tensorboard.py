"""`logger=tensorboard`: what TensorBoard shows is what metrics.csv holds."""

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.loggers import finishing
from lightning_modules.tensorboard import RunTensorBoardLogger, TensorBoardSpec
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.errors import ConfigError
from orca2.settings import build_all, compose_config
from tests.small_fit import Fit

Curves = dict[str, list[tuple[int, float]]]


def shown(folder: Path) -> Curves:
    """What TensorBoard reads of a run."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="extra tensorboard")
    events = reading.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def job_of(*overrides: str) -> TrainingJob:
    return TrainingJob(**build_all(compose_config("train", ["trainer=cpu", *overrides]), leave_out=NOT_OF_THE_JOB))


def test_a_missing_package_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a run ends at its first metric, hours after its start, or without the line that installs it."""
    job = job_of("logger=tensorboard", "logger.group=sweep")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(ConfigError, match=r"pip install 'orca2-lightning\[tensorboard\]'"):
        job.require_here()


def test_it_shows_what_metrics_csv_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if names, steps or values of a fit differ, or a file of hyperparameters appears that says nothing."""
    pytest.importorskip("tensorboard", reason="extra tensorboard")
    made: list[RunTensorBoardLogger] = []

    def build(self: Any, folder: Path, loggers: list[Any], callbacks: Any) -> Any:
        logger = TensorBoardSpec(name="tensorboard").build("run", "id", folder, {})
        made.append(logger)
        return original(self, folder, [*loggers, logger], callbacks)

    fit = Fit(tmp_path, rows=40)
    original = type(fit.spec).build
    monkeypatch.setattr(type(fit.spec), "build", build)
    with finishing(made):
        fit.run()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = shown(tmp_path)
    assert len(rows) >= 3 and "train/loss" in found
    for name in set(rows[0]) - {"step", "epoch"}:
        expected = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert [step for step, _ in found[name]] == [step for step, _ in expected], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected], rel=1e-6), name
    assert [path.name.split(".")[0] for path in (tmp_path / "tensorboard").iterdir()] == ["events"]


def test_a_resumed_run_shows_each_step_once(tmp_path: Path) -> None:
    """Fails if the steps after the last checkpoint are there twice, or the results stand at step 0."""
    pytest.importorskip("tensorboard", reason="extra tensorboard")
    first = RunTensorBoardLogger(tmp_path)
    first.keep_until(-1)
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": float(step)}, step=step)
    with finishing([first]):
        pass
    again = RunTensorBoardLogger(tmp_path)
    again.keep_until(2)
    again.log_metrics({"train/loss": 9.0}, step=3)
    again.log_metrics({"held_out/cautious/accuracy": 0.5})
    with finishing([again]):
        pass
    assert shown(tmp_path) == {
        "train/loss": [(1, 1.0), (2, 2.0), (3, 9.0)],
        "held_out/cautious/accuracy": [(3, 0.5)],
    }
