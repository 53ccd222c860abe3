"""What a training run is made of: everything that one fit needs, checked before anything is written."""

from dataclasses import dataclass

from lightning_modules.loggers import WandbSpec
from lightning_modules.tensorboard import TensorBoardSpec
from lightning_modules.trainer import TrainerSpec
from orca2.data.loader import StepShape
from orca2.data.packing import PackingSpec
from orca2.data.validation_rows import ValidationSpec
from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.evaluation.benchmark import Benchmark, BenchmarkGroup
from orca2.evaluation.held_out import HeldOutSpec
from orca2.modelling.adapters import Lora
from orca2.modelling.optimization import OptimizerSpec
from orca2.modelling.spec import ModelSpec
from orca2.rendering.format import ChatFormat
from orca2.rows.source import PinnedSource, Source
from orca2.strategies import StrategyChoice
from orca2.thinking import DROP, Thinking

NOT_OF_THE_JOB = ("run_dir", "plan", "gpu", "planning", "curriculum", "only_stage")
"""Root keys of `conf/train.yaml` that say what is done with a job, and are not fields of it."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that one fit needs, checked and built."""

    name: str
    seed: int
    model: ModelSpec
    strategy: StrategyChoice
    lora: Lora
    erasing: Erasing
    format: ChatFormat
    source: Source
    packing: PackingSpec
    optimizer: OptimizerSpec
    trainer: TrainerSpec
    logger: WandbSpec | TensorBoardSpec
    held_out: HeldOutSpec
    validation: ValidationSpec
    epochs: int
    packs_per_step: int
    packs_per_micro_batch: int
    workers: int
    checkpoint_every_steps: int
    log_every_steps: int
    loss_on_history: bool
    """Whether earlier answers of a conversation carry loss too."""
    thinking: Thinking = DROP
    benchmark: Benchmark | BenchmarkGroup | None = None
    """Measured at the end, under the messages of `held_out`."""
    data_dir: str | None = None
    """Folder of the benchmark's official files; None: from the hub."""
    benchmark_limit: int | None = None
    """Most samples of each benchmark."""
    tokens: int | None = None
    """Useful tokens after which the fit ends, instead of `epochs`."""
    optimizer_from: str | None = None
    """`checkpoints/` of a run whose moments this one starts with."""

    def __post_init__(self) -> None:
        if self.packing.length > self.model.max_len:
            raise ConfigError(
                f"packing.length = {self.packing.length} is longer than model.max_len = {self.model.max_len}: "
                "a single example could fill a pack, and the model has no positions for it"
            )
        if self.optimizer_from is not None and self.lora.enabled:
            raise ConfigError(
                f"optimizer_from = {self.optimizer_from}, but a run with lora={self.lora.name} draws adapters anew, "
                "and the moments are those of others: leave it out (in a curriculum: optimizer_state: reset)"
            )
        StepShape(
            packs_per_step=self.packs_per_step,
            packs_per_micro_batch=self.packs_per_micro_batch,
            world=self.trainer.world,
        ).lanes_of_rank(self.packing.lanes)

    def require_here(self) -> None:
        """Raise ConfigError for what this machine lacks, before anything is written. A plan may be for another."""
        self.logger.require_here()
        self.trainer.require_here()
        self.lora.require(self.trainer.device, sharded=self.trainer.parallelism == "fsdp")
        if isinstance(self.source, PinnedSource) and (reasons := self.source.unpinned()):
            raise ConfigError("\n  - ".join(["this data can change between two runs:", *reasons]))
