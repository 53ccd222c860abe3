"""The training data of one stage as a LightningDataModule. The work is done in `orca2.data`.

source --choice--> Example --erasing, renderer--> tokens --packing--> StepBatch
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from orca2.data.loader import StepLoader, StepShape, merge_states
from orca2.data.packing import PackingSpec
from orca2.data.rendered_rows import HeldOut, RowRenderer
from orca2.data.report import DataReport
from orca2.data.validation_rows import ValidationRows, hold_out
from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.files import unwritten_is_a_warning
from orca2.records import StepBatch
from orca2.rendering.renderer import Renderer
from orca2.rows.source import PreparedSource, Source, Survey, survey
from orca2.strategies import StrategyChoice
from orca2.thinking import DROP, Thinking


class ErasedPromptDataModule(L.LightningDataModule):
    """Streams `epochs` passes over a source as optimizer steps.

    The module calls `settle(batch)` after each optimizer step; `state_dict` is the position after the last
    one. Lightning fetches a step ahead, so what the loader gave out is not what was trained on.
    """

    def __init__(
        self,
        *,
        source: Source,
        strategy: StrategyChoice,
        erasing: Erasing,
        renderer: Renderer,
        packing: PackingSpec,
        epochs: int,
        packs_per_step: int,
        packs_per_micro_batch: int,
        workers: int,
        seed: int,
        loss_on_history: bool = False,
        rejected_path: Path | None = None,
        validation_rows: int = 0,
        thinking: Thinking = DROP,
    ) -> None:
        """`rejected_path` gets the list of rejected rows; `validation_rows` of each source do not train.

        Raises ConfigError for numbers that do not fit.
        """
        super().__init__()
        if epochs < 1 or workers < 0:
            raise ConfigError(f"epochs={epochs} must be 1 or more, and workers={workers} 0 or more")
        StepShape(packs_per_step=packs_per_step, packs_per_micro_batch=packs_per_micro_batch).lanes_of_rank(
            packing.lanes
        )
        self.source = source
        self.strategy = strategy
        self.packing = packing
        self.epochs = epochs
        self.packs_per_step = packs_per_step
        self.packs_per_micro_batch = packs_per_micro_batch
        self.workers = workers
        self.seed = seed
        self.rejected_path = rejected_path
        self.validation_rows = validation_rows
        self.render = RowRenderer(
            renderer=renderer,
            erasing=erasing,
            length=packing.length,
            loss_on_history=loss_on_history,
            thinking=thinking,
        )
        self.report = DataReport()
        """The accounts of this rank."""
        self.survey: Survey | None = None
        """What the choice keeps; known after `setup`, where the source can tell without reading all."""
        self.validation: ValidationRows | None = None
        """The rows that do not train; known after `setup`."""
        self._state: dict[str, Any] | None = None

    @property
    def total_rows(self) -> int | None:
        """Rows that the stage settles over all epochs and ranks; None for a stream of unknown length."""
        return None if self.source.size is None else self.epochs * self.source.size

    @override
    def prepare_data(self) -> None:
        """Import or download, on one process of each machine. Raises DataError for an unusable source."""
        if isinstance(self.source, PreparedSource):
            self.source.prepare()

    @override
    def setup(self, stage: str) -> None:
        """Count what the choice keeps, and read what validates. Raises DataError if the choice keeps nothing."""
        if self.survey is None:
            self.survey = survey(self.source, self.strategy)
        if self.validation is None:
            self.validation = hold_out(self.source, self.validation_rows, self.seed, self.strategy, self.render)

    @override
    def train_dataloader(self) -> StepLoader:
        """The steps that remain."""
        shared_lanes = len(self._shape.lanes_of_rank(self.packing.lanes)) < self.packing.lanes
        return StepLoader(
            source=self.source,
            choice=self.strategy,
            render=self.render,
            packing=self.packing,
            shape=self._shape,
            epochs=self.epochs,
            seed=self.seed,
            workers=self.workers,
            state=self._state,
            everyone_done=self._everyone_done if shared_lanes else None,
            held=HeldOut() if self.validation is None else self.validation.held,
        )

    @override
    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the tensors of a StepBatch or MicroBatch; Lightning would walk through all its texts too."""
        if isinstance(batch, StepBatch):
            micros = (self.transfer_batch_to_device(each, device, 0) for each in batch.micro_batches)
            return batch._replace(micro_batches=tuple(micros))
        tensors = {name: each for name, each in batch._asdict().items() if isinstance(each, torch.Tensor)}
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        return batch._replace(**moved)

    def settle(self, batch: StepBatch) -> None:
        """Take note that `batch` was trained on."""
        self._state = self.train_dataloader().state_after(batch)
        self.report.add(batch)
        if self.rejected_path is not None and batch.rejected:
            with unwritten_is_a_warning(self.rejected_path):
                self.report.write_rejected(self.rejected_path)

    @override
    def state_dict(self) -> dict[str, Any]:
        """The position of this rank after the last settled step; empty before the first."""
        return {} if self._state is None else {"position": self._state, "report": self.report.state_dict()}

    def load_states(self, states: Sequence[dict[str, Any]], rank: int, world: int) -> None:
        """Continue from the saved states of all ranks, as rank `rank` of `world`.

        The position is that of all of them. Each rank gets its own accounts back; where the number of ranks
        changed, the first takes them all.
        """
        if not any(states):  # saved before the first step
            return
        self._state = merge_states([state["position"] for state in states])
        reports = [state["report"] for state in states]
        if len(reports) == world:
            self.report.load_states([reports[rank]])
        else:
            self.report.load_states(reports if rank == 0 else [])

    @property
    def _shape(self) -> StepShape:
        trainer = self.trainer
        return StepShape(
            packs_per_step=self.packs_per_step,
            packs_per_micro_batch=self.packs_per_micro_batch,
            world=1 if trainer is None else trainer.world_size,
            rank=0 if trainer is None else trainer.global_rank,
        )

    def _everyone_done(self, mine: bool) -> bool:
        assert self.trainer is not None
        return bool(self.trainer.strategy.reduce_boolean_decision(mine, all=True))
