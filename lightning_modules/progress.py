"""The progress line: share of rows done, time left, loss and token rate.

On a terminal it is one live line; elsewhere (a log file, a notebook, CI) it is a plain line now and then.
"""

import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import override

from lightning_modules.accounts import Accounts
from lightning_modules.student import StudentModule


class ProgressLine(L.Callback):
    """Reads its figures from `accounts`; `plain_every_s` is the pause between lines off a terminal."""

    def __init__(self, accounts: Accounts, console: Console, plain_every_s: float = 15.0) -> None:
        self.accounts = accounts
        self.console = console
        self.plain_every_s = plain_every_s
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last_plain = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._said_first = False
        """Whether the loss of the first step stands on a plain line."""

    @override
    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, StudentModule)
        if not trainer.is_global_zero:
            return
        self._first = (time.monotonic(), module.progress)
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("training", total=1.0, figures="")
            self._bar.update(self._task, completed=module.progress)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, StudentModule)
        if self._bar is not None:
            self._bar.update(self._task, completed=module.progress, figures=self._figures(module))
        elif self._first is not None and (
            time.monotonic() - self._last_plain >= self.plain_every_s or not self._said_first
        ):
            self._last_plain, self._said_first = time.monotonic(), True
            self.console.print(
                f"training {module.progress:6.1%}  left {self._left(module)}  {self._figures(module)}",
                highlight=False,
            )

    @override
    def on_train_end(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    @override
    def on_exception(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _figures(self, module: StudentModule) -> str:
        latest, validation, step = self.accounts.latest, self.accounts.validation_loss, module.trainer.global_step
        measured = "" if validation is None else f"  validation {validation:.3f}"
        if latest:
            rate = latest["train/useful_tokens_per_s"]
            return (
                f"step {step}  loss {latest['train/loss']:.3f}{measured}  {rate:,.{0 if rate >= 10 else 1}f} tokens/s"
            )
        # Before the first log point, which a slow student takes minutes for: the loss of the last step alone.
        loss = "" if module.report is None else f"  loss {module.report.loss:.3f}"
        return f"step {step}{loss}{measured}"

    def _left(self, module: StudentModule) -> str:
        assert self._first is not None
        started, progress_then = self._first
        done = module.progress - progress_then
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - started) * (1 - module.progress) / done
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
