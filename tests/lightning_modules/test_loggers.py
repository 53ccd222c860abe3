"""metrics.csv survives resuming and killing; W&B never asks and never keeps a run open."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from lightning_modules import loggers
from lightning_modules.loggers import RunCsvLogger, RunWandbLogger, WandbSpec, finishing
from orca2.errors import ConfigError


def test_a_new_column_keeps_the_old_rows(tmp_path: Path) -> None:
    """Per-source losses appear when the source first does; earlier rows must stay readable."""
    logger = RunCsvLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 2.0}, step=1)
    logger.log_metrics({"train/loss": 1.0, "loss/source/a": 1.5}, step=2)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,train/loss,loss/source/a",
        "1,2.0,",
        "2,1.0,1.5",
    ]


def test_a_resumed_run_drops_the_steps_it_will_make_again(tmp_path: Path) -> None:
    """Otherwise the curve has the steps after the last checkpoint twice."""
    path = tmp_path / "metrics.csv"
    first = RunCsvLogger(path)
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": float(step)}, step=step)
    again = RunCsvLogger(path)
    again.keep_until(2)
    again.log_metrics({"train/loss": 9.0}, step=3)
    assert path.read_text().splitlines() == ["step,train/loss", "1,1.0", "2,2.0", "3,9.0"]


def test_half_a_row_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    """kill -9 can cut a line; the next run must not fail on it."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,train/gradient_norm\n1,2.0,3.0\n2,1.")
    logger = RunCsvLogger(path)
    logger.keep_until(5)
    assert path.read_text().splitlines() == ["step,train/loss,train/gradient_norm", "1,2.0,3.0"]


def test_without_a_key_a_run_is_written_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt for a key would hang a job in a queue."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for run in ("one", "two"):
        logger = WandbSpec(name="test", mode="auto", project="p").build(run, f"id{run}", tmp_path, {"seed": 1})
        assert logger is not None
        logger.log_metrics({"train/loss": 1.0}, step=1)
        with finishing([logger]):
            pass
    written = sorted(path.name.rsplit("-", 1)[1] for path in (tmp_path / "wandb").glob("offline-run-*"))
    assert written == ["idone", "idtwo"]


def test_online_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name, offline would be a silent change."""
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        WandbSpec(name="test", mode="online", project="p").build("run", "id", tmp_path, {})


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_the_environment_can_hold_back(mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data must not leave a machine that was told not to send, whatever keys lie about."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    asked: list[str] = []
    monkeypatch.setattr(wandb, "init", lambda mode, **_: asked.append(mode) or wandb.sdk.wandb_run.Run.__new__(Silent))
    assert WandbSpec(name="test", mode=mode, project="p").build("run", "id", tmp_path, {}) is not None
    assert asked == ["offline"]


class Silent(wandb.sdk.wandb_run.Run):
    """A W&B run that only notes how it ended."""

    ended: ClassVar[list[int | None]] = []

    def define_metric(self, *_: Any, **__: Any) -> Any: ...

    def finish(self, exit_code: int | None = None, *_: Any, **__: Any) -> None:
        self.ended.append(exit_code)


def test_a_failed_run_does_not_show_as_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B would list a run that died as one whose results can be compared."""
    monkeypatch.setattr(Silent, "ended", [])
    logger = WandbLogger(experiment=Silent.__new__(Silent))
    with pytest.raises(KeyError), finishing([logger]):
        raise KeyError
    with finishing([logger]):
        pass
    assert Silent.ended == [1, 0]


class Gone(Silent):
    """A W&B run whose process has ended."""

    def log(self, *_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection lost")

    def finish(self, *_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection lost")


def test_a_lost_wandb_costs_no_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """SLURM's SIGTERM ends W&B's process first: the run died of it in the step after which it would have saved."""
    monkeypatch.setattr(loggers, "_lost", False)
    logger = RunWandbLogger(experiment=Gone.__new__(Gone))
    with finishing([logger]):
        logger.log_metrics({"train/loss": 1.0}, 1)
        logger.log_text("samples", columns=["step"], data=[["1"]])
    assert capsys.readouterr().err.count("W&B's process has ended (Connection lost)") == 1


def test_off_means_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`off` must not even make a folder."""
    monkeypatch.delenv("WANDB_MODE")
    assert WandbSpec(name="test", mode="off", project="p").build("run", "id", tmp_path, {}) is None
    assert list(tmp_path.iterdir()) == []
