"""The commands that people type, as processes of their own: what they print, leave behind and survive."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from orca2.rendering.renderer import Renderer
from orca2.settings import build, check_command_line, compose_config
from tests.commands import ENVIRONMENT, HUB_MODEL, ROOT, SMALL_STUDENT, docs_commands, readme_commands

SMALL = (
    *SMALL_STUDENT,
    "source.size=420",
    "held_out.questions_per_task=2",
    "held_out.max_new_tokens=8",
    "held_out.sample_every_steps=10",
    "log_every_steps=1",
)
"""A run of a few seconds."""
SECRET = "0123456789" * 4
"""Stands in the environment of every run; W&B itself is disabled in tests."""


def run(*arguments: str, cwd: Path = ROOT, code: int = 0) -> str:
    """Run a root script; returns all that it printed."""
    environment = ENVIRONMENT | {"WANDB_API_KEY": SECRET}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, input="Hi\n", timeout=500)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(folder: Path, *overrides: str, code: int = 0) -> str:
    return run(str(ROOT / "train.py"), f"run_dir={folder}", *SMALL, *overrides, cwd=folder.parent, code=code)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of one finished run."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    return folder, train(folder)


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["train/loss"]) for row in csv.DictReader(file)]


def test_a_run_leaves_what_the_readme_promises(finished: tuple[Path, str]) -> None:
    """Later tools read these files by name."""
    folder, printed = finished
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "overrides.txt", "manifest.json", "metrics.csv", "results.json", "DONE"} <= names
    assert {"checkpoints", "student", "answers.jsonl", "samples.jsonl"} <= names
    with (folder / "metrics.csv").open(newline="") as file:
        columns = csv.DictReader(file).fieldnames
    assert columns is not None
    wanted = (
        "step train/loss train/useful_tokens_per_s train/label_tokens_per_s train/pack_utilisation data/examples_seen"
    )
    assert set(wanted.split()) <= set(columns)
    results = json.loads((folder / "results.json").read_text())
    for message in ("cautious", "empty"):
        for metric in ("accuracy", "format_ok", "n", "answer_tokens"):
            assert isinstance(results[f"held_out/{message}/{metric}"], (int, float))
    assert "held-out questions" in printed
    assert str(folder / "student") in printed


def test_no_secret_is_stored(finished: tuple[Path, str]) -> None:
    """A run directory is shared with others."""
    folder, printed = finished
    stored = [path for path in folder.rglob("*") if path.is_file()]
    assert len(stored) > 10
    assert all(SECRET.encode() not in path.read_bytes() for path in stored) and SECRET not in printed
    text = "".join(path.read_text() for path in folder.glob("*.*") if path.suffix in (".yaml", ".json", ".txt"))
    assert "api_key" not in text.lower()


def test_the_ecosystem_loads_the_student(finished: tuple[Path, str]) -> None:
    """An export that only we can read, or whose chat template asks otherwise than it was trained, is worthless."""
    folder, _ = finished
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    config = compose_config("train")
    renderer, erasing = Renderer(tokenizer, build(config.format)), build(config.erasing)
    question = "What is 12 + 30?"
    ours = renderer.prompt(erasing.inference, question)
    # No system message given: the template adds the cautious one that the student was trained with.
    theirs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    assert theirs == ours
    with torch.no_grad():
        logits = model(torch.tensor([ours])).logits
    assert torch.isfinite(logits).all()
    generated = model.generate(torch.tensor([ours]), max_new_tokens=4, do_sample=False)
    assert generated.shape[1] <= len(ours) + 4


def test_the_same_command_again_says_done(finished: tuple[Path, str]) -> None:
    """Training a finished run again would waste hours, or overwrite it."""
    folder, _ = finished
    before = losses(folder)
    assert "is done" in train(folder)
    assert losses(folder) == before


def test_another_config_in_the_same_folder_is_refused(finished: tuple[Path, str]) -> None:
    """Two configurations in one folder would be a run that never existed."""
    folder, _ = finished
    printed = train(folder, "optimizer.learning_rate=0.5", code=2)
    assert "optimizer.learning_rate" in printed
    assert "Traceback" not in printed


def test_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    """The command of the README, and the error that it promises."""
    printed = run(str(ROOT / "train.py"), "modle=13b", "model.max_len=abc", cwd=tmp_path, code=2)
    assert "'modle' is not a key of TrainConfig; did you mean 'model'?" in printed
    assert "model.max_len = 'abc': orca2.modelling.spec.ModelSpec wants int" in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_broken_rows_are_listed_and_the_rest_trains(tmp_path: Path) -> None:
    """One bad line in a file of a million must not end a run, nor vanish."""
    rows = [json.dumps({"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"}) for i in range(40)]
    rows[3] = '{"question": "cut of'
    rows[7] = json.dumps({"question": "no answer"})
    rows[9] = json.dumps({"question": "What?", "answer": ""})
    rows[11] = "[1, 2]"
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    overrides = [text for text in SMALL if not text.startswith("source.")]
    printed = run(
        str(ROOT / "train.py"),
        f"run_dir={tmp_path / 'run'}",
        "source=gsm8k",
        f"source.path={tmp_path / 'train.jsonl'}",
        f"source.cache_dir={tmp_path / 'cache'}",
        *overrides,
        cwd=tmp_path,
    )
    listed = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert len(listed) == 4
    assert all(row["reason"] for row in listed)
    assert "36 kept, 4 broken" in printed


@pytest.mark.slow
def test_killed_anywhere_and_resumed_gives_the_same_losses(finished: tuple[Path, str], tmp_path: Path) -> None:
    """kill -9 at a random step: every later loss must be the same to the last bit."""
    whole = losses(finished[0])
    folder = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, str(ROOT / "train.py"), f"run_dir={folder}", *SMALL, "checkpoint_every_steps=3"]
    kill_at = Random(os.getpid()).randrange(5, len(whole) - 2)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "metrics.csv").exists() and len(losses(folder)) >= kill_at:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(losses(folder)) >= kill_at
    assert not (folder / "DONE").exists(), "the run was over before it was killed"
    assert "resuming after step" in train(folder, "checkpoint_every_steps=3")
    assert losses(folder) == whole


def smaller(script: str, arguments: list[str], folder: Path) -> list[str]:
    """What makes a command of the README a matter of seconds."""
    if {"--help", "--cfg", "plan=true", "estimate=true"} & set(arguments):
        return []
    if script == "synthesize.py":
        return ["size=120", f"cache={folder / 'cache.sqlite'}"]
    if script == "evaluate.py":
        return ["limit=1"]
    if script != "train.py":
        return []
    stored = any(text.startswith("source=") for text in arguments)
    small = [text for text in SMALL if not (stored and text.startswith("source."))]
    small += [f"source.cache_dir={folder / 'rows'}"] if stored else []
    return [*small, *(["seed=1"] if any(text.startswith("sweeps=") for text in arguments) else [])]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_readme_commands(tmp_path: Path) -> None:
    """A README whose commands fail is worse than none; each is run as written, one after the other, only smaller."""
    row = {"question": "What is 2 + 2?", "answer": "2 + 2 is 4.\n#### 4", "user": "Hi", "system": "", "reasoning": "Hm"}
    for name in ("train.jsonl", "mine.jsonl", "traces.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for _ in range(30)))
    for script, *arguments in readme_commands():
        if any(HUB_MODEL in text for text in arguments):
            continue  # tests/real/test_readme_with_a_real_model.py
        printed = run(str(ROOT / script), *arguments, *smaller(script, arguments, tmp_path), cwd=tmp_path)
        assert printed.strip(), script


@pytest.mark.slow  # a second each
@pytest.mark.parametrize("words", [words for words in docs_commands() if "/" not in words[0]], ids=" ".join)
def test_a_command_of_the_docs_is_accepted(words: list[str]) -> None:
    """A page that names a key or an option that is not there teaches an error."""
    script, *arguments = words
    if any(".yaml" in text or "launcher" in text or "optuna" in text for text in arguments):
        pytest.skip("an option in a file that another command writes, or of a plugin")
    multirun = bool({"-m", "--multirun"} & set(arguments))
    overrides = [text for text in arguments if not text.startswith("-")]
    check_command_line(script.removesuffix(".py"), overrides, ROOT / "conf", multirun)


def test_the_docs_have_commands() -> None:
    """The test above passes on pages without any."""
    assert {words[0] for words in docs_commands()} >= {"train.py", "synthesize.py", "evaluate.py", "judge.py"}


def test_the_readme_has_commands() -> None:
    """The test above must not pass because it found nothing to run."""
    assert {words[0] for words in readme_commands()} >= {"train.py", "synthesize.py", "evaluate.py"}
