"""One rank of a small fit that saves, is killed or ends, and is resumed; `test_resume_across_ranks` starts it.

    torchrun --nproc-per-node 2 tests/resume_fit.py OUT STRATEGY KILL_AT      STRATEGY: one | ddp | fsdp

Goes on from OUT/checkpoints if there are any, saving every 3 steps. After each step every rank appends a line with the
step, its loss and this rank's example ids to OUT/steps-<rank>.jsonl. Rank 1 is killed (SIGKILL) in the middle of step
KILL_AT, before its optimizer steps; -1: never. A fit that ends writes OUT/end-<rank>.json.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

from orca2.processes.ranks import joined
from tests.small_fit import Fit

EVERY = 3
"""Steps between checkpoints."""


class Record(L.Callback):
    """Writes down each step at once, so that a kill loses nothing that was done."""

    def __init__(self, path: Path, kill_at: int, rank: int) -> None:
        self.path, self.kill_at, self.rank = path, kill_at, rank

    def on_train_batch_end(self, _trainer: Any, module: Any, _out: Any, batch: Any, *_: Any) -> None:
        ids = [example.id for micro in batch.micro_batches for example in micro.examples]
        line = {"step": batch.step, "loss": module.report.loss, "ids": ids}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.kill_at and self.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(out: Path, strategy: str, kill_at: int) -> None:
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        fit = Fit(out, rows=200, strategy=strategy, lanes=2)
        record = Record(out / f"steps-{ranks.rank}.jsonl", kill_at, ranks.rank)
        fit.run(record, resume=out / "checkpoints", every=EVERY)
        end = {"told": fit.told, "rows": fit.data.report.rows, "progress": fit.module.progress}
        (out / f"end-{ranks.rank}.json").write_text(json.dumps(end))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
