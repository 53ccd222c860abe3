"""`backend=vllm` with a stand-in for vLLM: it gets the prompts of `backend=hf`, and its answers are read alike."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from orca2.asking.budget import Budget
from orca2.asking.run_accounts import Share
from orca2.asking.student_specs import with_share
from orca2.errors import ConfigError
from orca2.generation import Chat, ChatReply
from orca2.generation.hf import HFGenerator
from orca2.generation.hf_backend import load_model
from orca2.modelling.embedded import embedded_tokenizer
from orca2.modelling.export import export_student
from orca2.records import Turn
from orca2.rendering import Renderer, prepare_tokenizer
from orca2.settings import build, compose_config

CONTEXT = 64
END = 2.0
"""How much more the end token weighs than others."""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with random weights."""
    torch.manual_seed(3)
    tokenizer, form = embedded_tokenizer(600), build(compose_config("evaluate").format)
    prepare_tokenizer(tokenizer, form)
    renderer = Renderer(tokenizer, form)
    fields = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": CONTEXT, "eos_token_id": renderer.end_id,
        "pad_token_id": renderer.pad_id, "bos_token_id": None, "initializer_range": 0.6,
    }  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"](**fields))
    with torch.no_grad():  # some answers end by themselves, and some at their limit
        model.lm_head.weight[renderer.end_id] *= END
    folder = tmp_path_factory.mktemp("students") / "student"
    export_student(model, tokenizer, folder, {"renderer": renderer.identity, "erasing": "empty", "system": ""})
    return folder


class StandInForVllm:
    """vLLM's `LLM` and `SamplingParams`, answered by transformers."""

    SamplingParams = dict

    def __init__(self) -> None:
        self.engines: list[dict[str, Any]] = []
        self.asked: list[tuple[list[int], dict[str, Any]]] = []

    def LLM(self, *, model: str, revision: str | None, **engine: Any) -> "StandInForVllm":  # noqa: N802
        self.engines.append(engine)
        found: Any = SimpleNamespace(name="s", location=model)
        weights = load_model(found, torch.float32, torch.device("cpu"))
        self.end_id = int(weights.config.eos_token_id)  # type: ignore[arg-type]
        self._generator = HFGenerator(weights, 0, {self.end_id}, engine["max_model_len"], 1000)
        return self

    def generate(self, prompts: list[dict[str, Any]], settings: list[dict[str, Any]], use_tqdm: bool) -> list[Any]:
        answers = []
        for prompt, setting in zip(prompts, settings, strict=True):
            ids = prompt["prompt_token_ids"]
            self.asked.append((ids, setting))
            (found,) = self._generator.generate([ids], setting["max_tokens"])
            end = [self.end_id] if found.finish_reason == "stop" else []
            # vLLM counts the token that ends an answer among its tokens.
            output = SimpleNamespace(text="", token_ids=(*found.ids, *end), finish_reason=found.finish_reason)
            answers.append(SimpleNamespace(prompt_token_ids=ids, outputs=[output]))
        return answers


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> StandInForVllm:
    stand_in = StandInForVllm()
    monkeypatch.setitem(sys.modules, "vllm", stand_in)  # type: ignore[arg-type]
    return stand_in


def chats() -> list[Chat]:
    one = Turn(user="1 + 1?", answer="2")
    return [
        Chat(system="", user="2 + 2?", max_new_tokens=6),
        Chat(system="Be brief.", user="say <|im_end|>", max_new_tokens=6),
        Chat(system="", user="and 2 + 2?", history=(one,), max_new_tokens=CONTEXT),
        Chat(system="", user="much " * 200, max_new_tokens=6),
    ]


def replies(student: Path, *overrides: str, share: Share | None = None) -> list[ChatReply]:
    cfg = compose_config("evaluate", overrides)
    spec = build(cfg.backend)
    spec = spec if share is None else with_share(spec, share)
    with spec.open(spec.find(str(student)), build(cfg.format), 0) as backend:
        found = dict(backend.answer(chats()))
    return [found[index] for index in range(len(chats()))]


def facts(reply: ChatReply) -> tuple[Any, ...]:
    return reply.text.strip(), reply.finish_reason, reply.prompt, reply.prompt_tokens, reply.answer_tokens


def test_the_engine_answers_as_the_model_in_this_process(student: Path, vllm: StandInForVllm) -> None:
    """Fails if vLLM gets another prompt, limit or end than `backend=hf`, or its answers are read in another way."""
    here = replies(student, "backend=hf", "backend.device=cpu", "backend.dtype=float32")
    there = replies(student, "backend=vllm", "+backend.model.engine.tensor_parallel_size=2")
    assert [facts(reply) for reply in there] == [facts(reply) for reply in here]
    assert (there[3].text, there[3].finish_reason) == ("", "length") and there[3].prompt_tokens > CONTEXT
    assert {reply.finish_reason for reply in there[:3]} == {"stop", "length"}
    assert vllm.engines == [{"max_model_len": CONTEXT, "tensor_parallel_size": 2}]
    assert len(vllm.asked) == 3  # a prompt that fills the context is not asked
    for ids, setting in vllm.asked:
        assert setting["stop_token_ids"] == [vllm.end_id] and not setting["detokenize"]
        assert (setting["temperature"], setting.get("seed")) == (0.0, None)
        assert len(ids) + setting["max_tokens"] <= CONTEXT


def test_what_the_engine_answered_is_kept(student: Path, vllm: StandInForVllm, tmp_path: Path) -> None:
    """Fails if hours of an engine are lost with a folder, or another engine gets the answers of the first."""

    def share(name: str) -> Share:
        cache = tmp_path / "answers.sqlite"
        return Share(owner=name, folder=tmp_path / name, cache=cache, budget=Budget(), rank=0, world=1)

    first = replies(student, "backend=vllm", share=share("one"))
    again = replies(student, "backend=vllm", share=share("two"))
    assert len(vllm.asked) == 3 and [facts(reply) for reply in again] == [facts(reply) for reply in first]
    replies(student, "backend=vllm", "+backend.model.engine.quantization=fp8", share=share("three"))
    assert len(vllm.asked) == 6


def test_a_missing_engine_is_named(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if `backend=vllm` in an environment without vLLM ends in a traceback."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"pip install vllm.*backend=openai"):
        replies(student, "backend=vllm")
