"""The loss on rows that do not train: before the first step, every so many steps, and after the last.

    validation/loss                   mean over the label tokens of all held-out rows (nats), in metrics.csv and W&B
    validation/loss/source/<name>     the same for each source, where there are several

A measurement is exact: the sum of all losses by the number of all label tokens, over all ranks. It draws no random
number and touches no weight, so how often it is made changes nothing in the training.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from lightning_modules.accounts import Accounts
from lightning_modules.student import StudentModule, add_losses
from orca2.data.collate import collate
from orca2.processes.ranks import everyone, here
from orca2.records import MicroBatch

LOSS = "validation/loss"


class Validation(L.Callback):
    """Measures on `micro_batches`, which every rank has whole.

    `tell` prints a line; `stopping` says whether the run was asked to stop.
    """

    def __init__(
        self,
        micro_batches: Sequence[MicroBatch],
        every_steps: int,
        accounts: Accounts,
        stopping: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.micro_batches = micro_batches
        self.every_steps = every_steps
        self.accounts = accounts
        self.stopping = stopping
        self.tell = tell
        self.step: int | None = None
        """Optimizer steps before the last measurement; None before the first."""
        self.before: float | None = None
        """The loss before the first step."""
        self.latest: dict[str, float] = {}

    @property
    def examples(self) -> int:
        """Rows that are measured."""
        return sum(len(micro.examples) for micro in self.micro_batches)

    @property
    def label_tokens(self) -> int:
        return sum(len(micro.labels_N) for micro in self.micro_batches)

    @property
    def figures(self) -> dict[str, float]:
        """Figures for `results.json`; empty if nothing was held out."""
        if not self.latest:
            return {}
        counts = {"validation/rows": self.examples, "validation/label_tokens": self.label_tokens}
        before = {} if self.before is None else {"validation/loss_before": self.before}
        return {**self.latest, **before, **counts}

    @override
    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._measure(trainer, module)
            self.before = self.latest.get(LOSS)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, StudentModule)
        if module.report is not None and trainer.global_step % self.every_steps == 0:
            self._measure(trainer, module)

    @override
    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.stopping():  # else it would hold up the checkpoint
            self._measure(trainer, module)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "before": self.before, "latest": self.latest}

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.step, self.before, self.latest = state_dict["step"], state_dict["before"], dict(state_dict["latest"])
        self.accounts.validation_loss = self.latest.get(LOSS)

    def _measure(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, StudentModule)
        if not self.micro_batches or self.step == trainer.global_step:
            return
        started = time.perf_counter()
        self.step, self.latest = trainer.global_step, validation_losses(trainer, module, self.micro_batches)
        self.accounts.validation_loss = self.latest[LOSS]
        self.accounts.pause(time.perf_counter() - started)
        for logger in trainer.loggers:  # none but on the first rank
            logger.log_metrics(self.latest, step=self.step)
        if trainer.is_global_zero and self.step == 0:
            self.tell(
                f"validation: loss {self.latest[LOSS]:.4f} before training, per label token, on {self.examples:,} rows "
                f"with {self.label_tokens:,} label tokens"
            )


def validation_losses(
    trainer: L.Trainer, module: StudentModule, micro_batches: Sequence[MicroBatch]
) -> dict[str, float]:
    """Mean loss per label token, of all and of each source; every rank calls it and gets the same."""
    ranks, by_group = here(), dict[str, list[float]]()
    student, was_training = module.student, module.student.training
    student.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            for micro in _share(micro_batches, ranks.rank, ranks.world):
                moved = trainer.datamodule.transfer_batch_to_device(micro, module.device, 0)  # type: ignore[attr-defined]
                losses_N = student(
                    moved.ids_BT, moved.positions_BT, moved.lengths, moved.label_positions_N, moved.labels_N
                )
                add_losses(by_group, losses_N, moved)
    finally:
        student.train(was_training)
    shares = everyone(by_group)
    sources = sorted({name for share in shares for name in share if name.startswith("source/")})
    sums = {name: [sum(share.get(name, (0.0, 0))[at] for share in shares) for at in (0, 1)] for name in sources}
    means = {name: loss / labels for name, (loss, labels) in sums.items() if labels}
    whole = sum(loss for loss, _ in sums.values()) / sum(labels for _, labels in sums.values())
    own = {f"{LOSS}/{name}": mean for name, mean in means.items()} if len(means) > 1 else {}
    return {LOSS: whole, **own}


def _share(micro_batches: Sequence[MicroBatch], rank: int, world: int) -> list[MicroBatch]:
    """This rank's micro-batches, and empty ones up to the other ranks' number: sharded layers are gathered together."""
    own = list(micro_batches[rank::world])
    rounds = -(-len(micro_batches) // world)
    return own + [collate([()], 1, 0, isolate=True)] * (rounds - len(own))
