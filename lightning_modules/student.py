"""The student as a LightningModule: one training step is one whole optimizer step.

The loader's item is a `StepBatch`: every micro-batch that this rank contributes to the step. So the
number of label tokens of the step is known before the first backward pass, and the loss is exactly

    sum of the losses of all label tokens / number of label tokens

over all micro-batches and ranks, however they are cut. Lightning's automatic optimization averages
the means of micro-batches instead, which weighs the tokens of short answers more.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from orca2.errors import TrainingError
from orca2.modelling.optimization import OptimizerSpec, build_optimizer, clip_gradients, learning_rate
from orca2.modelling.student_model import StudentForLoss
from orca2.records import StepBatch


class StepReport(NamedTuple):
    """What one optimizer step did on this rank; sums, so that reports can be added up."""

    step: int
    loss: float
    """Mean over the label tokens of the whole step, all ranks (nats)."""
    learning_rate: float
    gradient_norm: float
    """L2, before clipping."""
    useful_tokens: int
    label_tokens: int
    padding_tokens: int
    rows: int
    """Rows settled by all ranks: packed, rejected or left out."""
    examples: int
    by_group: dict[str, tuple[float, int]]
    """`source/<name>` and `strategy/<name>`: (sum of losses, label tokens) of this rank."""


class StudentModule(L.LightningModule):
    """Trains a `StudentForLoss`. `total_rows` is the number of rows of the stage, all epochs together.

    With `total_tokens` the stage ends with the step that reaches so many useful tokens, and the schedule follows
    them.
    """

    def __init__(
        self, student: StudentForLoss, optimizer: OptimizerSpec, total_rows: int | None, total_tokens: int | None = None
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # see the head of this file
        self.student = student
        self.spec = optimizer
        self.total_rows = total_rows
        self.total_tokens = total_tokens
        self.rows_settled = 0
        """Rows of all ranks that are trained on, rejected or left out; the clock of the schedule."""
        self.tokens_settled = 0
        """Useful tokens of all ranks; the clock where `total_tokens` is given."""
        self.report: StepReport | None = None

    @property
    def progress(self) -> float:
        """Share of the stage that is settled, from 0 to 1."""
        return self._progress_after(0, 0)

    def _progress_after(self, rows: float, tokens: float) -> float:
        if self.total_tokens is None:
            assert self.total_rows is not None, "the length of a stage is its rows or its tokens"
            return (self.rows_settled + rows) / self.total_rows
        return min(1.0, (self.tokens_settled + tokens) / self.total_tokens)

    @override
    def configure_model(self) -> None:
        """Nothing: the student comes sharded, so that its self-test could run. Lightning's strategy wants the hook."""

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.spec, self.student)

    @override
    def on_train_start(self) -> None:
        self._stop_after_the_last_token()  # a run that was killed between its last step and its export

    @override
    def on_train_batch_end(self, *_: Any) -> None:
        self._stop_after_the_last_token()

    def _stop_after_the_last_token(self) -> None:
        if self.total_tokens is not None and self.progress >= 1:
            self.trainer.should_stop = True

    @override
    def training_step(self, batch: StepBatch, _batch_index: int) -> None:
        labels, rows, tokens = self._over_ranks(batch.label_tokens, batch.rows, batch.useful_tokens)
        # The rate at the middle of the step: neither 0 at the first step nor the final rate before the last.
        rate = learning_rate(self.spec, self._progress_after(rows / 2, tokens / 2))
        self.rows_settled += rows
        self.tokens_settled += tokens
        self.report = None
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if labels == 0:  # all rows of the step were rejected or left out
            data.settle(batch)
            return
        by_group: dict[str, list[float]] = {}
        loss_sum = 0.0
        for number, micro in enumerate(batch.micro_batches, start=1):
            with self._gradients_synchronized(number == len(batch.micro_batches)):
                losses_N = self.student(
                    micro.ids_BT, micro.positions_BT, micro.lengths, micro.label_positions_N, micro.labels_N
                )
                # Data parallelism averages the gradients of the ranks; the factor makes it a sum.
                self.manual_backward(losses_N.sum() * (self.trainer.world_size / labels))
            loss_sum += add_losses(by_group, losses_N.detach(), micro)
        (total_loss,) = self._over_ranks(loss_sum)
        norm = self._step(rate, total_loss / labels, batch)
        data.settle(batch)
        self.report = StepReport(
            step=batch.step,
            loss=total_loss / labels,
            learning_rate=rate,
            gradient_norm=norm,
            useful_tokens=batch.useful_tokens,
            label_tokens=batch.label_tokens,
            padding_tokens=batch.padding_tokens,
            rows=rows,
            examples=sum(len(micro.examples) for micro in batch.micro_batches),
            by_group={name: (sums[0], int(sums[1])) for name, sums in by_group.items()},
        )

    def _step(self, rate: float, loss: float, batch: StepBatch) -> float:
        """Clip, check, step. Raises TrainingError before the weights are touched by a bad gradient."""
        optimizer: Any = self.optimizers()
        norm = clip_gradients(self.student.parameters(), self.spec.clip_norm)
        if not (torch.isfinite(torch.tensor([loss, norm])).all()):
            ids = [example.id for micro in batch.micro_batches for example in micro.examples]
            raise TrainingError(
                f"step {batch.step}: loss {loss}, gradient norm {norm}: not finite, so the step was not taken. "
                f"Learning rate {rate:.2e}. Examples of the step: {', '.join(ids[:5])}"
                f"{' …' if len(ids) > 5 else ''}. A lower optimizer.learning_rate or optimizer.clip_norm may help; "
                "the last checkpoint is from before this step."
            )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _over_ranks(self, *values: float) -> list[Any]:
        """Each value summed over the ranks, with its type kept."""
        if self.trainer.world_size == 1:
            return list(values)
        sums = self.trainer.strategy.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduce_op="sum"
        )
        return [type(value)(total) for value, total in zip(values, sums.tolist(), strict=True)]

    def _gradients_synchronized(self, last: bool) -> AbstractContextManager[None]:
        """DDP exchanges gradients once a step, in its last backward pass.

        FSDP does in every micro-batch: to wait for the last, each rank would keep the gradients of all weights.
        """
        strategy = self.trainer.strategy
        if last or not hasattr(strategy, "block_backward_sync"):
            return nullcontext()
        return strategy.block_backward_sync()  # type: ignore[no-any-return]


def add_losses(by_group: dict[str, list[float]], losses_N: Tensor, micro: Any) -> float:
    """Add the losses of a micro-batch to the sums of its sources and strategies; returns their total."""
    sums_E = torch.zeros(len(micro.examples), dtype=torch.float64, device=losses_N.device)
    sums_E.index_add_(0, micro.example_of_label_N, losses_N.double())
    sums: list[float] = sums_E.tolist()  # the one synchronization with the device in a micro-batch
    for example, loss in zip(micro.examples, sums, strict=True):
        for name in (f"source/{example.source}", f"strategy/{example.strategy}"):
            group = by_group.setdefault(name, [0.0, 0])
            group[0] += loss
            group[1] += example.label_tokens
    return sum(sums)
