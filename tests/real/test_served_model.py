"""A real model behind a real server: teacher, evaluated model, and what a student learns from it, to the end."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.runs import RunDirectory
from orca2.settings import build_all, compose_config, storable
from orca2.synthesis.pipeline import synthesize
from orca2.synthesis.synthesis_job import OPERATIONAL, SynthesisJob
from tests.loopback.transformers_serve import needs_serve, served

pytestmark = [pytest.mark.real, pytest.mark.slow, *needs_serve]
ITEMS, QUESTIONS = 8, 4


@pytest.fixture(scope="module")
def server(real_model: Callable[[str], Path]) -> Any:
    weights = real_model("smollm2")
    with served(weights) as url:
        yield url, weights


def test_a_served_model_is_a_teacher(server: tuple[str, Path], tmp_path: Path) -> None:
    """Fails if the client works with the server of the tests only: other fields, other ends, another name."""
    url, weights = server
    settings = [
        f"out_dir={tmp_path}", "tasks=procedural", "strategy=direct", "teacher=transformers_server", f"size={ITEMS}",
        f"teacher.model={weights}", f"teacher.base_url={url}", "teacher.max_tokens=48",
    ]  # fmt: skip
    cfg = compose_config("synthesize", settings)
    job = SynthesisJob(**build_all(cfg, leave_out=("out_dir",)))
    run = RunDirectory(tmp_path, key="out_dir", operational=OPERATIONAL)
    synthesize(job, run, storable(cfg), settings, Console(file=io.StringIO()))
    output = json.loads((tmp_path / "manifest.json").read_text())["output"]
    # A model of this size runs into its limit at times; nothing else may fail.
    assert output["examples"] + output["failures"].get("truncated", 0) == ITEMS and output["examples"] > 0
    assert set(output["failures"]) <= {"truncated"}
    assert output["spending"]["unsure_requests"] == 0 and output["usage"]["completion_tokens"] > 0


def test_a_served_model_is_evaluated(server: tuple[str, Path], tmp_path: Path) -> None:
    """Fails if an evaluation through a server loses answers, or does not know how they ended."""
    url, weights = server
    settings = [
        "benchmark=procedural", f"limit={QUESTIONS}", "messages=empty", "backend=openai",
        f"backend.model.base_url={url}", f"student={weights}", "benchmark.max_new_tokens=48",
    ]  # fmt: skip
    cfg = compose_config("evaluate", settings)
    job = EvaluationJob(**build_all(cfg, leave_out=("out_dir",)))
    results = run_evaluation(job, tmp_path, storable(cfg), settings, (), {}, Console(file=io.StringIO()))
    records = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert results is not None and len(records) == QUESTIONS
    turns = [record["turns"][0] for record in records]
    assert all(turn["output"].strip() and turn["prompt_tokens"] > 10 for turn in turns)
    assert all((turn["finish_reason"] == "length") == (turn["answer_tokens"] >= 48) for turn in turns)
