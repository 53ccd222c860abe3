"""A teacher behind an OpenAI-compatible server: a hosted API, `vllm serve`, or `transformers serve`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from orca2.asking.budget import Price, price_of
from orca2.asking.cache import Cache
from orca2.asking.requests import Answer, Decoding, Request, TeacherError
from orca2.errors import ConfigError
from orca2.serving.client import Server
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Failure, Reply, Trouble, Unusable
from orca2.serving.refusals import Speaker
from orca2.serving.wire import TokenLimitField, api_key, body


@dataclass(frozen=True, kw_only=True)
class HttpTeacher:
    """Chat completions over HTTP, one request a call.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it for a missing key or package.
    """

    name: str
    model: str
    """The model's name on the server."""
    base_url: str
    """The server's address, up to and including `/v1`."""
    api_key_env: str | None
    """The environment variable that holds the key; None where the server needs none."""
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    timeout_s: float
    """Time limit of one whole answer. It is generous: an answer that comes too late may have been billed."""
    concurrency: int
    start_concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    token_limit_field: TokenLimitField
    """The body's name for max_tokens; newer OpenAI models want the second one."""
    usd_per_million: Mapping[str, float | None]
    """Tokens: `prompt`, `completion`, and `cached_prompt` where it differs; None or left out where not known."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    group: str = "teacher"
    """Config group of these settings on the command line, for messages."""
    cached: bool = field(default=True, init=False)
    server: Server = field(init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(init=False)
    price: Price | None = field(init=False)

    def __post_init__(self) -> None:
        server = Server(
            group=self.group,
            base_url=self.base_url,
            timeout_s=self.timeout_s,
            token_limit_field=self.token_limit_field,
        )
        if not self.model:
            raise ConfigError("model is empty; give the name under which the server knows it")
        decoding = Decoding(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            extra=dict(self.extra),
        )
        limits = Limits(
            concurrency=self.concurrency,
            start=self.start_concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )
        object.__setattr__(self, "server", server)
        object.__setattr__(self, "decoding", decoding)
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "price", price_of(self.usd_per_million))

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        speaker = speaker_of(self)
        async with self.server.connected(speaker, self.concurrency) as call:

            async def answer(request: Request) -> Reply | Failure | Trouble:
                outcome = await call(body_of(request, self.token_limit_field))
                if isinstance(outcome, Unusable):
                    raise TeacherError(outcome.reason)
                return outcome

            yield answer


class ServedTeacher(Protocol):
    """What HTTP and batch teachers have in common."""

    @property
    def name(self) -> str: ...
    @property
    def api_key_env(self) -> str | None: ...
    @property
    def group(self) -> str: ...


def speaker_of(teacher: ServedTeacher) -> Speaker:
    """The teacher's name and key. Raises ConfigError for a key that is not set."""
    name = f"{teacher.group}={teacher.name}"
    return Speaker(name, teacher.group, api_key(teacher.api_key_env, name, teacher.group))


def body_of(request: Request, token_limit_field: str) -> dict[str, Any]:
    """What is posted for a request."""
    decoding = request.decoding
    seed = None if decoding.seed is None else decoding.seed + request.sample
    settings = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": seed}
    return body(request.model, request.messages, token_limit_field, decoding.max_tokens, **settings, **decoding.extra)
