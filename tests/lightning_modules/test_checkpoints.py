"""Checkpoints: kept, complete, and taken when the run is asked to stop."""

import csv
import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from lightning_modules import loggers, samples
from lightning_modules.samples import SampleAnswers
from orca2.checkpointing import shards
from orca2.checkpointing.folder import checkpoints_in
from orca2.data.report import DataReport
from orca2.errors import CheckpointError
from orca2.records import Question
from tests.small_fit import Fit


class SignalAt(L.Callback):
    """Sends a signal to this process while a step is under way."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


class KillAt(L.Callback):
    """Ends the fit as a crash would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError("killed")


@pytest.mark.parametrize("every", [3, 1000])
def test_no_step_is_logged_twice(make_fit: Callable[..., Any], every: int) -> None:
    """A run killed between checkpoints, or before its first, makes steps again: curve and samples have them once."""
    fit = make_fit(rows=60)
    folder = fit.folder
    with pytest.raises(KeyError):
        fit.run(samples_of(fit), KillAt(5), every=every)
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "ta')
    again = Fit(folder, rows=60)
    again.run(samples_of(again), every=every)
    with (folder / "metrics.csv").open(newline="") as file:
        logged = [int(row["step"]) for row in csv.DictReader(file)]
    sampled = [json.loads(line)["step"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    steps = list(range(1, again.module.trainer.global_step + 1))
    assert len(steps) > 5 and logged == steps and sampled == steps


def samples_of(fit: Any) -> SampleAnswers:
    """One question after every step."""
    question = Question(id="q", task="t", user="1 + 1?", gold="2", kind="number")
    return SampleAnswers([question], fit.renderer, "", 256, 1, 2, fit.folder / "samples.jsonl")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_saves(make_fit: Callable[..., Any], number: int) -> None:
    """Ctrl-C inside a step must neither lose the run nor save half a step."""
    before = signal.getsignal(number)
    stopped = make_fit().run(SignalAt(4, number))
    assert len(stopped.recorder.losses) == 5
    assert [path.name for path in checkpoints_in(stopped.folder / "checkpoints")] == ["step-00000005"]
    assert signal.getsignal(number) is before
    whole = make_fit().run()
    resumed = make_fit().run(resume=stopped.folder / "checkpoints")
    assert stopped.recorder.losses + resumed.recorder.losses == whole.recorder.losses


def test_only_the_newest_are_kept(make_fit: Callable[..., Any]) -> None:
    """A run of a week must not fill the disk, and never be without a checkpoint."""
    fit = make_fit().run(every=2)
    steps = len(fit.recorder.losses)
    names = [path.name for path in checkpoints_in(fit.folder / "checkpoints")]
    assert len(names) == 2
    assert names[-1] == f"step-{steps:08d}"


def full_disk(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_a_full_disk_does_not_end_the_training(make_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are in memory and the export may lie elsewhere; but it must be said, each time."""
    monkeypatch.setattr(shards, "_write_safetensors", full_disk)
    fit = make_fit().run(every=4)
    assert fit.module.progress == 1.0
    assert len(fit.told) == 1 + len(fit.recorder.losses) // 4
    assert all("WARNING" in line and "No space left" in line for line in fit.told)
    assert list((fit.folder / "checkpoints").iterdir()) == []


def test_records_that_cannot_be_written_do_not_end_the_training(
    make_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that fills up costs lines of a log, not the run; and each file is complained of once."""
    for module in (loggers, samples):
        monkeypatch.setattr(module, "append_whole", full_disk)
    monkeypatch.setattr(loggers, "atomic_write_text", full_disk)
    monkeypatch.setattr(DataReport, "write_rejected", full_disk)
    fit = make_fit(rows=60)
    fit.data.render = dataclasses.replace(fit.data.render, length=120)  # some rows are too long
    fit.run(samples_of(fit))
    assert fit.module.progress == 1.0
    assert fit.data.report.rejected["too_long"] > 0
    told = capsys.readouterr().err.splitlines()
    assert sorted(Path(line.split()[1]).name for line in told if line.startswith("WARNING")) == [
        "metrics.csv",
        "rejected.jsonl",
        "samples.jsonl",
    ]


def test_a_stop_that_cannot_be_saved_is_an_error(make_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean exit would promise that the same command goes on from there."""
    monkeypatch.setattr(shards, "_write_safetensors", full_disk)
    with pytest.raises(CheckpointError, match=r"step 5 cannot be written.*No space left.*no earlier one"):
        make_fit().run(SignalAt(4, signal.SIGTERM))


def test_a_refused_checkpoint_is_named_and_the_one_before_used(make_fit: Callable[..., Any]) -> None:
    """A reader of the output must learn why steps are trained again."""
    whole = make_fit().run(every=3)
    newest = checkpoints_in(whole.folder / "checkpoints")[-1]
    (newest / "progress.json").write_text("{}")
    again = make_fit().run(resume=newest.parent)
    assert f"{newest / 'progress.json'}: 2 bytes of" in again.told[0]
    steps = len(whole.recorder.losses)
    assert again.told[1] == f"resuming after step {(steps - 1) // 3 * 3}"
    assert again.recorder.losses == whole.recorder.losses[(steps - 1) // 3 * 3 :]


def test_a_finished_fit_resumes_to_nothing(make_fit: Callable[..., Any]) -> None:
    """A run killed between fit and export trains no step again."""
    fit = make_fit().run()
    again = make_fit().run(resume=fit.folder / "checkpoints")
    assert again.recorder.losses == []
    assert again.module.progress == 1.0
