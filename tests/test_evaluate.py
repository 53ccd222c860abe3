"""`evaluate.py` as people run it: stand-ins, resume after kill -9, several processes, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orca2.evaluation.sample_records import SampleRecord, read_records
from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.export import export_student
from orca2.rendering import Renderer
from orca2.settings import build, compose_config
from tests.commands import ENVIRONMENT, ROOT


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "evaluate.py"), *overrides]


def evaluate(*overrides: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(command(*overrides), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def records_of(folder: Path) -> list[SampleRecord]:
    found = list(read_records(folder / "samples.jsonl"))
    assert found and all(isinstance(record, SampleRecord) for record in found)
    return [record for record in found if isinstance(record, SampleRecord)]


def without_timing(folder: Path) -> list[str]:
    """Everything of the records but how long each took."""
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        del line["check"]
        for turn in line["turns"]:
            del turn["seconds"]
    return [json.dumps(line, sort_keys=True) for line in lines]


def test_a_stand_in_through_the_command(tmp_path: Path) -> None:
    """The names in results.json are read by other tools; the figures are known beforehand."""
    printed = evaluate("backend=gold", "benchmark=smoke", "out_dir=out", cwd=tmp_path)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for message in ("empty", "cautious"):
        figures = {metric: results[f"procedural/{message}/{metric}"] for metric in ("accuracy", "format_ok", "n")}
        assert figures == {"accuracy": 1.0, "format_ok": 1.0, "n": 42}
        assert f"procedural/{message}/answer_tokens" in results
    assert results["samples"] == "samples.jsonl"
    assert len(records_of(tmp_path / "out")) == 84
    assert (tmp_path / "out" / "DONE").exists() and "100.00%" in printed


@pytest.mark.slow
def test_the_same_folder_is_done_or_refused(tmp_path: Path) -> None:
    """Asking again would cost money or hours; two configs in one folder would be an evaluation that never was."""
    evaluate("backend=gold", "out_dir=out", "processes=2", cwd=tmp_path)
    before = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert "is done" in evaluate("backend=gold", "out_dir=out", cwd=tmp_path)
    printed = evaluate("backend=gold", "out_dir=out", "limit=5", "messages=empty", cwd=tmp_path, code=2)
    assert "limit" in printed and "messages" in printed and "Traceback" not in printed
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == before


def test_samples_of_another_command_are_left_alone(tmp_path: Path) -> None:
    """Merging would replace what train.py measured with other questions."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.jsonl").write_text("hours of work\n")
    printed = evaluate("backend=gold", "out_dir=out", cwd=tmp_path, code=2)
    assert "out_dir = out holds samples.jsonl of another command" in printed
    assert (tmp_path / "out" / "samples.jsonl").read_text() == "hours of work\n"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("backend=hf", "student=no/where/there"), "no such folder"),
        (("backend=gold", "benchmark=reasoning", "data_dir=."), "allow_missing=true"),
    ],
)
def test_mistakes_end_with_one_message(overrides: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """A wrong path ended in a traceback, or after an hour of loading."""
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text(json.dumps({"question": "What is 1 + 1?", "answer": "#### 2"}))
    printed = evaluate(*overrides, "out_dir=out", cwd=tmp_path, code=2)
    assert said in printed and "Traceback" not in printed


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a small exported student, as `train.py` leaves it; its weights are random."""
    small = ("hidden_size=32", "intermediate_size=64", "num_hidden_layers=2")
    config = compose_config("train", [f"model.architecture.{text}" for text in small])
    model, form, erasing = build(config.model), build(config.format), build(config.erasing)
    tokenizer = build_tokenizer(model, form, erasing.inference)
    info = {"renderer": Renderer(tokenizer, form).identity, "erasing": erasing.name, "system": erasing.inference}
    folder = tmp_path_factory.mktemp("students") / "run"
    export_student(build_model(model, tokenizer, seed=3), tokenizer, folder / "student", info)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.slow
def test_killed_anywhere_and_resumed_gives_the_same_report(student: Path, tmp_path: Path) -> None:
    """kill -9 at three points, then another batch size, then two processes: not one figure or text may differ."""
    asked = (f"student={student}", "backend=hf", "benchmark=smoke")
    evaluate(*asked, "out_dir=whole", cwd=tmp_path)
    shards = tmp_path / "killed" / "shards"
    total = len(records_of(tmp_path / "whole"))
    for share, more in ((0.2, ()), (0.5, ("backend.batch_tokens=700",)), (0.8, ("processes=2",))):
        _kill_after(int(share * total), shards, command(*asked, "out_dir=killed", *more), tmp_path)
        assert not (tmp_path / "killed" / "DONE").exists(), "it was over before it was killed"
        with next(iter(sorted(shards.glob("*.jsonl")))).open("a") as torn:
            torn.write('{"key": "torn')
    printed = evaluate(*asked, "out_dir=killed", "processes=2", "backend.batch_tokens=900", cwd=tmp_path)
    assert "resuming" in printed
    assert without_timing(tmp_path / "killed") == without_timing(tmp_path / "whole")
    for name in ("results.json", "report.md"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


def _kill_after(lines: int, shards: Path, run: list[str], cwd: Path) -> None:
    """Start `run`, and kill its whole process group when its shards hold so many records."""
    process = subprocess.Popen(
        run, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if sum(path.read_bytes().count(b"\n") for path in shards.glob("*.jsonl")) >= lines:
            break
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_student_is_measured_from_its_run_directory(student: Path, tmp_path: Path) -> None:
    """The plain command of the README, and the results inside the run that it measures."""
    printed = evaluate(f"student={student}", "benchmark=smoke", cwd=tmp_path)
    folder = student / "evaluations" / "smoke"
    assert str(folder / "results.json") in printed
    records = records_of(folder)
    assert all(turn.prompt.startswith("<|im_start|>system\n") for record in records for turn in record.turns)
    assert any(turn.answer_tokens > 0 for record in records for turn in record.turns)
