"""A benchmark at the end of a run asks the student in memory, writes what evaluate.py writes, and resumes."""

from pathlib import Path

import pytest
from rich.console import Console

from lightning_modules.benchmarking import ask_benchmark, plan_benchmark
from orca2.errors import DataError
from orca2.evaluation.benchmark import flatten
from orca2.evaluation.benchmarks.procedural_benchmark import ProceduralBenchmark
from orca2.evaluation.report.load import load_run
from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.student_model import StudentForLoss
from orca2.rendering.renderer import Renderer
from orca2.settings import build, compose_config

SMALL = (
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=1",
    "benchmark=procedural",
    "benchmark.questions_per_family=1",
    "benchmark.max_new_tokens=4",
)


def test_figures_records_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if figures are of other samples than the plan's, or if a run that goes on asks everything again."""
    cfg = compose_config("train", SMALL)
    spec, chat = build(cfg.model), build(cfg.format)
    tokenizer = build_tokenizer(spec, chat)
    student = StudentForLoss(build_model(spec, tokenizer, 0), "sdpa")
    planned = plan_benchmark(build(cfg.benchmark), None, 5)
    assert planned is not None
    console = Console(quiet=True)

    def ask(signature: str) -> dict[str, float]:
        messages = {"empty": "", "cautious": "Be careful."}
        renderer = Renderer(tokenizer, chat)
        return ask_benchmark(planned, student, renderer, messages, spec.max_len, tmp_path, "r", signature, console)

    figures = ask("a")
    assert figures["procedural/empty/n"] == figures["procedural/cautious/n"] == 5
    assert 0 <= figures["procedural/empty/accuracy"] <= figures["procedural/empty/format_ok"] <= 1
    folder = tmp_path / "evaluations" / "train-procedural"
    loaded = load_run("r", folder)
    records = loaded.records
    assert loaded.problems == () and loaded.rows["procedural"]["asked"] == 5
    assert (folder / "rejected.jsonl").exists() and "not finished" not in (folder / "report.md").read_text()
    assert len(records) == 10 and all(one.turns[0].answer_tokens <= 4 for one in records)
    assert (folder / "report.md").exists() and "system\nBe careful." in records[5].turns[0].prompt
    calls: list[int] = []
    stream = "orca2.generation.hf.HFGenerator.stream"
    monkeypatch.setattr(stream, lambda self, waiting: calls.append(len(waiting)) or iter(()))
    assert ask("a") == figures and sum(calls) == 0, "a run that was killed here asked again"
    monkeypatch.undo()


def test_a_benchmark_without_files_is_refused_before_the_fit(tmp_path: Path) -> None:
    """An error after hours of training would lose the measurement."""
    gsm8k = flatten(build(compose_config("train", ["benchmark=gsm8k"]).benchmark))["gsm8k"]
    assert not isinstance(gsm8k, ProceduralBenchmark)
    with pytest.raises(DataError, match="none of its files"):
        plan_benchmark(gsm8k, str(tmp_path), None)
    assert plan_benchmark(None, None, None) is None
