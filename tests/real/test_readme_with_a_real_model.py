"""The README's "Your rows, your model, your teacher", as typed, with the real model and a real server behind it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import HUB_MODEL, OFFLINE, ROOT, readme_commands
from tests.loopback.transformers_serve import needs_serve, served

pytestmark = [pytest.mark.real, *needs_serve]
SMALL = ("packing.length=512", "checkpoint_every_steps=1000", "log_every_steps=1", "held_out.max_new_tokens=4")
PROBLEMS = [
    (f"{name} has {have} {things} and buys {more} more. How many {things} does {name} have now?", have + more)
    for name, things in (("Ana", "apples"), ("Ben", "pens"), ("Chi", "books"), ("Dov", "coins"))
    for have, more in ((3, 4), (12, 9), (25, 6), (40, 17), (8, 8), (15, 23))
]


def run(words: list[str], *more: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / words[0]), *words[1:], *more], cwd=cwd, env=OFFLINE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(1500)
def test_own_rows_model_and_teacher(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    """A newcomer's first three commands must work the first time, on a model that nobody here made."""
    folder = str(real_model("smollm2"))
    rows = [{"user": user, "answer": f"There are {gold} now.\nAnswer: {gold}"} for user, gold in PROBLEMS]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [{"user": user, "gold": str(gold)} for user, gold in PROBLEMS[:6]]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    commands = [[word.replace(HUB_MODEL, folder) for word in words] for words in readme_commands()]
    own, ask, learn = [words for words in commands if any(folder in word for word in words)]
    cached = f"source.cache_dir={tmp_path / 'cache'}"
    run(own, *SMALL, cached, cwd=tmp_path)
    results = json.loads((tmp_path / "runs/on-my-rows/results.json").read_text())
    assert results["validation/loss"] < results["validation/loss_before"]
    with served(Path(folder)) as url:
        run(ask, f"teacher.base_url={url}", "teacher.max_tokens=160", cwd=tmp_path)
    output = json.loads((tmp_path / "synthesized/mine/manifest.json").read_text())["output"]
    # What so small a teacher gets wrong or does not end is counted, not kept.
    assert output["examples"] >= 1
    assert output["examples"] + output["answers_not_kept"] + sum(output["failures"].values()) == len(questions)
    run(learn, *SMALL, cached, cwd=tmp_path)
    assert (tmp_path / "runs/from-my-teacher/DONE").exists()
