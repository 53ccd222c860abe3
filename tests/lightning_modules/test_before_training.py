"""What is said of rows that do not train, and what is refused before a run trains."""

import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from torch import nn

from lightning_modules.before_training import leak_check, tell_of_left_out
from lightning_modules.job import open_and_run, open_data
from lightning_modules.space import require_space
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.errors import ConfigError
from orca2.modelling.build import build_tokenizer
from orca2.rendering.renderer import Renderer
from orca2.runs import RunDirectory
from orca2.settings import build, build_all, compose_config
from tests.commands import SMALL_STUDENT

BOLD = "\x1b[1m"


def said(tmp_path: Path, long_rows: int, *overrides: str) -> str:
    """What a run on 60 rows prints before it trains, `long_rows` of them longer than a pack; with terminal codes."""
    rows = tmp_path / "rows.jsonl"
    texts = ["word " * 400 if row < long_rows else "word" for row in range(60)]
    rows.write_text("".join(json.dumps({"user": f"{row}?", "answer": text}) + "\n" for row, text in enumerate(texts)))
    given = ["trainer=cpu", "source=jsonl", f"source.path={rows}", f"source.cache_dir={tmp_path}", "packing.length=256"]
    cfg = compose_config("train", [*given, *overrides])
    job, printed = TrainingJob(**build_all(cfg, leave_out=NOT_OF_THE_JOB)), StringIO()
    console = Console(file=printed, force_terminal=True, color_system="standard", width=300, highlight=False)
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        run.open_or_resume({"seed": 1}, [])
    open_data(job, Renderer(build_tokenizer(job.model, job.format), job.format), run, console)
    return printed.getvalue()


def test_many_long_rows_are_said_first_and_in_bold(tmp_path: Path) -> None:
    """58 of 60 rows too long ended as a success: two rows trained, and a number in a long line said so."""
    first = said(tmp_path, 58).splitlines()[0]
    assert first.startswith(
        f"{BOLD}97% of the rows do not train (58 of 60 looked at): 58 too long for a pack of 256 tokens"
    )
    longest = int(first.partition("the longest has ")[2].partition(")")[0])
    assert longest > 256 and f"packing.length={longest} takes them" in first
    (tmp_path / "again").mkdir()
    assert "too long" not in said(tmp_path / "again", 58, f"packing.length={longest}", f"model.max_len={longest}")


def test_few_long_rows_are_not_shouted(tmp_path: Path) -> None:
    """A warning at every run is read at none."""
    assert BOLD not in said(tmp_path, 12)


def test_answers_that_quote_are_found_anywhere_in_a_file(tmp_path: Path) -> None:
    """Files are sorted by task; the check read the first 1,000 rows, and so only one habit of one task."""
    told, rows = "First recall the facts that matter, then reason, then write the answer.", tmp_path / "rows.jsonl"
    answers = ["It is so." if row < 2_000 else f"As told: {told}" for row in range(3_000)]
    lines = (json.dumps({"user": f"{row}?", "system": told, "answer": text}) for row, text in enumerate(answers))
    rows.write_text("\n".join(lines))
    cfg = compose_config("train", ["source=jsonl", f"source.path={rows}", f"source.cache_dir={tmp_path}"])
    source = build(cfg.source)
    source.prepare()
    report = leak_check(source, build(cfg.strategy))
    assert (report.leaked, report.checked) == (333, 1_000)


def test_what_was_checked_for_leaks_is_said(tmp_path: Path) -> None:
    """`0 answers quote` must not sound like all of a million rows."""
    assert "leak check: 0 of 60 answers quote the teacher's instruction" in said(tmp_path, 0)
    cfg = compose_config("train", ["source.size=5000", "trainer=cpu"])
    job, printed = TrainingJob(**build_all(cfg, leave_out=NOT_OF_THE_JOB)), StringIO()
    run = RunDirectory(tmp_path / "generated")
    with run.locked():
        run.open_or_resume({"seed": 1}, [])
    open_data(job, Renderer(build_tokenizer(job.model, job.format), job.format), run, Console(file=printed, width=300))
    assert "leak check: 0 of 1,000 answers, spread over 5,000 rows, quote" in printed.getvalue()


def test_each_reason_has_its_remedy() -> None:
    """A person who reads that rows are gone wants to know what to change."""
    printed = StringIO()
    console = Console(file=printed, width=300)
    counts = {"rows": 110, "held_out": 10, "kept": 50, "too_long": 20, "left_out": 20, "broken": 10}
    tell_of_left_out(counts, "mixed", 512, 2048, console, rejected=Path("runs/x/rejected.jsonl"))
    text = printed.getvalue()
    assert text.startswith("50% of the rows did not train (50 of 100): 20 too long for a pack of 512 tokens: ")
    for remedy in (
        "a packing.length above 512",
        "20 left out by strategy mixed: strategy=any",
        "runs/x/rejected.jsonl",
    ):
        assert remedy in text
    printed.truncate(0)
    tell_of_left_out(counts | {"too_long": 10, "left_out": 0}, "mixed", 512, 2048, console)
    assert not printed.getvalue().strip("\0"), "20 % is not more than 20 %"


def test_the_end_says_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who starts a run and goes home reads only its end."""
    rows = tmp_path / "rows.jsonl"
    texts = ["word " * 400 if row < 30 else "word" for row in range(60)]
    rows.write_text("".join(json.dumps({"user": f"{row}?", "answer": text}) + "\n" for row, text in enumerate(texts)))
    given = ["trainer=cpu", "source=jsonl", f"source.path={rows}", f"source.cache_dir={tmp_path}", "packing.length=256"]
    cfg = compose_config("train", [*given, *SMALL_STUDENT, 'logger.mode="off"'])
    job = TrainingJob(**build_all(cfg, leave_out=NOT_OF_THE_JOB))
    results = open_and_run(job, RunDirectory(tmp_path / "run"), {"seed": 1}, [])
    assert results["data/too_long"] == 30
    printed = capsys.readouterr().out
    assert "50% of the rows do not train (30 of 60 looked at)" in printed
    end = printed[printed.index("exported to") :].splitlines()
    assert end[1].startswith("50% of the rows did not train (30 of 60)"), "before the table and the curve"


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk was found when the student was exported, after all hours of training."""
    student = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 1000, bias=False).requires_grad_(False))
    need = 3 * 12_000_000 + 8_000_000  # three checkpoints of the trained half with two moments, and all weights once

    def room(free: int) -> None:
        monkeypatch.setattr("lightning_modules.space.shutil.disk_usage", lambda _: SimpleNamespace(free=free))

    room(need)
    require_space(student, tmp_path)
    room(need - 1000)
    with pytest.raises(ConfigError, match=r"has 0\.0 GB of room, and this run needs 0\.0 GB: 3 checkpoints of 0\.0 GB"):
        require_space(student, tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights.safetensors").write_bytes(bytes(1000))  # a resumed run replaces it
    require_space(student, tmp_path)
