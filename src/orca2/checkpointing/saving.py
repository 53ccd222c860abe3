"""Saving in the background: a copy to host memory holds training up, writing does not.

    save(400)   wait for the save before | copy to the host | training goes on
                                                             writing thread: shards -> manifest -> rename -> delete

The writing threads of the ranks talk to each other in a process group of their own, so that they never mix
with training.
"""

import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import async_save

from orca2.checkpointing.folder import (
    UNFINISHED,
    FileRecord,
    checkpoint_path,
    checkpoint_step,
    checkpoints_in,
    publish,
    read_progress,
    refusal,
)
from orca2.checkpointing.shards import ShardWriter, first_failure, load_tensors, misfit
from orca2.errors import CheckpointError
from orca2.processes.ranks import WORK_TIMEOUT, everyone, here

KEPT = 2
"""Checkpoints that stay: the newest, and the one before in case that the newest is damaged."""


class Saver:
    """Saves and loads the checkpoints of one folder. Every method is called by all ranks together.

    `signature` names the config: a checkpoint with another one is refused.
    """

    def __init__(self, folder: Path, signature: str, keep: int = KEPT) -> None:
        self.folder = folder
        self.signature = signature
        self.keep = keep
        self.rank, self.ranks = here().rank, here().world
        self._group = dist.new_group(backend="gloo", timeout=WORK_TIMEOUT) if self.ranks > 1 else None
        cuda = torch.cuda.is_available()
        # Page-locked memory is kept from save to save: locking it costs more than the copy.
        self._stager = DefaultStager(StagingOptions(cuda, False, False, cuda))
        self._writing: tuple[int, Future[Any]] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], shared: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        """Copy, and begin to write. `shared` and `own` (one for each rank) are JSON values.

        Waits for the save before; raises CheckpointError if that one failed.
        """
        self.wait()
        final = checkpoint_path(self.folder, step)
        temporary = final.with_name(final.name + UNFINISHED)
        progress = {**shared, "ranks": everyone(own)}
        about = {
            "step": step,
            "signature": self.signature,
            "ranks": self.ranks,
            "versions": {name: metadata.version(name) for name in ("torch", "lightning")},
        }

        def finish(files: dict[str, FileRecord]) -> None:
            publish(temporary, final, files, progress, about, self.keep)

        writing = async_save(
            dict(tensors),
            storage_writer=ShardWriter(temporary, finish),
            process_group=self._group,
            async_stager=self._stager,
            no_dist=self._group is None,
        )
        assert isinstance(writing, Future)
        self._writing = step, writing

    def wait(self) -> None:
        """Wait until nothing is being written. Raises CheckpointError, once, if the last save failed."""
        if self._writing is None:
            return
        (step, writing), self._writing = self._writing, None
        try:
            writing.result()
        except CheckpointException as error:
            if self.rank == 0:  # all ranks have stopped writing when they learn that one failed
                final = checkpoint_path(self.folder, step)
                shutil.rmtree(final.with_name(final.name + UNFINISHED), ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {first_failure(error)}; "
                f"{_remaining(self.folder)}"
            ) from error

    def close(self) -> None:
        """Give the memory of the copies back. Nothing may be saved afterwards."""
        self._stager.close()

    @property
    def is_writing(self) -> bool:
        """Whether this rank's part of the last save is still under way."""
        return self._writing is not None and not self._writing[1].done()

    def load_newest(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any] | None, list[str]]:
        """Fill `tensors` from the newest checkpoint that can be used; its progress, and why others were refused.

        The progress is None where there is no checkpoint at all. Raises CheckpointError where there are some
        and none can be used, so that no run starts anew by mistake.
        """
        # The first rank's list: those of a network file system may differ for a moment.
        candidates = everyone([str(path) for path in reversed(checkpoints_in(self.folder))])[0]
        refused: list[str] = []
        for path in map(Path, candidates):
            # In this order: the headers of damaged files are not read.
            reason = self._any(refusal(path, self.signature, (self.rank, self.ranks)))
            reason = reason or self._any(misfit(path, tensors))
            if reason is None:
                load_tensors(path, tensors, self._group)
                return {"step": checkpoint_step(path), **read_progress(path)}, refused
            refused.append(reason)
        if refused:
            raise CheckpointError(
                "no checkpoint of this run can be used:"
                + "".join(f"\n  - {reason}" for reason in refused)
                + f"\nRestore one of them, or delete {self.folder} to begin the stage anew."
            )
        return None, refused

    def _any(self, reason: str | None) -> str | None:
        """The reason of the first rank that has one, on every rank."""
        return next((each for each in everyone(reason) if each is not None), None)


def _remaining(folder: Path) -> str:
    usable = [path for path in checkpoints_in(folder) if (path / "manifest.json").exists()]
    return f"the last complete one is {usable[-1].name}" if usable else "there is no earlier one"
