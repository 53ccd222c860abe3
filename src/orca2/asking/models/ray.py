"""Ray Data over vLLM: batches of requests spread over the nodes of a Ray cluster.

The last resort: several `vllm serve` behind the HTTP teacher are simpler and share the same cache.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from orca2.asking.budget import FREE, Price
from orca2.asking.cache import Cache
from orca2.asking.models.gathering import Gathering, Outcome, in_thread
from orca2.asking.models.vllm import engine_model, sampling
from orca2.asking.requests import Answer, Decoding, Request
from orca2.errors import ConfigError
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Reply, Trouble, Usage

LINGER = 1.0
"""Seconds without a new request after which a batch that is not full is answered."""


@dataclass(frozen=True, kw_only=True)
class RayTeacher:
    """`ray.data.llm` over batches of requests.

    Raises:
        ConfigError: `open` raises it where Ray is not installed.
    """

    name: str
    path: str
    """A folder on all nodes, or a name on the hub."""
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    replicas: int
    """Engines, each on its own devices."""
    rows_per_call: int
    """Rows handed to an engine at a time."""
    batch_size: int
    """Requests per pass over the cluster; what a crash can lose."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """`engine_kwargs` of vLLM, such as `tensor_parallel_size`."""
    model: str = field(init=False)
    """Name of the model, with the engine's arguments if they may change the answers."""
    price: Price = field(default=FREE, init=False)
    cached: bool = field(default=True, init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(init=False)

    def __post_init__(self) -> None:
        if "trust_remote_code" in self.engine:
            raise ConfigError("engine.trust_remote_code would run the model repository's own code; remove it")
        decoding = Decoding(max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed)
        object.__setattr__(self, "model", engine_model(self.path, None, self.engine))
        object.__setattr__(self, "decoding", decoding)
        object.__setattr__(self, "limits", Limits(concurrency=2 * self.batch_size))

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        try:
            data, llm = import_module("ray.data"), import_module("ray.data.llm")
        except ImportError as error:
            raise ConfigError(
                f"teacher={self.name} needs Ray with vLLM in this environment: pip install 'ray[data,llm]'; "
                "or take a teacher over HTTP"
            ) from error
        config = llm.vLLMEngineProcessorConfig(
            model_source=self.path,
            concurrency=self.replicas,
            batch_size=self.rows_per_call,
            engine_kwargs=dict(self.engine),
            # Off in Ray: one bad row would end the job.
            should_continue_on_error=True,
        )
        processor = llm.build_processor(config, preprocess=_to_engine, postprocess=_from_engine)

        def answer_all(requests: Sequence[Request]) -> list[Outcome]:
            rows = [
                {"place": place, "messages": request.messages, "sampling": sampling(request)}
                for place, request in enumerate(requests)
            ]
            # Ray gives rows back in any order.
            found = {
                row["place"]: row
                for row in processor(data.from_items(rows)).iter_rows()
                if "text" in row and row["text"] is not None
            }
            return [read_row(found.get(i), self.model) for i in range(len(requests))]

        gathering = Gathering(in_thread(answer_all), self.batch_size, LINGER)
        try:
            yield gathering.answer
        finally:
            await gathering.close()


def read_row(row: Mapping[str, Any] | None, model: str) -> Reply | Trouble:
    """A row of the processor's output; None for a row that failed or whose engine died."""
    if row is None:
        return Trouble(kind="server", reason="the engine gave no answer; see Ray's log")
    usage = Usage(prompt_tokens=int(row["prompt_tokens"]), completion_tokens=int(row["completion_tokens"]))
    # The processor does not report why an answer ended; at the limit it was cut.
    finish = "length" if usage.completion_tokens >= row["max_tokens"] else "stop"
    return Reply(text=row["text"], finish_reason=finish, usage=usage, model=model)


def _to_engine(row: dict[str, Any]) -> dict[str, Any]:
    return {"messages": row["messages"], "sampling_params": row["sampling"]}


def _from_engine(row: dict[str, Any]) -> dict[str, Any]:
    # Rows that failed do not come here: Ray passes them on as they are, without a text.
    return {
        "place": row["place"],
        "text": row["generated_text"],
        "prompt_tokens": row["num_input_tokens"],
        "completion_tokens": row["num_generated_tokens"],
        "max_tokens": row["sampling"]["max_tokens"],
    }
