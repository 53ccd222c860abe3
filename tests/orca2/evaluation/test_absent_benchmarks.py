"""A benchmark without files: named in every file that a reader opens, and asked once its files are there."""

import json
from pathlib import Path

from rich.console import Console

from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.settings import build_all, compose_config


def test_what_was_left_out_is_named_and_asked_later(tmp_path: Path) -> None:
    """A group's average without one of its members would always look whole: the folder was done."""
    data, out = tmp_path / "data", tmp_path / "out"
    chosen = [f"data_dir={data}", "backend=gold", "benchmark=reasoning", "allow_missing=true", "messages=empty"]
    job = EvaluationJob(**build_all(compose_config("evaluate", chosen), leave_out=("out_dir",)))

    def evaluate() -> dict[str, float]:
        figures = run_evaluation(job, out, {"seed": 0}, (), (), {}, Console(quiet=True))
        assert figures is not None
        return figures

    (data / "gsm8k").mkdir(parents=True)
    row = {"question": "What is 1 + 1?", "answer": "It is 2.\n#### 2"}
    (data / "gsm8k" / "test.jsonl").write_text(json.dumps(row) + "\n")
    first = evaluate()
    absent = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {row["source"] for row in absent if row["kind"] == "absent"} == {"agieval", "bbh", "drop", "crass", "race"}
    assert first["data/gsm8k/rejected"] == first["data/gsm8k/absent_tasks"] == 0
    assert "race was not asked" in (out / "report.md").read_text()
    (data / "race" / "test" / "high").mkdir(parents=True)
    race = {"article": "It rains.", "questions": ["Does it?"], "options": [["Yes", "No", "So", "Or"]], "answers": ["A"]}
    (data / "race" / "test" / "high" / "1.txt").write_text(json.dumps(race | {"id": "high1.txt"}))
    second = evaluate()
    # One of RACE's two tasks has a file; the other is no rejected row.
    assert (second["data/race/rejected"], second["data/race/absent_tasks"]) == (0, 1)
    assert "race was not asked whole: no file for task 'middle'" in (out / "report.md").read_text()
    assert second["race/empty/n"] == 1 and second["gsm8k/empty/n"] == first["gsm8k/empty/n"] == 1
    assert "race was not asked:" not in (out / "report.md").read_text() and (out / "DONE").exists()
