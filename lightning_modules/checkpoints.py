"""Checkpoints that a killed run goes on from exactly, and a stop that loses nothing.

A checkpoint is taken between optimizer steps only, by `orca2.checkpointing`: tensors by DCP, the rest as JSON.
Lightning's own saving (`trainer.save_checkpoint`, `ckpt_path`) is not used: what it writes for one process, DDP
and FSDP are three formats, it can neither write in the background nor change the number of ranks, and its file is
a pickle. So this callback saves after a step and restores in `on_fit_start`, where the model is sharded, the
optimizer exists and no batch has been asked for.

    the same ranks     every rank gets back its own state: the run continues bit for bit
    other ranks        data order, weights and optimizer are exact; sums run in another order, so losses agree to
                       rounding. Random states are derived anew: only dropout would notice
"""

import base64
import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from datamodules.erased_prompts import ErasedPromptDataModule
from lightning_modules.accounts import Accounts
from lightning_modules.loggers import RunCsvLogger
from lightning_modules.samples import SampleAnswers
from lightning_modules.student import StudentModule
from lightning_modules.tensorboard import RunTensorBoardLogger
from lightning_modules.validation import Validation
from orca2.checkpointing.folder import remove_unfinished
from orca2.checkpointing.saving import Saver
from orca2.checkpointing.shards import training_tensors
from orca2.errors import CheckpointError

SAME_SIGNAL_S = 2.0
"""Signals within it are one request: a cluster signals the head and its ranks, and the head its ranks again."""


class Checkpoints(L.Callback):
    """Saves every `every_steps` optimizer steps, at the end of the fit, and when asked to stop.

    Ctrl-C (SIGINT) and SIGTERM stop after the step under way and save; another one later stops at once.
    `stopped` tells the caller that the fit did not run to its end. `tell` prints a line.
    """

    def __init__(self, folder: Path, every_steps: int, signature: str, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.signature = signature
        self.tell = tell
        self.stopped = False
        self._signalled: float | None = None
        self._previous_handlers: dict[int, Any] = {}
        self._saved_step: int | None = None
        self._saver: Saver | None = None

    @property
    def saver(self) -> Saver:
        assert self._saver is not None, "the fit has not begun"
        return self._saver

    @override
    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Go on from the newest usable checkpoint. Raises CheckpointError if there are some, and none is."""
        assert isinstance(module, StudentModule)
        self._saver = Saver(self.folder, self.signature)
        if trainer.is_global_zero:
            remove_unfinished(self.folder)
        progress, refused = self.saver.load_newest(training_tensors(module.student, trainer.optimizers[0]))
        if trainer.is_global_zero:
            for reason in refused:
                self.tell(f"checkpoint refused: {reason}")
        if trainer.is_global_zero:  # also without a checkpoint: the run may have died before its first
            for writer in (*trainer.loggers, *_callbacks(trainer)):
                if isinstance(writer, RunCsvLogger | RunTensorBoardLogger | SampleAnswers):
                    writer.keep_until(-1 if progress is None else progress["step"])
        if progress is None:
            return
        restore(trainer, module, progress)
        self._saved_step = progress["step"]
        if trainer.is_global_zero:
            saved, ranks = len(progress["ranks"]), trainer.world_size
            change = "" if saved == ranks else f" (saved by {saved} ranks, now {ranks})"
            self.tell(f"resuming after step {progress['step']}{change}")

    @override
    def on_train_start(self, *_: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous_handlers[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread, as in a parallel sweep: its owner handles signals
                return

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled is None:
            self._signalled = now
        elif now - self._signalled > SAME_SIGNAL_S:
            self._restore_handlers()
            os.kill(os.getpid(), number)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, StudentModule)
        # Signals reach the ranks at different moments; all must stop after the same step.
        self.stopped = trainer.strategy.reduce_boolean_decision(self._signalled is not None, all=False)
        step = trainer.global_step
        if self.stopped or (step > 0 and step % self.every_steps == 0 and module.report is not None):
            self._save(trainer, module)
        elif not self.saver.is_writing:
            self._settle()  # says without delay that the disk is full
        if self.stopped:
            trainer.should_stop = True

    @override
    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, StudentModule)
        if not self.stopped:
            self._save(trainer, module)
        self._settle(fatal=self.stopped)
        self.saver.close()
        self._restore_handlers()

    @override
    def on_exception(self, *_: Any) -> None:
        self._restore_handlers()
        if self._saver is not None:
            self._settle()

    def _save(self, trainer: L.Trainer, module: StudentModule) -> None:
        self._settle()
        step = trainer.global_step
        if step == (self._saved_step or 0):  # nothing was trained since
            return
        tensors = training_tensors(module.student, trainer.optimizers[0])
        self.saver.save(step, tensors, *progress_of(trainer, module))
        self._saved_step = step

    def _settle(self, fatal: bool = False) -> None:
        """Wait for what is being written. Where that failed the weights still exist: training goes on with a
        warning, unless it is `fatal` because they would be lost.
        """
        try:
            self.saver.wait()
        except CheckpointError as error:
            self._saved_step = None
            if fatal:
                raise
            if self.saver.rank == 0:
                self.tell(f"WARNING: {error}; training goes on")

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}


def _callbacks(trainer: L.Trainer) -> list[L.Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]  # set by Lightning's connector


def progress_of(trainer: L.Trainer, module: StudentModule) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that is not a tensor, as JSON values: what the ranks share, and what is this rank's own."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    settled = {"rows_settled": module.rows_settled, "tokens_settled": module.tokens_settled}
    measured = [callback.state_dict() for callback in _callbacks(trainer) if isinstance(callback, Validation)]
    shared = {**settled, "loops": trainer.fit_loop.state_dict(), "validation": measured}
    own = {
        "data": data.state_dict(),
        "accounts": [callback.state_dict() for callback in _callbacks(trainer) if isinstance(callback, Accounts)],
        "random": _random_state(module.device),
    }
    return shared, own


def restore(trainer: L.Trainer, module: StudentModule, progress: dict[str, Any]) -> None:
    """Put module, loops, data, accounts and random states where they were."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ErasedPromptDataModule)
    module.rows_settled, module.tokens_settled = progress["rows_settled"], progress["tokens_settled"]
    trainer.fit_loop.load_state_dict(progress["loops"])
    ranks, rank = progress["ranks"], trainer.global_rank
    data.load_states([each["data"] for each in ranks], rank, trainer.world_size)
    accounts = [callback for callback in _callbacks(trainer) if isinstance(callback, Accounts)]
    for number, callback in enumerate(accounts):
        callback.load_states([each["accounts"][number] for each in ranks], rank, trainer.world_size)
    measuring = [callback for callback in _callbacks(trainer) if isinstance(callback, Validation)]
    measured = progress.get("validation", ())  # none in an older checkpoint
    for validation, state in zip(measuring, measured, strict=False):
        validation.load_state_dict(state)
    states = [each["random"] for each in ranks]
    if len(states) == trainer.world_size:
        _set_random_state(states[rank], module.device)
    else:
        derived = hashlib.sha256(f"{states[0]['cpu']} {rank} of {trainer.world_size}".encode()).digest()
        torch.manual_seed(int.from_bytes(derived[:8]) >> 1)


def _random_state(device: torch.device) -> dict[str, str]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}


def _set_random_state(saved: dict[str, str], device: torch.device) -> None:
    states = {
        name: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8) for name, text in saved.items()
    }
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
