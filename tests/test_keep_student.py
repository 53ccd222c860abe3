"""The ablation without erasing, end to end: a student of `erasing=keep` is trained, exported, asked and evaluated."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from orca2.settings import build, compose_config
from orca2.strategies import Strategy
from tests.commands import ENVIRONMENT, ROOT, SMALL_STUDENT

SMALL = (
    *SMALL_STUDENT, "source.size=200", "source.families={addition:1,counting:1}", "held_out.questions_per_task=1",
    "held_out.max_new_tokens=8", 'logger.mode="off"',
)  # fmt: skip
QUESTIONS = 4


def run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, input="Hi\n", timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a student that saw the teacher's instructions."""
    folder = tmp_path_factory.mktemp("keep")
    run("train.py", "erasing=keep", "strategy=step_by_step", "run_dir=kept", *SMALL, cwd=folder)
    return folder / "kept"


@pytest.mark.slow
def test_its_export_is_asked_under_the_generic_message(kept: Path) -> None:
    """Without a default, the message would depend on the person who asks, and figures of two people would differ."""
    info = json.loads((kept / "student" / "prompt.json").read_text())
    generic = build(compose_config("train").erasing).inference
    assert (info["erasing"], info["system"]) == ("keep", generic)
    tokenizer = AutoTokenizer.from_pretrained(kept / "student")
    model = AutoModelForCausalLM.from_pretrained(kept / "student")
    question = [{"role": "user", "content": "What is 12 + 30?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert generic in asked
    strategy = build(compose_config("train", ["strategy=step_by_step"]).strategy)
    assert isinstance(strategy, Strategy)
    taught = [{"role": "system", "content": strategy.instruction}, *question]
    assert strategy.instruction in tokenizer.apply_chat_template(taught, tokenize=False)
    ids = tokenizer(asked, return_tensors="pt", add_special_tokens=False).input_ids
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] > ids.shape[1]
    assert "`erasing=keep`" in (kept / "student" / "README.md").read_text()


@pytest.mark.slow
def test_it_is_evaluated_under_its_own_name(kept: Path) -> None:
    """`messages=own` must neither fail nor call the generic message what it was trained under."""
    asked = (f"student={kept}", "benchmark=procedural", f"limit={QUESTIONS}", "benchmark.max_new_tokens=8")
    run("evaluate.py", *asked, "out_dir=own", "messages=own", cwd=kept.parent)
    run("evaluate.py", *asked, "out_dir=paper", cwd=kept.parent)
    own, paper = (json.loads((kept.parent / name / "results.json").read_text()) for name in ("own", "paper"))
    assert own["procedural/keep/n"] == QUESTIONS and "procedural/cautious/n" not in own
    # The paper's two messages hold the text already, so it is not asked a third time.
    assert paper["procedural/cautious/n"] == paper["procedural/empty/n"] == QUESTIONS
    assert not [key for key in paper if "/keep/" in key]
    prompts = [
        {turn["prompt"] for turn in record["turns"]}
        for name, message in (("own", "keep"), ("paper", "cautious"))
        for line in (kept.parent / name / "samples.jsonl").read_text().splitlines()
        if (record := json.loads(line))["message"] == message
    ]
    assert len(prompts) == 2 * QUESTIONS and prompts[:QUESTIONS] == prompts[QUESTIONS:]


@pytest.mark.slow
def test_it_can_be_talked_to(kept: Path) -> None:
    """`chat.py` is where people try an ablation out."""
    assert run("chat.py", f"student={kept}", "max_new_tokens=4", cwd=kept.parent).strip()
