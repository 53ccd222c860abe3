"""A training job as `train.py` builds it: the student that it loads, and what ends it before the export."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lightning_modules.job import load_student, open_and_run
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.data.identity import digests_of, require_same
from orca2.errors import ConfigError, DataError
from orca2.modelling.adapters import Lora
from orca2.modelling.build import build_tokenizer
from orca2.modelling.embedded import embedded_tokenizer
from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config

QUIET = Console(quiet=True)


def job_of(*overrides: str) -> TrainingJob:
    return TrainingJob(**build_all(compose_config("train", ["trainer=cpu", *overrides]), leave_out=NOT_OF_THE_JOB))


@pytest.mark.parametrize("packing", ["default", "joined"])
def test_altered_logits_use_the_own_head_however_rows_are_packed(packing: str) -> None:
    """Fails if a model that scales its logits is trained on another loss than its own, in silence."""
    scaled = ["model.architecture.model_type=granite", "+model.architecture.logits_scaling=8.0"]
    job = job_of(f"packing={packing}", *scaled)
    student = load_student(job, build_tokenizer(job.model, job.format), "sdpa", QUIET)
    assert student.head == "own"


def test_bf16_weights_keep_their_positions() -> None:
    """Fails if rotary frequencies are rounded like weights: the export, which has them whole, is another model."""
    job = job_of("trainer.precision=bf16-true")
    student = load_student(job, build_tokenizer(job.model, job.format), "sdpa", QUIET)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in student.named_buffers() if "inv_freq" in name} == {torch.float32}
    # Lightning's own bf16-true would round them when the fit begins.
    assert job.trainer.build(Path("x"), [], []).precision == "32-true"


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_without_a_usable_row_ends_before_its_export(epochs: int, tmp_path: Path) -> None:
    """Fails if an untrained student is exported, or a checkpoint keeps the run from starting on mended data."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"user": f"What is {n}?", "answer": "word " * 500}) + "\n" for n in range(9)))
    job = job_of(
        "source=jsonl", f"source.path={rows}", f"source.cache_dir={tmp_path}", "packing.length=256", f"epochs={epochs}"
    )
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(DataError, match=rf"none of {9 * epochs} rows .* {9 * epochs} too long.*rejected\.jsonl"):
        open_and_run(job, run, {"seed": 1}, [])
    assert len(run.rejected.read_text().splitlines()) == 9
    assert re.match(rf"DataError: source jsonl: none of {9 * epochs} rows", (run.path / "FAILED").read_text())
    assert not run.student.exists() and not list(run.checkpoints.glob("step-*"))


def test_a_run_that_is_done_says_that_its_rows_have_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if results of the earlier rows pass for those of the edited file."""
    rows = tmp_path / "rows.json"
    rows.write_text('[{"user": "u", "answer": "a"}]')
    job = job_of("source=jsonl", f"source.path={rows}", f"source.cache_dir={tmp_path}")
    run = RunDirectory(tmp_path / "run")
    run.open_or_resume({"seed": 1}, [])
    require_same(run, digests_of(job.source), begun=False)
    run.results.write_text("{}")
    run.mark_done()
    open_and_run(job, run, {"seed": 1}, [])
    assert "have changed" not in capsys.readouterr().out
    rows.write_text('[{"user": "u", "answer": "b"}]')
    job = job_of("source=jsonl", f"source.path={rows}", f"source.cache_dir={tmp_path}")
    open_and_run(job, run, {"seed": 1}, [])
    assert "the rows of jsonl have changed since: this run was trained on the earlier ones" in capsys.readouterr().out


@pytest.mark.parametrize("has_markup", [True, False])
def test_embeddings_train_beside_adapters_where_the_markup_is_new(has_markup: bool, tmp_path: Path) -> None:
    """Fails if the end of a turn falls on a free row of a padded vocabulary and stays there, frozen and untrained."""
    plain = job_of()
    tokenizer = build_tokenizer(plain.model, plain.format) if has_markup else embedded_tokenizer(600)
    spec = replace(plain.model, tokenizer_vocabulary=None, tokenizer=str(tmp_path))
    padded = replace(spec, architecture={**(spec.architecture or {}), "vocab_size": 2304})
    tokenizer.save_pretrained(tmp_path)
    job = replace(plain, model=padded, lora=Lora(name="small", rank=2))
    student = load_student(job, build_tokenizer(padded, plain.format), "sdpa", QUIET)
    assert student.model.get_input_embeddings().weight.requires_grad is not has_markup


def test_adapters_take_no_moments_of_others() -> None:
    """Fails if freshly drawn adapters are moved by what the adapters of the stage before had learnt."""
    with pytest.raises(ConfigError, match="draws adapters anew"):
        job_of("lora=default", "optimizer_from=runs/a/checkpoints")
