"""Processes of one evaluation: what a killed launch left, what a finished one needs, and those that die."""

import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from orca2.errors import ModelError
from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.evaluation.report.load import load_run
from orca2.processes import handshake as ranks
from orca2.processes.handshake import answer_call, check_starter, everyone_answered, open_call, other_processes
from orca2.processes.ranks import ALONE
from orca2.settings import build_all, compose_config


def make_job(*overrides: str) -> EvaluationJob:
    cfg = compose_config("evaluate", ("backend=gold", "benchmark.questions_per_family=1", *overrides))
    return EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))


def evaluate(job: EvaluationJob, folder: Path, environment: Mapping[str, str]) -> dict[str, float] | None:
    return run_evaluation(job, folder, {"seed": 0}, (), (), environment, Console(quiet=True))


def rank(index: int) -> dict[str, str]:
    return {"RANK": str(index), "WORLD_SIZE": "2"}


def test_only_this_launch_answers_its_call(tmp_path: Path) -> None:
    """With a mark of a killed launch, the first process would merge while the others open their shards."""
    killed = open_call(tmp_path)
    answer_call(tmp_path, 1, lambda: False)()
    assert everyone_answered(tmp_path, killed, 2)
    ready = answer_call(tmp_path, 1, lambda: False)
    ready()  # it finds the old call, for the first process has not begun
    word = open_call(tmp_path)
    assert not everyone_answered(tmp_path, word, 2)
    assert not ready() and everyone_answered(tmp_path, word, 2) and not everyone_answered(tmp_path, word, 3)


def test_ranks_meet_after_a_kill_and_leave_a_finished_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that works in a finished folder leaves shards behind; one that is overtaken finds none."""
    monkeypatch.setattr(ranks, "POLL_S", 0.01)
    monkeypatch.setattr("orca2.evaluation.evaluation_job.PATIENCE_S", 20.0)
    job = make_job("benchmark=procedural")
    shards = tmp_path / "shards"
    open_call(shards)
    answer_call(shards, 1, lambda: False)()
    errors: list[BaseException] = []

    def second() -> None:
        try:
            evaluate(job, tmp_path, rank(1))
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=second)
    other.start()
    figures = evaluate(job, tmp_path, rank(0))
    other.join(timeout=30)
    assert not other.is_alive() and errors == []
    assert figures is not None and figures["procedural/empty/accuracy"] == 1.0
    before = sorted(tmp_path.iterdir())
    assert shards not in before and load_run("r", tmp_path).problems == ()
    assert evaluate(job, tmp_path, rank(1)) is None and evaluate(job, tmp_path, rank(0)) == figures
    assert sorted(tmp_path.iterdir()) == before


def test_a_dead_process_is_noticed_at_once() -> None:
    """Found at the end only, the death of one process costs the hours of all others."""
    deadline = time.monotonic() + 20
    with other_processes([sys.executable, "-c", "raise SystemExit(3)"], ALONE, 2) as (_, check):
        said = ""
        while not said and time.monotonic() < deadline:
            try:
                check()
            except ModelError as error:
                said = str(error)
    assert said.startswith("process 1 of 2 ended with code 3")


def test_an_orphan_stops() -> None:
    """After kill -9 of the first process the others would go on for hours, on a GPU that looks free."""
    check_starter({})
    check_starter({ranks.STARTED_BY: str(os.getppid())})
    with pytest.raises(ModelError, match="started this one is gone"):
        check_starter({ranks.STARTED_BY: str(os.getpid())})
