"""vLLM's offline engine in this process. vLLM pins its own torch, so it lives in an environment of its own.

Prefer `vllm serve` with the HTTP teacher where several processes share one model.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from orca2.asking.budget import FREE, Price
from orca2.asking.cache import Cache
from orca2.asking.models.gathering import Gathering, in_thread
from orca2.asking.models.local import fingerprint
from orca2.asking.requests import Answer, Decoding, Request
from orca2.errors import ConfigError
from orca2.generation.tokens import PromptRenderer
from orca2.reasoning import opening_at_end
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Failure, Reply, Usage

ROOM = frozenset({"gpu_memory_utilization", "swap_space", "cpu_offload_gb", "max_num_seqs", "max_num_batched_tokens"})
"""Engine arguments that say how much fits, besides those with `parallel` in their name."""
LINGER = 0.2
"""Seconds without a new request after which a batch that is not full is answered."""


@dataclass(frozen=True, kw_only=True)
class VllmTeacher:
    """`vllm.LLM(model).chat(...)` over batches of requests.

    Raises:
        ConfigError: `open` raises it where vLLM is not installed.
    """

    name: str
    path: str
    """A folder, or a name on the hub."""
    revision: str | None
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    batch_size: int
    """Requests per call of the engine; what a crash can lose."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `vllm.LLM`, such as `tensor_parallel_size`."""
    renderer: PromptRenderer | None = field(default=None, init=False)
    """Asks a student as it was trained; None: by the model's own chat template, as teachers are."""
    model: str = field(init=False)
    """Name of the model, with revision and engine's arguments if they may change the answers."""
    price: Price = field(default=FREE, init=False)
    cached: bool = field(default=True, init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        if "trust_remote_code" in self.engine:
            raise ConfigError("engine.trust_remote_code would run the model repository's own code; remove it")
        decoding = Decoding(max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed)
        object.__setattr__(self, "model", engine_model(self.path, self.revision, self.engine))
        object.__setattr__(self, "decoding", decoding)
        object.__setattr__(self, "limits", Limits(concurrency=2 * self.batch_size))

    def of_student(self, path: str, renderer: PromptRenderer, context: int) -> "VllmTeacher":
        """The same engine with a student, which is asked in so many tokens as it was trained to be."""
        student = replace(self, path=path, engine={**self.engine, "max_model_len": context})
        prompts = json.dumps(dict(renderer.identity), sort_keys=True)
        object.__setattr__(student, "renderer", renderer)
        object.__setattr__(student, "model", f"{student.model}+{hashlib.sha256(prompts.encode()).hexdigest()[:12]}")
        return student

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        try:
            vllm = import_module("vllm")
        except ImportError as error:
            raise ConfigError(
                f"teacher={self.name} needs vLLM in this environment: pip install vllm (in an environment of "
                "its own, it pins torch); or run `vllm serve` there and ask that: teacher=vllm_server, backend=openai"
            ) from error
        llm = vllm.LLM(model=self.path, revision=self.revision, **self.engine)

        def answer_all(requests: Sequence[Request]) -> list[Reply | Failure]:
            settings = [vllm.SamplingParams(**self._ends(), **sampling(request)) for request in requests]
            try:
                if self.renderer is None:
                    answers = llm.chat([request.messages for request in requests], settings, use_tqdm=False)
                else:
                    prompts = [self.renderer.prompt(one.system, one.user, one.history) for one in requests]
                    ids = [{"prompt_token_ids": prompt} for prompt in prompts]
                    answers = llm.generate(ids, settings, use_tqdm=False)
            except ValueError as error:  # one prompt fails all, and is not named
                if len(requests) > 1:
                    return [answer_all([request])[0] for request in requests]
                return [refused(error)]
            return [self._read(answer) for answer in answers]

        gathering = Gathering(in_thread(answer_all), self.batch_size, LINGER)
        try:
            yield gathering.answer
        finally:
            await gathering.close()

    def _ends(self) -> dict[str, Any]:
        return {} if self.renderer is None else {"stop_token_ids": [self.renderer.end_id], "detokenize": False}

    def _read(self, answer: Any) -> Reply:
        best, prompt = answer.outputs[0], list(answer.prompt_token_ids)
        text, ids, reason = best.text, list(best.token_ids), best.finish_reason or "stop"
        if self.renderer is not None:
            if reason != "length" and ids[-1:] == [self.renderer.end_id]:
                del ids[-1]
            # A trace that the prompt has opened would not be seen as one where it is cut off.
            text = opening_at_end(self.renderer.decode_marked(prompt)) + self.renderer.decode(ids)
        return Reply(
            text=text,
            finish_reason=reason,
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=len(ids)),
            model=self.model,
        )


def refused(error: ValueError) -> Failure:
    """What the engine says of a prompt that it does not take."""
    too_long = "model length" in str(error) or "context length" in str(error)
    return Failure(kind="too_long" if too_long else "invalid", reason=str(error))


def engine_model(path: str, revision: str | None, engine: Mapping[str, Any]) -> str:
    """A model's name for requests: `<hub name>@<revision>+<12 digits of the engine's arguments>`, the latter two if
    they are set; for a folder, its name and fingerprint. Placement arguments are ignored.
    """
    deciding = {name: value for name, value in engine.items() if "parallel" not in name and name not in ROOM}
    settings = json.dumps(deciding, sort_keys=True) if deciding else ""
    if Path(path).is_dir():
        return fingerprint(Path(path), settings)
    name = path if revision is None else f"{path}@{revision}"
    return f"{name}+{hashlib.sha256(settings.encode()).hexdigest()[:12]}" if settings else name


def sampling(request: Request) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams`, of which only those that are set."""
    decoding = request.decoding
    values = {
        "max_tokens": decoding.max_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": None if decoding.seed is None else decoding.seed + request.sample,
    }
    return {name: value for name, value in values.items() if value is not None} | dict(decoding.extra)
