"""Models that nobody here made, from their folder to a student that others load, ask and stop.

smollm2 has real weights. The others have a family's real tokenizer and real number of embedding rows beside small
random layers: what goes wrong with a real model mostly goes wrong there.
"""

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from orca2.evaluation.evaluation_job import EvaluationJob, run_evaluation
from orca2.records import Turn
from orca2.rendering.renderer import Renderer
from orca2.settings import build, build_all, compose_config, storable
from tests.commands import ROOT
from tests.real.conftest import Runs
from tests.real.make_real_models import MODELS
from tests.real.runs import ANSWER, losses, run_job

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

every_model = pytest.mark.parametrize("model", MODELS)
TINY = MODELS[1:]
TEXTS = (
    "What is 12 + 30?",
    "  Two blanks before, a line break after.\n",
    "naïve café, 日本語, 🙂🏽, \u200b\u202e, ١٢٣",
    "def f(x):\n    return x ** 2  # 1,234.5\n\n\n",
    "<|im_start|>user and <|im_end|>, <s>, </s>, [INST], <|eot_id|>, <end_of_turn>, <｜User｜>, <think>",
)
"""What people write; the last one spells the control tokens of all families."""


def student_of(run: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The exported student, as any program loads it."""
    folder = run / "student"
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def said_by_transformers(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], most: int
) -> str:
    """The greedy answer of transformers' own loop to a prompt."""
    after = student.generate(torch.tensor([ids]), max_new_tokens=most)[0, len(ids) :]
    return str(tokenizer.decode(after, skip_special_tokens=True))


def renderer_of(tokenizer: PreTrainedTokenizerBase) -> Renderer:
    return Renderer(tokenizer, build(compose_config("train").format))


def chosen(model: str, runs: Runs) -> None:
    if model not in runs.models:
        pytest.skip("ORCA2_REAL_ONLY leaves it out")


@every_model
def test_a_real_model_trains_on_one_device(model: str, runs: Runs) -> None:
    """Fails if a model that people bring cannot be trained by the first command of the README."""
    chosen(model, runs)
    run = runs.one[model]
    assert (run / "DONE").exists()
    results = json.loads((run / "results.json").read_text())
    assert (results["data/broken"], results["data/too_long"]) == (0, 0)
    curve = losses(run)
    assert len(curve) >= 2 and curve[-1] < curve[0]


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
@every_model
def test_two_processes_train_the_same_student(model: str, trainer: str, runs: Runs) -> None:
    """Fails if a vocabulary that grows, padded rows or a tied table is another model when it is copied or cut."""
    chosen(model, runs)
    one, two = runs.one[model], runs.in_two_processes[trainer][model]
    assert (two / "DONE").exists()
    expected, found = losses(one), losses(two)
    assert len(found) == len(expected)
    # The order of sums differs; Adam makes whole steps of it where a gradient is near 0, hence the first steps only.
    assert found[:2] == pytest.approx(expected[:2], rel=1e-5)
    whole, again = (load_file(run / "student" / "model.safetensors") for run in (one, two))
    assert {name: (t.shape, t.dtype) for name, t in whole.items()} == {n: (t.shape, t.dtype) for n, t in again.items()}
    assert (one / "student" / "config.json").read_text() == (two / "student" / "config.json").read_text()
    assert (one / "student" / "tokenizer.json").read_bytes() == (two / "student" / "tokenizer.json").read_bytes()


@every_model
def test_adapters_are_merged_into_a_plain_model(model: str, runs: Runs, real_model: Callable[[str], Path]) -> None:
    """Fails if LoRA on a real model exports what others cannot load, or trains nothing."""
    chosen(model, runs)
    run = runs.lora[model]
    curve = losses(run)
    assert curve[-1] < curve[0]
    weights = load_file(run / "student" / "model.safetensors")
    assert not [name for name in weights if "lora" in name]
    before = load_file(real_model(model) / "model.safetensors")
    assert weights.keys() == before.keys()
    changed = [name for name, weight in before.items() if not torch.equal(weights[name][: len(weight)], weight)]
    assert [name for name in changed if "q_proj" in name] and not [name for name in changed if "norm" in name]


@every_model
def test_the_export_fits_together(model: str, runs: Runs, real_model: Callable[[str], Path]) -> None:
    """Fails if tokenizer, config, generation settings and rows of the exported student do not say the same."""
    chosen(model, runs)
    student, tokenizer = student_of(runs.one[model])
    before = AutoModelForCausalLM.from_pretrained(real_model(model))
    rows = student.get_input_embeddings().weight.shape[0]
    assert rows == student.config.vocab_size == max(len(tokenizer), before.config.vocab_size)
    assert student.get_output_embeddings().weight.shape[0] == rows
    assert student.config.tie_word_embeddings == before.config.tie_word_embeddings
    end, pad = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.pad_token_id
    assert pad is not None and pad != end and tokenizer.eos_token_id == end
    for config in (student.config, student.generation_config):
        assert (config.eos_token_id, config.pad_token_id) == (end, pad)
    assert not student.generation_config.do_sample
    assert torch.isfinite(student(torch.arange(rows - 8, rows)[None]).logits).all()


@every_model
def test_ids_are_those_of_the_exported_chat_template(model: str, runs: Runs) -> None:
    """Fails if other programs ask with other ids than the student was trained on, or a text becomes control tokens."""
    chosen(model, runs)
    tokenizer = AutoTokenizer.from_pretrained(runs.one[model] / "student")
    renderer = renderer_of(tokenizer)
    prompt = json.loads((runs.one[model] / "student" / "prompt.json").read_text())
    assert renderer.identity == prompt["renderer"]

    def theirs(*messages: tuple[str, str]) -> Any:
        chat = [{"role": role, "content": text} for role, text in messages]
        return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)

    *texts, hostile = TEXTS
    for text in texts:
        assert theirs(("user", text)) == renderer.prompt(prompt["system"], text)
        # Where an answer begins with blanks, a template's one text may merge them with the line break before it; the
        # renderer keeps the prompt a prefix of the example instead.
        turns = [Turn(user="Why?", answer=text.lstrip()), Turn(user=text, answer="So.")]
        chat = [
            ("system", text),
            *((r, t) for turn in turns for r, t in (("user", turn.user), ("assistant", turn.answer))),
        ]
        assert theirs(*chat, ("user", text)) == renderer.prompt(text, text, turns)
        tokens = renderer.example(prompt["system"], "Why?", text)
        labels = [id for id, bears_loss in zip(tokens.ids, tokens.loss_mask, strict=True) if bears_loss]
        assert labels[-1] == renderer.end_id and renderer.decode(labels) == text
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    ids = renderer.prompt("", hostile)
    assert ids.count(start) == 3 and ids.count(renderer.end_id) == 2 and renderer.pad_id not in ids
    added = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert added & set(ids) == {start, renderer.end_id} | ({tokenizer.bos_token_id} & set(ids[:1]))


@every_model
def test_generate_of_transformers_stops_at_the_end_of_the_turn(model: str, runs: Runs) -> None:
    """Fails if a student answers on and on in every program but this one."""
    chosen(model, runs)
    student, tokenizer = student_of(runs.one[model])
    chat = [{"role": "user", "content": "Does 3 + 3 make 6?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = student.generate(**inputs, max_new_tokens=200)[0, inputs["input_ids"].shape[1] :].tolist()
    assert len(ids) < 200 and ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    if model in TINY:  # which have learnt it by heart
        assert tokenizer.decode(ids, skip_special_tokens=True) == ANSWER


@every_model
def test_a_killed_run_goes_on_as_if_nothing_had_happened(model: str, runs: Runs) -> None:
    """Fails if kill -9 costs more than the steps since the last checkpoint, or changes one bit of what follows."""
    chosen(model, runs)
    whole, killed = losses(runs.one[model]), runs.killed[model]
    assert not (killed / "DONE").exists(), "the run was over before it was killed"
    assert 0 < len(losses(killed)) < len(whole)
    run_job(runs.overrides(model, "killed", "trainer=cpu"))
    assert losses(killed) == whole
    one, again = (load_file(run / "student" / "model.safetensors") for run in (runs.one[model], killed))
    assert all(torch.equal(again[name], weight) for name, weight in one.items())


@every_model
def test_chat_answers(model: str, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Fails if `chat.py` cannot open a student of a real model, or says something else than transformers would."""
    chosen(model, runs)
    spec = importlib.util.spec_from_file_location("chat_command", ROOT / "chat.py")
    assert spec is not None and spec.loader is not None
    chat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chat)
    monkeypatch.setattr("sys.stdin", io.StringIO("Does 3 + 3 make 6?\nDoes 4 + 4 make 8?\n"))
    chat.main(compose_config("chat", [f"student={runs.one[model]}", "max_new_tokens=20"]))
    told = capsys.readouterr().out
    assert "under the message 'cautious'" in told
    student, tokenizer = student_of(runs.one[model])
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Does 3 + 3 make 6?"}], add_generation_prompt=True, return_dict=False
    )
    assert told.partition("the end.\n")[2].startswith(said_by_transformers(student, tokenizer, ids, 20))
    if model == "tiny_llama2":  # which has learnt it by heart, whatever came before
        assert told.splitlines()[-2:] == [ANSWER, ANSWER]


@every_model
def test_evaluate_measures(model: str, runs: Runs) -> None:
    """Fails if `evaluate.py` cannot ask a student of a real model in batches, or hears something else."""
    chosen(model, runs)
    out = runs.folder / f"{model}-evaluated"
    config = compose_config("evaluate", [f"student={runs.one[model]}", "limit=4", "messages=own", f"out_dir={out}"])
    job = EvaluationJob(**build_all(config, leave_out=("out_dir",)))
    results = run_evaluation(job, out, storable(config), [], [], {}, Console(quiet=True))
    assert results is not None and results["procedural/cautious/n"] == 4
    records = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    student, tokenizer = student_of(runs.one[model])
    for turn in (turn for record in records for turn in record["turns"]):
        ids = tokenizer(turn["prompt"], add_special_tokens=False)["input_ids"]
        expected = said_by_transformers(student, tokenizer, ids, 20)
        assert turn["output"].startswith(expected.rstrip())
