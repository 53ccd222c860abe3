"""Adds up what the steps report and logs it: losses, token rates, utilisation, memory.

Metric names, also the columns of `metrics.csv`:

    step                          optimizer steps done
    train/loss                    mean over label tokens since the last log point (nats)
    train/learning_rate           of the last step
    train/gradient_norm           of the last step, before clipping
    train/useful_tokens_per_s     real tokens; also label_tokens_per_s and padding_tokens_per_s
    train/pack_utilisation        useful / (useful + padding) tokens
    train/memory_gib              peak so far, the largest of all ranks: of the device, or resident memory on a CPU
    data/examples_seen            examples trained on since the start of the stage
    data/epoch                    passes over the source, as a fraction
    loss/source/<name>, loss/strategy/<name>     mean over the label tokens of that group
"""

import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from lightning_modules.student import StepReport, StudentModule
from orca2.processes.ranks import everyone


class Accounts(L.Callback):
    """Logs every `every_steps` optimizer steps, and once more at the end of the fit."""

    def __init__(self, every_steps: int, epochs: int) -> None:
        self.every_steps = every_steps
        self.epochs = epochs
        self.examples_seen = 0
        self.latest: dict[str, float] = {}
        """The last metrics logged; what the progress bar shows."""
        self.validation_loss: float | None = None
        """The last one measured, for the progress bar."""
        self._window: list[StepReport] = []
        self._started = time.perf_counter()
        self._seconds_before = 0.0
        """Seconds that the window had taken when it was saved."""

    @override
    def on_train_start(self, *_: Any) -> None:
        self._started = time.perf_counter() - self._seconds_before

    def pause(self, seconds: float) -> None:
        """Leave `seconds` in which nothing was trained out of the rates."""
        self._started += seconds

    @override
    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, StudentModule)
        if module.report is None:
            return
        self._window.append(module.report)
        if (module.report.step + 1) % self.every_steps == 0:
            self._log(trainer, module)

    @override
    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, StudentModule)
        self._log(trainer, module)

    def _log(self, trainer: L.Trainer, module: StudentModule) -> None:
        windows = everyone(self._window)
        if not any(windows):
            return
        seconds = time.perf_counter() - self._started
        self._window, self._started = [], time.perf_counter()
        self.examples_seen += sum(report.examples for window in windows for report in window)
        self.latest = {
            **_window_metrics(windows, seconds),
            "train/memory_gib": max(everyone(_peak_memory_gib(module.device))),
            "data/examples_seen": self.examples_seen,
        }
        if module.total_rows is not None:  # a stream of unknown length has no epochs to tell
            self.latest["data/epoch"] = module.rows_settled / module.total_rows * self.epochs
        for logger in trainer.loggers:  # none but on the first rank
            logger.log_metrics(self.latest, step=windows[0][-1].step + 1)

    # The window is part of the state: after a resume the first log point covers the same steps.
    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "examples_seen": self.examples_seen,
            "window": [tuple(report) for report in self._window],
            "seconds": time.perf_counter() - self._started,
        }

    def load_states(self, states: Sequence[dict[str, Any]], rank: int, world: int) -> None:
        """Continue from the saved states of all ranks; where their number changed, the first takes all reports."""
        self.examples_seen = states[0]["examples_seen"]
        self._seconds_before = states[0].get("seconds", 0.0)  # an older checkpoint has none
        windows = [[StepReport(*report) for report in state["window"]] for state in states]
        if len(windows) == world:
            self._window = windows[rank]
        elif rank == 0:
            self._window = sorted((report for window in windows for report in window), key=lambda each: each.step)


def _window_metrics(windows: list[list[StepReport]], seconds: float) -> dict[str, float]:
    """Metrics of the steps of one window; one list of reports for each rank."""
    reports = [report for window in windows for report in window]
    steps = {report.step: report for report in windows[0]}  # loss, rate and norm are those of all ranks
    last = windows[0][-1]
    useful = sum(report.useful_tokens for report in reports)
    padding = sum(report.padding_tokens for report in reports)
    labels: Counter[int] = Counter()
    for report in reports:
        labels[report.step] += report.label_tokens
    metrics = {
        "train/loss": sum(report.loss * labels[step] for step, report in steps.items()) / labels.total(),
        "train/learning_rate": last.learning_rate,
        "train/gradient_norm": last.gradient_norm,
        "train/useful_tokens_per_s": useful / seconds,
        "train/label_tokens_per_s": labels.total() / seconds,
        "train/padding_tokens_per_s": padding / seconds,
        "train/pack_utilisation": useful / (useful + padding),
    }
    return metrics | _group_losses([report.by_group for report in reports])


def _group_losses(reports: list[dict[str, tuple[float, int]]]) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for by_group in reports:
        for name, (loss, count) in by_group.items():
            total = sums.setdefault(name, [0.0, 0])
            total[0] += loss
            total[1] += count
    return {f"loss/{name}": loss / count for name, (loss, count) in sorted(sums.items()) if count}


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB, macOS in bytes (getrusage(2)).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
