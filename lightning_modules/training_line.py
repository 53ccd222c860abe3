"""The progress line of training: share of rows done, time left, loss and token rate."""

import time
from typing import Any

import lightning as L
from rich.console import Console
from typing_extensions import override

from lightning_modules.accounts import Accounts
from lightning_modules.student import StudentModule
from orca2.progress import ProgressLine, clock


class TrainingLine(L.Callback):
    """Reads its figures from `accounts`; `plain_every_s` is the pause between lines off a terminal."""

    def __init__(self, accounts: Accounts, console: Console, plain_every_s: float | None = None) -> None:
        self.accounts = accounts
        self.console = console
        self.plain_every_s = plain_every_s
        self._line: ProgressLine | None = None
        self._first = (0.0, 0.0)
        """Time and share of rows at the start of this process."""
        self._said_first = False
        """Whether the loss of the first step stands on a line."""

    @override
    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, StudentModule)
        if not trainer.is_global_zero:
            return
        self._first = (time.monotonic(), module.progress)
        self._line = ProgressLine(self.console, lambda: self._text(module), lambda: module.progress, self.plain_every_s)
        self._line.start()

    @override
    def on_train_batch_end(self, *_: Any) -> None:
        if self._line is not None:
            self._line.changed(at_once=not self._said_first)
            self._said_first = True

    @override
    def on_train_end(self, *_: Any) -> None:
        if self._line is not None:
            self._line.stop()

    @override
    def on_exception(self, *_: Any) -> None:
        if self._line is not None:
            self._line.stop()

    def _text(self, module: StudentModule) -> str:
        return f"training {module.progress:6.1%}  left {self._left(module)}  {self._figures(module)}"

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
        started, progress_then = self._first
        done = module.progress - progress_then
        return clock((time.monotonic() - started) * (1 - module.progress) / done) if done > 0 else "?"
