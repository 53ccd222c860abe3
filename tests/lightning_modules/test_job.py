"""A training job as `train.py` builds it: the student that it loads, and what ends it before the export."""

import pytest
from rich.console import Console

from lightning_modules.job import TrainingJob, load_student
from orca2.modelling.build import build_tokenizer
from orca2.settings import build_all, compose_config

NOT_OF_THE_JOB = ("run_dir", "plan", "gpu", "planning", "curriculum", "only_stage")
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
