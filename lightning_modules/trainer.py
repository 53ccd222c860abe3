"""Chooses device, precision and processes of a run, and makes the Lightning trainer from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from orca2.errors import ConfigError
from orca2.planning.memory import Parallelism
from orca2.processes.ranks import STEP_TIMEOUT, launched

Precision = Literal["auto", "32-true", "bf16-mixed", "bf16-true"]

CPU_PROCESSES = 2
"""Processes of a run on CPUs that is to be spread but does not say how far: enough to try the machinery."""


@dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """The devices and the precision of a run. `auto` takes GPUs where there are any, and bf16 on a GPU."""

    name: str
    accelerator: Literal["auto", "cpu", "gpu"]
    precision: Precision
    """`bf16-mixed`: bf16 compute with fp32 master weights and fp32 sums of gradients."""
    strategy: Literal["auto", "one", "ddp", "fsdp"] = "auto"
    """Lightning's word for how the weights lie: `one` device, whole on each (`ddp`), cut over all (`fsdp`).
    `auto`: fsdp on several GPUs, else one device."""
    devices: int | Literal["auto"] = "auto"
    """Processes on each node, one for each GPU."""
    nodes: int | Literal["auto"] = "auto"
    data_parallel_size: int | Literal["auto"] = "auto"
    """fsdp only: ranks that share one copy of the weights; the others hold copies. `auto`: those of a node."""

    def __post_init__(self) -> None:
        found = []
        for key, allowed in (
            ("accelerator", ("auto", "cpu", "gpu")),
            ("precision", get_args(Precision)),
            ("strategy", ("auto", *get_args(Parallelism))),
        ):
            if getattr(self, key) not in allowed:
                fp16 = "; fp16 is not offered: it needs a loss scaler" if key == "precision" else ""
                found.append(f"trainer.{key} = {getattr(self, key)!r}: one of {', '.join(allowed)}{fp16}")
        for key in ("devices", "nodes", "data_parallel_size"):
            value = getattr(self, key)
            if value != "auto" and (not isinstance(value, int) or value < 1):
                found.append(f"trainer.{key} = {value!r}: auto, or a number from 1")
        if found:
            raise ConfigError("; ".join(found))
        if self.parallelism == "one" and self.world > 1:
            raise ConfigError(f"trainer {self.name!r} is for one process, not {self.world}: use trainer=ddp or fsdp")
        if self.parallelism == "fsdp" and self.world % self.shards:
            raise ConfigError(f"trainer.data_parallel_size = {self.shards} does not divide the {self.world} ranks")

    def require_here(self) -> None:
        """Raise ConfigError where this machine or its launcher is not as asked for; a plan may be for others."""
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator=gpu, but torch sees no CUDA device here: use trainer=cpu")
        if self.device.type == "cuda" and self.local_world > torch.cuda.device_count():
            raise ConfigError(
                f"trainer.devices = {self.local_world}, but torch sees {torch.cuda.device_count()} CUDA devices here"
            )
        place = launched()
        if place is not None and place.world != self.world:
            raise ConfigError(
                f"trainer.devices x trainer.nodes = {self.local_world} x {self.world // self.local_world}, but "
                f"{place.world} processes were launched; leave both at auto, or make them agree"
            )
        if place is None and self.world > self.local_world:
            raise ConfigError(
                f"trainer.nodes = {self.nodes}: this command can start processes on its own machine only; start it on "
                "every node with srun or torchrun, as in docs/scaling.md"
            )

    @property
    def device(self) -> torch.device:
        """The kind of device; which one is the rank's."""
        on_gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if on_gpu else "cpu")

    @property
    def local_world(self) -> int:
        """Processes on each node."""
        if self.devices != "auto":
            return self.devices
        if (place := launched()) is not None:
            return place.local_world
        if self.strategy == "one":
            return 1
        if self.device.type == "cuda":
            return max(1, torch.cuda.device_count())  # none where a run is planned for another machine
        return 1 if self.strategy == "auto" else CPU_PROCESSES

    @property
    def world(self) -> int:
        """Processes of the run, one rank each."""
        if self.nodes != "auto":
            return self.local_world * self.nodes
        place = launched()
        return self.local_world * (1 if place is None else place.nodes)

    @property
    def shards(self) -> int:
        """Ranks that share one copy of the weights."""
        return self.local_world if self.data_parallel_size == "auto" else self.data_parallel_size

    @property
    def parallelism(self) -> Parallelism:
        """How the weights lie. A single process has them whole, whatever was asked for."""
        if self.strategy == "auto":
            return "fsdp" if self.world > 1 else "one"
        return self.strategy if self.world > 1 else "one"

    @property
    def resolved_precision(self) -> str:
        if self.precision != "auto":
            return self.precision
        return "bf16-mixed" if self.device.type == "cuda" else "32-true"

    @property
    def compute_dtype(self) -> torch.dtype:
        """What matrix products are computed in."""
        return torch.bfloat16 if "bf16" in self.resolved_precision else torch.float32

    @property
    def master_dtype(self) -> torch.dtype:
        """What weights, gradients and the optimizer's state are kept in."""
        return torch.bfloat16 if self.resolved_precision == "bf16-true" else torch.float32

    @property
    def starts_ranks(self) -> bool:
        """Whether this process is the head, which has the run's ranks started."""
        return self.world > 1 and launched() is None

    @property
    def autocasts(self) -> bool:
        """Whether torch casts at each operation; sharded weights are cast when they are gathered instead."""
        return self.resolved_precision == "bf16-mixed" and self.parallelism != "fsdp"

    def build(self, folder: Path, loggers: Sequence[Logger], callbacks: Sequence[L.Callback]) -> L.Trainer:
        """A trainer for one stage. The stage is one Lightning epoch; the loader ends it."""
        settings: dict[str, Any] = {
            "enable_progress_bar": False,  # ours shows rows, time left and tokens/s
            "enable_checkpointing": False,  # ours saves between optimizer steps, atomically
            "enable_model_summary": False,
            "use_distributed_sampler": False,  # the stream is dealt to ranks by lanes
            # `processes.ranks` brings every launcher to torchrun's variables. Lightning's own SLURM plugin would also
            # save and requeue on signals, beside us, and takes a single process for one of the job's tasks.
            "plugins": [TorchElasticEnvironment() if self.world > 1 else LightningEnvironment()],
        }
        return L.Trainer(
            accelerator="cpu" if self.device.type == "cpu" else "gpu",
            devices=self.local_world,
            num_nodes=self.world // self.local_world,
            strategy=self._lightning_strategy(),
            # Sharded weights are cast by FSDP itself, and bf16 ones come as such: Lightning would also cast buffers.
            precision="bf16-mixed" if self.autocasts else "32-true",
            max_epochs=1,
            logger=list(loggers),
            callbacks=list(callbacks),
            default_root_dir=folder,
            **settings,
        )

    def _lightning_strategy(self) -> Strategy | str:
        if self.parallelism == "ddp":
            return DDPStrategy(timeout=STEP_TIMEOUT, gradient_as_bucket_view=True)
        if self.parallelism == "fsdp":
            # The student comes sharded (orca2.modelling.sharding); Lightning only needs to know that it is.
            return ModelParallelStrategy(data_parallel_size=self.world, tensor_parallel_size=1, timeout=STEP_TIMEOUT)
        return "auto"
