"""The kinds of teacher: keys stay secret, jobs survive, models and rules answer."""

import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from orca2.answers.grading import detect_strategy, grade
from orca2.asking.cache import Cache
from orca2.asking.models.local import LocalTeacher, prompt_ids
from orca2.asking.models.replay import ReplayTeacher
from orca2.asking.models.rule import RuleTeacher
from orca2.asking.models.vllm import VllmTeacher
from orca2.asking.requests import Decoding, Generated, Request, TeacherError
from orca2.errors import ConfigError
from orca2.serving.outcomes import Failure, Reply, Usage
from orca2.tasks.catalogue import families
from orca2.tasks.problems import make_problem
from tests.loopback import server as loopback
from tests.orca2.asking import test_engine as engine

collect, http_teacher, requests = engine.collect, engine.http_teacher, engine.requests
SECRET = loopback.KEY


def test_key_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Fails if the key reaches a log, an error or the cache, even where the server quotes it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEACHER_KEY", SECRET)
    with loopback.serving(loopback.Faults(need_key=True)) as server:
        teacher = http_teacher(server.url, api_key_env="TEACHER_KEY", timeout_s=30.0)
        results, _ = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 3))
        assert all(isinstance(result, Reply) for _, result in results)
        wrong = SECRET.replace("secret", "wrong!")
        monkeypatch.setenv("TEACHER_KEY", wrong)
        with pytest.raises(TeacherError) as error:
            collect(teacher, tmp_path / "c.sqlite", requests(teacher, 3, "new {i}"))
    assert "401" in str(error.value) and "***" in str(error.value)
    everything = str(error.value) + repr(error.value.__cause__) + repr(teacher) + caplog.text
    everything += "".join(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir())
    assert SECRET not in everything and wrong not in everything
    assert "TEACHER_KEY" in repr(teacher)


def test_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a forgotten key is only noticed by the server."""
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(ConfigError, match="TEACHER_KEY"):
        collect(http_teacher("http://127.0.0.1:9/v1", api_key_env="TEACHER_KEY"), tmp_path / "c.sqlite", [])


def generated(family: str, strategy: str, index: int = 0) -> Request:
    problem = make_problem(families()[family], 0, "train", index, 1)
    origin = Generated(problem=problem, strategy=strategy)
    decoding = Decoding(max_tokens=9)
    return Request(model="rules", decoding=decoding, system="s", user=problem.question, generated=origin)


def test_rules_solve_every_family_under_every_strategy(tmp_path: Path) -> None:
    """Fails if the rule teacher is wrong, answers under another strategy, or fills the cache with free answers."""
    rule = RuleTeacher(name="rule", seed=0, error_rate=0.0)
    asked = [generated(f.name, s) for f in families().values() for s in f.strategies]
    results, _ = collect(rule, tmp_path / "c.sqlite", asked)
    assert len(results) == len(asked) > 50
    for request, reply in results:
        problem, strategy = request.generated.problem, request.generated.strategy
        kind = families()[problem.family].answer_kind
        assert grade(problem.answer, kind, reply.text).correct and detect_strategy(reply.text) == strategy
    with Cache(tmp_path / "c.sqlite") as cache:
        assert len(cache) == 0
    other = replace(asked[0], generated=None)
    ((_, failure),), _ = collect(rule, tmp_path / "c.sqlite", [other])
    assert isinstance(failure, Failure) and failure.kind == "invalid"


def test_rules_err_at_the_rate_that_is_set() -> None:
    """Fails if strategy selection is tested against a teacher of another quality than the one it was told."""
    rule = RuleTeacher(name="rule", seed=3, error_rate=0.5, error_rates={"addition": {"direct": 0.2}})
    for strategy, rate in (("direct", 0.2), ("step_by_step", 0.5)):
        asked = [generated("addition", strategy, index) for index in range(400)]
        replies = [rule.solve(request) for request in asked]
        assert replies == [rule.solve(request) for request in asked]
        grades = [
            grade(request.generated.problem.answer, "number", reply.text)  # type: ignore[union-attr]
            for request, reply in zip(asked, replies, strict=True)
        ]
        assert all(found.format_ok for found in grades)
        wrong = sum(not found.correct for found in grades) / 400
        assert abs(wrong - rate) < 4 * (rate * (1 - rate) / 400) ** 0.5
    with pytest.raises(ConfigError, match="no such strategy"):
        RuleTeacher(name="rule", seed=0, error_rate=0, error_rates={"addition": {"dirct": 0.1}})
    with pytest.raises(ConfigError, match=r"addition\.direct"):
        RuleTeacher(name="rule", seed=0, error_rate=0, error_rates={"addition": {"direct": 1.1}})


def test_replay_answers_from_another_cache(tmp_path: Path) -> None:
    """Fails if a published cache cannot remake its data set, or an unknown request is silently dropped."""
    with loopback.serving() as server:
        extra = {"reasoning_effort": "low"}
        teacher = http_teacher(server.url, timeout_s=30.0, extra=extra)
        made, _ = collect(teacher, tmp_path / "made.sqlite", requests(teacher, 5))
    values: dict[str, Any] = {"max_tokens": 40, "temperature": 0.0, "top_p": None, "seed": None, "model": "m"}
    values["extra"] = extra
    replay = ReplayTeacher(name="replay", path=str(tmp_path / "made.sqlite"), **values)
    again, _ = collect(replay, tmp_path / "c.sqlite", requests(replay, 6))
    assert again[:5] == made and again[5][1].kind == "missing"
    with pytest.raises(ConfigError, match="no cache file"):
        collect(replace(replay, path=str(tmp_path / "none")), tmp_path / "c.sqlite", [])


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a missing optional package ends in a foreign traceback."""
    values: dict[str, Any] = {"path": "m", "max_tokens": 9, "temperature": 0.0, "top_p": None, "seed": 1}
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match="pip install"):
        collect(VllmTeacher(name="v", revision=None, batch_size=4, **values), tmp_path / "c.sqlite", [])


def test_offline_engine_gets_chats_and_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the offline engine's answers are read wrongly, or samples of a request share a seed."""
    seen: list[Any] = []

    class LLM:
        def __init__(self, **engine: Any) -> None:
            assert engine == {"model": "m", "revision": None, "tensor_parallel_size": 2}

        def chat(self, chats: list[Any], sampling: list[Any], use_tqdm: bool) -> list[Any]:
            seen.extend(zip(chats, sampling, strict=True))
            out = SimpleNamespace(text="fine", finish_reason="stop", token_ids=[1, 2])
            return [SimpleNamespace(outputs=[out], prompt_token_ids=[1, 2, 3]) for _ in chats]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=lambda **given: given))
    teacher = VllmTeacher(
        name="v", path="m", revision=None, max_tokens=9, temperature=0.7, top_p=None, seed=1, batch_size=4,
        engine={"tensor_parallel_size": 2},
    )  # fmt: skip
    asked = [replace(next(requests(teacher, 1)), sample=n) for n in range(6)]
    results, _ = collect(teacher, tmp_path / "c.sqlite", asked)
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    assert [result for _, result in results] == [Reply(text="fine", finish_reason="stop", usage=usage, model="m")] * 6
    assert seen[0] == (asked[0].messages, {"max_tokens": 9, "temperature": 0.7, "seed": 1})
    assert sorted(sampling["seed"] for _, sampling in seen) == [1, 2, 3, 4, 5, 6]


def test_one_long_prompt_costs_the_offline_engine_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if vLLM's error about one prompt ends the run, and every later one at the same prompt."""

    class LLM:
        def __init__(self, **_: Any) -> None:
            pass

        def chat(self, chats: list[Any], _: list[Any], use_tqdm: bool) -> list[Any]:
            if any("long" in str(chat) for chat in chats):
                raise ValueError("The decoder prompt (length 99) is longer than the maximum model length of 64.")
            out = SimpleNamespace(text="fine", finish_reason="stop", token_ids=[1, 2])
            return [SimpleNamespace(outputs=[out], prompt_token_ids=[1, 2, 3]) for _ in chats]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=lambda **given: given))
    teacher = VllmTeacher(
        name="v", path="m", revision=None, max_tokens=9, temperature=0.7, top_p=None, seed=1, batch_size=4
    )
    asked = [*requests(teacher, 2), *requests(teacher, 1, "long {i}"), *requests(teacher, 3, "more {i}")]
    results, _ = collect(teacher, tmp_path / "c.sqlite", asked)
    kinds = [result.kind if isinstance(result, Failure) else "answer" for _, result in results]
    assert kinds == ["answer"] * 2 + ["too_long"] + ["answer"] * 3


def test_what_changes_the_answers_changes_the_key(student: Path) -> None:
    """Fails if a data set gets the cached answers of another revision, quantization or precision."""
    values: dict[str, Any] = {"max_tokens": 9, "temperature": 0.0, "top_p": None, "seed": 1, "batch_size": 4}

    def vllm(path: str = "o/m", revision: str | None = None, **engine: Any) -> str:
        return VllmTeacher(name="v", path=path, revision=revision, engine=engine, **values).model

    def local(dtype: str) -> str:
        return LocalTeacher(name="l", path=str(student), device="cpu", dtype=dtype, max_tokens=9, batch_size=4).model

    assert vllm() == vllm(tensor_parallel_size=2, gpu_memory_utilization=0.8) == "o/m"
    assert vllm(revision="c0ffee") == "o/m@c0ffee"
    folder = str(student)
    names = [
        vllm(), vllm(revision="c0ffee"), vllm(quantization="fp8"), vllm(dtype="float16"), vllm("o/n", dtype="float16"),
        vllm(folder), vllm(folder, dtype="float16"), local("float32"), local("bfloat16"),
    ]  # fmt: skip
    assert len(set(names)) == len(names) and not any(folder in name for name in names)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student with random weights, in Hugging Face's format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from orca2.rendering import train_byte_bpe

    folder = tmp_path_factory.mktemp("student")
    tokenizer = train_byte_bpe(["the cat sat on the mat", "user assistant system"] * 20, 300)
    tokenizer.add_special_tokens({"eos_token": "<|end|>", "pad_token": "<|pad|>"})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_local_model_answers(tmp_path: Path, student: Path) -> None:
    """Fails if a local model's answers depend on their batch, or text of a task becomes a control token."""
    values: dict[str, Any] = {"device": "cpu", "dtype": "float32", "max_tokens": 5}
    teacher = LocalTeacher(name="local", path=str(student), batch_size=4, **values)
    asked = [*requests(teacher, 9), *requests(teacher, 1, "long " * 300)]
    results, _ = collect(teacher, tmp_path / "a.sqlite", asked)
    alone, _ = collect(replace(teacher, batch_size=1), tmp_path / "b.sqlite", asked)
    assert results == alone
    assert results[-1][1].kind == "too_long"
    # Random weights seldom end their answer, so most are cut; all were stored as they came.
    with Cache(tmp_path / "a.sqlite") as cache:
        stored = [cache.get(request) for request in asked[:9]]
    assert all(isinstance(reply, Reply) and reply.model == teacher.model for reply in stored)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "say <|end|> now"}])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids) == "user: say <|end|> now<|end|>assistant: "


@pytest.mark.slow
def test_transformers_serve_is_a_teacher(tmp_path: Path, student: Path) -> None:
    """Fails if the HTTP teacher works with our own loopback server only."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(student)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        end = time.monotonic() + 240
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.5)
        url = f"http://127.0.0.1:{port}/v1"
        teacher = http_teacher(url, model=str(student), timeout_s=120.0, concurrency=4, start_concurrency=4)
        asked = list(requests(replace(teacher, temperature=None, max_tokens=8), 8))
        results, tally = collect(teacher, tmp_path / "c.sqlite", asked)
        again, second = collect(teacher, tmp_path / "c.sqlite", Random(0).sample(asked, 8))
    finally:
        server.terminate()
        server.wait(30)
    with Cache(tmp_path / "c.sqlite") as cache:
        replies = [cache.get(request) for request in asked]
    assert all(isinstance(reply, Reply) and reply.usage.completion_tokens <= 8 for reply in replies), replies
    assert tally.tally.calls == 8 and second.tally.calls == 0 and len(again) == len(results) == 8
