"""`backend=vllm`: the student in vLLM's engine. vLLM pins its own torch, so it lives in an environment of its own.

Prompts go in as token ids of this project's renderer, so they are the same as with `backend=hf`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from time import monotonic
from typing import Any

from orca2.errors import ConfigError
from orca2.generation.continuous import Finished, Waiting
from orca2.generation.protocol import Backend, Format, Generation, StudentFiles
from orca2.generation.students import find_student
from orca2.generation.tokens import TokenBackend, context_of, load_renderer


@dataclass(frozen=True, kw_only=True)
class VllmSpec:
    """Greedy decoding by `vllm.LLM`.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it where vLLM is not installed.
    """

    name: str
    batch_prompts: int
    """Prompts per call of the engine; what a crash can lose."""
    max_len: int | None
    """Context in tokens; None: the student's own."""
    engine: Mapping[str, Any]
    """Further arguments of `vllm.LLM`, such as `tensor_parallel_size`."""

    def __post_init__(self) -> None:
        if self.batch_prompts < 1:
            raise ConfigError(f"backend.batch_prompts = {self.batch_prompts}: must be at least 1")
        if "trust_remote_code" in self.engine:
            raise ConfigError("backend.engine.trust_remote_code would run the model's own code; remove it")

    def find(self, student: str | None) -> StudentFiles:
        return find_student(student)

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        try:
            vllm = import_module("vllm")
        except ImportError as error:
            raise ConfigError(
                "backend=vllm needs vLLM in this environment: pip install vllm (in an environment of its own, it pins "
                "torch); or run `vllm serve` there and take backend=openai here"
            ) from error
        renderer = load_renderer(student, format)
        context = context_of(student, self.max_len)
        llm = vllm.LLM(model=student.location, max_model_len=context, **self.engine)

        def stream(waiting: Sequence[Waiting]) -> Iterator[Finished]:
            for some in _chunks(waiting, self.batch_prompts):
                began = monotonic()
                settings = [
                    vllm.SamplingParams(
                        temperature=0.0, max_tokens=one.room, stop_token_ids=[renderer.end_id], detokenize=False
                    )
                    for one in some
                ]
                prompts = [{"prompt_token_ids": one.prompt} for one in some]
                for one, answer in zip(some, llm.generate(prompts, settings, use_tqdm=False), strict=True):
                    yield Finished(one.index, _generation(answer.outputs[0], renderer.end_id), monotonic() - began)

        identity = {"backend": "vllm", "student": student.fingerprint, "engine": repr(sorted(self.engine.items()))}
        yield TokenBackend(renderer, stream, context, identity)


def _chunks(waiting: Sequence[Waiting], size: int) -> Iterator[Sequence[Waiting]]:
    for start in range(0, len(waiting), size):
        yield waiting[start : start + size]


def _generation(output: Any, end_id: int) -> Generation:
    ids = list(output.token_ids)
    if output.finish_reason == "length":
        return Generation(ids, "length")
    return Generation(ids[:-1] if ids[-1:] == [end_id] else ids, "stop")
