"""The validation loss of real weights against a plain forward pass of transformers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from transformers import AutoModelForCausalLM

from lightning_modules.accounts import Accounts
from lightning_modules.job import load_student, open_data
from lightning_modules.student import StudentModule
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from lightning_modules.validation import Validation
from orca2.data.validation_rows import validation_batches
from orca2.modelling.build import build_tokenizer
from orca2.rendering.renderer import Renderer
from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
GSM8K = SHARED / "benchmarks" / "gsm8k" / "train.jsonl"
TOLERANCE = 1e-4
"""Nats per label token."""


class BeforeTheFirstStep(Exception):
    pass


class StopThere(L.Callback):
    def on_train_start(self, *_: Any) -> None:
        raise BeforeTheFirstStep


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not GSM8K.exists(), reason="needs $ORCA2_SHARED_DATA/benchmarks/gsm8k/train.jsonl")
def test_the_loss_before_training_is_that_of_a_plain_forward_pass(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """A loss that packs, masks or positions have changed would be believed, and compared with other people's."""
    weights = real_model("smollm2")
    overrides = ["trainer=cpu", "model=hub", f"model.weights={weights}", "source=gsm8k", f"source.path={GSM8K}"]
    overrides += [f"source.cache_dir={tmp_path}", "validation.rows=12", "packing.length=512"]
    job = TrainingJob(**build_all(compose_config("train", overrides), leave_out=NOT_OF_THE_JOB))
    tokenizer, quiet = build_tokenizer(job.model, job.format), Console(quiet=True)
    renderer = Renderer(tokenizer, job.format)
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        run.open_or_resume({"seed": 1}, [])
    data = open_data(job, renderer, run, quiet)
    assert data.validation is not None and len(data.validation.rendered) == 12
    micros = validation_batches(data.validation.rendered, job.packing, 2, renderer.pad_id)
    module = StudentModule(load_student(job, tokenizer, "sdpa", quiet), job.optimizer, data.total_rows)
    validation = Validation(micros, 10, Accounts(10, 1), lambda: False, print)
    with pytest.raises(BeforeTheFirstStep):
        job.trainer.build(tmp_path, [], [validation, StopThere()]).fit(module, datamodule=data)
    plain = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    total, count = 0.0, 0
    for row in data.validation.rendered:
        ids = torch.from_numpy(row.ids).long()
        with torch.no_grad():
            logits = plain(ids[None]).logits[0, :-1]
        labels = torch.where(torch.from_numpy(row.loss_mask)[1:], ids[1:], -100)
        total += float(F.cross_entropy(logits, labels, reduction="sum"))
        count += int((labels != -100).sum())
    assert count == validation.figures["validation/label_tokens"] > 1000
    print(f"validation {validation.before:.6f}, plain transformers {total / count:.6f}, {count} label tokens")
    assert validation.before == pytest.approx(total / count, abs=TOLERANCE)
