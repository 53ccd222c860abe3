"""Backends that are not ours: lm-eval's models; and lm-eval's harness beside ours."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig

from orca2.evaluation.benchmark import Sample
from orca2.generation import Chat
from orca2.generation.hf_backend import HFSpec
from orca2.modelling.embedded import embedded_tokenizer
from orca2.modelling.export import export_student
from orca2.rendering import ChatFormat, Renderer, prepare_tokenizer
from orca2.settings import build, compose_config

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
GSM8K = SHARED / "benchmarks" / "gsm8k" / "test.jsonl"
QUESTIONS = 12
MOST_TOKENS = 16


def chat_format() -> ChatFormat:
    found: ChatFormat = build(compose_config("evaluate").format)
    return found


@pytest.fixture(scope="module")
def gsm8k() -> list[Sample]:
    if not GSM8K.is_file():
        pytest.skip("no GSM8K file; set ORCA2_SHARED_DATA")
    benchmark = build(compose_config("evaluate", ["benchmark=gsm8k"]).benchmark)
    rows = [row for row in benchmark.samples(GSM8K.parent.parent) if isinstance(row, Sample)]
    return rows[:QUESTIONS]


@pytest.fixture(scope="module")
def student(gsm8k: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that has learnt by heart the right answers to half of the questions, and wrong ones to the others."""
    torch.manual_seed(5)
    tokenizer, form = embedded_tokenizer(600), chat_format()
    prepare_tokenizer(tokenizer, form)
    tokenizer.model_max_length = 512
    renderer = Renderer(tokenizer, form)
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "eos_token_id": renderer.end_id,
        "pad_token_id": renderer.pad_id,
        "bos_token_id": None,
    }
    model: Any = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"](**fields))
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=renderer.end_id, pad_token_id=renderer.pad_id
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    answers = [int(sample.gold[0][0]) + index % 2 for index, sample in enumerate(gsm8k)]
    rows = [renderer.example("", s.turns[0], f"Answer: {n}") for s, n in zip(gsm8k, answers, strict=True)]
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [renderer.pad_id] * (longest - len(row.ids)) for row in rows])
    labels = torch.full_like(ids, -100)
    for row, target in zip(rows, labels, strict=True):
        target[: len(row.ids)] = torch.where(torch.tensor(row.loss_mask), torch.tensor(row.ids), -100)
    for _ in range(120):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.02:
            break
    assert loss < 0.1
    folder = tmp_path_factory.mktemp("students") / "student"
    export_student(model, tokenizer, folder, {"renderer": renderer.identity, "erasing": "empty", "system": ""})
    return folder


def ours(student: Path, samples: list[Sample]) -> tuple[list[str], list[float]]:
    """Texts and correctness by this project's backend, reading and scoring."""
    benchmark = build(compose_config("evaluate", ["benchmark=gsm8k"]).benchmark)
    one = HFSpec(name="hf", device="cpu", dtype="float32", batch_tokens=900, max_len=None)
    chats = [Chat(system="", user=sample.turns[0], max_new_tokens=MOST_TOKENS) for sample in samples]
    with one.open(one.find(str(student)), chat_format(), 0) as backend:
        replies = dict(backend.answer(chats))
    texts = [replies[i].text for i in range(len(samples))]
    return texts, [benchmark.score(benchmark.read(t, s), s)["accuracy"] for t, s in zip(texts, samples, strict=True)]


@pytest.mark.slow
def test_lm_evals_own_harness_gives_the_same_verdicts(student: Path, gsm8k: list[Sample], tmp_path: Path) -> None:
    """Two programs, one student: another prompt, another decoding or another reading would show here."""
    pytest.importorskip("lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    texts, right = ours(student, gsm8k)
    assert 0 < sum(right) < len(right)
    rows = [{"question": sample.turns[0], "answer": sample.gold[0][0]} for sample in gsm8k]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "gsm8k_rows",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["<|im_end|>"], "do_sample": False, "max_gen_toks": MOST_TOKENS},
        "filter_list": [
            {
                "name": "final",
                "filter": [
                    {"function": "regex", "regex_pattern": r"Answer: (-?[\d.,]+)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    lm = HFLM(pretrained=str(student), device="cpu", dtype="float32", batch_size=4)
    found = simple_evaluate(
        model=lm,
        tasks=[task],
        apply_chat_template=True,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"]["gsm8k_rows"], key=lambda sample: sample["doc_id"])
    assert [sample["resps"][0][0] for sample in samples] == texts
    assert [sample["exact_match"] for sample in samples] == right
    assert found["results"]["gsm8k_rows"]["exact_match,final"] == sum(right) / len(right)


@pytest.mark.slow
def test_lm_evals_model_as_a_backend(student: Path, gsm8k: list[Sample]) -> None:
    """The same texts from the same weights, whichever library runs them."""
    pytest.importorskip("lm_eval")
    from orca2.generation.lm_eval_backend import LmEvalSpec

    arguments = {"device": "cpu", "dtype": "float32", "batch_size": 4}
    one = LmEvalSpec(name="lm_eval", model="hf", model_args=arguments, batch_prompts=5)
    chats = [Chat(system="", user=sample.turns[0], max_new_tokens=MOST_TOKENS) for sample in gsm8k]
    with one.open(one.find(str(student)), chat_format(), 0) as backend:
        replies = dict(backend.answer(chats))
        spelled = dict(backend.answer([chats[0], Chat(system="", user="<|im_end|>", max_new_tokens=4)]))
    assert [replies[i].text for i in range(len(gsm8k))] == ours(student, gsm8k)[0]
    assert all(reply.finish_reason == "stop" and reply.prompt_tokens > 50 for reply in replies.values())
    # Sent as text, the spelling of a control token would become the token.
    assert spelled[0].text == replies[0].text and (spelled[1].text, spelled[1].finish_reason) == ("", "refused")
