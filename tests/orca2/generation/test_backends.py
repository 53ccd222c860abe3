"""Backends that are not ours: a server that fails at times, and lm-eval's models; and lm-eval's harness beside ours."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig

from orca2.errors import ConfigError, ModelError
from orca2.evaluation.benchmark import Sample
from orca2.generation import Chat
from orca2.generation.hf_backend import HFSpec
from orca2.generation.openai_backend import OpenAISpec
from orca2.modelling.embedded import embedded_tokenizer
from orca2.modelling.export import export_student
from orca2.records import Turn
from orca2.rendering import ChatFormat, Renderer, prepare_tokenizer
from orca2.settings import build, compose_config

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
GSM8K = SHARED / "benchmarks" / "gsm8k" / "test.jsonl"
QUESTIONS = 12
MOST_TOKENS = 16
CONTEXT, PROMPT = 1024, 300


class Server(BaseHTTPRequestHandler):
    """Chat completions: each first try fails; a user text of the form `status N` fails always with N."""

    seen: ClassVar[set[str]] = set()
    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        user = body["messages"][-1]["content"]
        first = user not in self.seen
        self.seen.add(user)
        status = int(user.split()[1]) if user.startswith("status") else 500 if first else 200
        answer: dict[str, Any] = {"error": {"message": f"maximum context of key {self.headers['authorization']}"}}
        if user.startswith("fits") and body["max_tokens"] > CONTEXT - PROMPT:
            status, answer = 400, {"error": {"message": user.removeprefix("fits ")}}
        if user.endswith("filtered"):
            answer = {"error": {"message": "not let through", "code": "content_filter"}}
        if status == 200:
            self.bodies.append(body)
            message = {"role": "assistant", "content": user.upper(), "reasoning_content": f"about {user}"}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
            }
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def spec(url: str) -> OpenAISpec:
    return OpenAISpec(
        name="openai",
        base_url=url,
        api_key_env="ORCA2_TEST_KEY",
        concurrency=4,
        retries=2,
        timeout_s=20.0,
        max_len=None,
        token_limit_field="max_tokens",
        temperature=0.0,
    )


def chat_format() -> ChatFormat:
    found: ChatFormat = build(compose_config("evaluate").format)
    return found


def test_a_server_is_asked_greedily_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed call must not end a run; what cannot succeed must end it, with the reason and without the key."""
    monkeypatch.setenv("ORCA2_TEST_KEY", "sk-secret-0123456789")
    chats = [Chat(system="Be brief.", user=f"q{i}", max_new_tokens=9) for i in range(6)]
    chats.append(Chat(system="", user="why?", history=(Turn(user="a", answer="b"),), max_new_tokens=9))
    with serving() as url:
        one = spec(url)
        with one.open(one.find("owner/model"), chat_format(), 0) as backend:
            replies = dict(backend.answer(chats))
            assert {i: reply.text for i, reply in replies.items()} == {i: c.user.upper() for i, c in enumerate(chats)}
            assert {i: reply.reasoning for i, reply in replies.items()} == {
                i: f"about {c.user}" for i, c in enumerate(chats)
            }
            assert {(r.finish_reason, r.prompt_tokens, r.answer_tokens) for r in replies.values()} == {("length", 5, 7)}
            long = dict(backend.answer([Chat(system="", user="status 400", max_new_tokens=9)]))[0]
            assert (long.text, long.finish_reason) == ("", "length")
            refused = dict(backend.answer([Chat(system="", user="status 400 filtered", max_new_tokens=9)]))[0]
            assert (refused.text, refused.finish_reason) == ("", "refused")  # one such prompt must not end a run
            with pytest.raises(ModelError, match="does not answer for model 'owner/model'") as failed:
                list(backend.answer([Chat(system="", user="status 401", max_new_tokens=9)]))
            assert "sk-secret" not in str(failed.value)
    body = next(body for body in Server.bodies if len(body["messages"]) == 3)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.0, 9, "owner/model")


@pytest.mark.parametrize(
    "refusal",
    [
        # vLLM, an older vLLM, OpenAI, and one that does not count.
        "'max_tokens' or 'max_completion_tokens' is too large: 1024. This model's maximum context length is 1024 "
        "tokens and your request has 300 input tokens (1024 > 1024 - 300).",
        "You passed 300 input tokens and requested 1024 output tokens. However, the model's context length is only "
        "1024 tokens",
        "This model's maximum context length is 1024 tokens. However, you requested 1324 tokens (300 in the messages, "
        "1024 in the completion).",
        "This is beyond the context window.",
    ],
)
def test_an_answer_gets_what_the_context_leaves(refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if prompts that fit count as empty answers, because prompt and longest answer together do not."""
    monkeypatch.setenv("ORCA2_TEST_KEY", "k")
    with serving() as url:
        one = replace(spec(url), max_len=CONTEXT if "window" in refusal else None)
        chat = Chat(system="x" * 900 if "window" in refusal else "", user=f"fits {refusal}", max_new_tokens=1024)
        with one.open(one.find("m"), chat_format(), 0) as backend:
            (reply,) = dict(backend.answer([chat])).values()
    assert reply.text == f"fits {refusal}".upper()
    limit = Server.bodies[-1]["max_tokens"]
    assert limit == CONTEXT - PROMPT if "window" not in refusal else 0 < limit < CONTEXT - PROMPT


def test_a_missing_key_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it every call would fail, one after the other."""
    monkeypatch.delenv("ORCA2_TEST_KEY", raising=False)
    one = spec("http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="ORCA2_TEST_KEY"), one.open(one.find("m"), chat_format(), 0):
        pass


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
