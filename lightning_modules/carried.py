"""What a run takes over from the optimizer of another."""

import json
from pathlib import Path

import lightning as L
import torch.distributed as dist
from typing_extensions import override

from lightning_modules.student import StudentModule
from orca2.checkpointing.folder import checkpoint_step, checkpoints_in, refusal
from orca2.checkpointing.shards import load_tensors, training_tensors
from orca2.errors import CheckpointError
from orca2.processes.ranks import from_first


class CarriedOptimizer(L.Callback):
    """Starts a fit with the moments that another run's optimizer ended with; `checkpoints` is that run's folder.

    A fit that goes on from a checkpoint of its own, in `own`, has its moments there. Learning rate, decay and the
    like are this run's.
    """

    def __init__(self, checkpoints: Path, own: Path) -> None:
        self.checkpoints = checkpoints
        self.own = own

    @override
    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Raises CheckpointError where there is no checkpoint of the end, or it is damaged or another model's."""
        assert isinstance(module, StudentModule)
        newest = from_first(lambda: [str(path) for path in checkpoints_in(self.checkpoints)[-1:]])
        if from_first(lambda: bool(checkpoints_in(self.own))):
            return
        reason = from_first(lambda: self._refusal(newest))
        if reason is not None:
            raise CheckpointError(f"optimizer_from = {self.checkpoints}: {reason}")
        tensors = training_tensors(module.student, trainer.optimizers[0])
        moments = {name: tensor for name, tensor in tensors.items() if name.startswith("optimizer.")}
        group = dist.new_group(backend="gloo") if trainer.world_size > 1 else None
        load_tensors(Path(newest[0]), moments, group)

    def _refusal(self, newest: list[str]) -> str | None:
        if not newest:
            return "there is no checkpoint"
        path, steps = Path(newest[0]), self._steps_of_the_run()
        if steps not in (None, checkpoint_step(path)):
            return f"the newest checkpoint is of step {checkpoint_step(path)}, and the run ended with step {steps}"
        return refusal(path, None)

    def _steps_of_the_run(self) -> int | None:
        """Last step of the other run; None if its manifest has none."""
        try:
            steps: int | None = json.loads((self.checkpoints.parent / "manifest.json").read_text())["steps"]
        except (OSError, ValueError, KeyError):
            return None
        return steps
