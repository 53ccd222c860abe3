"""Whether the disk has room for what a run will write, asked before its first step instead of after its last."""

import shutil
from pathlib import Path

from torch import nn

from orca2.checkpointing.saving import KEPT
from orca2.errors import ConfigError
from orca2.planning.memory import ADAM_STATES


def require_space(student: nn.Module, run: Path) -> None:
    """Raise ConfigError where the run's file system has less room than its checkpoints and its export need.

    A new checkpoint is whole before the oldest goes, so one more than are kept lie there for a moment. Files of
    the run that it will replace count as room.
    """
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in student.parameters()]
    checkpoint = sum(size for size, trained in sizes if trained) * (1 + ADAM_STATES)
    exported = sum(size for size, _ in sizes)
    need = checkpoint * (KEPT + 1) + exported
    written = sum(file.stat().st_size for folder in ("checkpoints", "student") for file in (run / folder).rglob("*.*"))
    free = shutil.disk_usage(run).free + written
    if need > free:
        raise ConfigError(
            f"the disk of {run} has {free / 1e9:,.1f} GB of room, and this run needs {need / 1e9:,.1f} GB: {KEPT + 1} "
            f"checkpoints of {checkpoint / 1e9:,.1f} GB and the exported student of {exported / 1e9:,.1f} GB; free "
            "some, or give run_dir=<folder on another disk>"
        )
