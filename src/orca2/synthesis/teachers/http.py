"""A teacher behind an OpenAI-compatible server: a hosted API, `vllm serve`, or `transformers serve`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from orca2.errors import ConfigError
from orca2.synthesis.budget import Price, price_of
from orca2.synthesis.cache import Cache
from orca2.synthesis.limits import Limits
from orca2.synthesis.requests import Answer, Decoding, Failure, Reply, Request, Trouble
from orca2.synthesis.teachers.completions import api_key, body, read_error, read_reply, redacted

CONNECT_SECONDS = 10.0
"""For opening a connection; ours."""
POOL_CONNECTIONS = 16
"""Of one client. The HTTP library's pool looks at each of its connections twice a request, so one of 256
takes longer than all the rest (measured: 4.4 ms of processor time a request, 2.0 ms with pools of 16)."""
NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""Errors of the HTTP library before a request is on its way, so that it cannot have been billed. By name,
because openai 2 stands on httpx and openai 3 on httpx2."""
HTTP_LIBRARIES = ("httpx", "httpx2", "openai")
"""They log a line for each request, which would bury the progress line under a million others."""

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, kw_only=True)
class HttpTeacher:
    """Chat completions over HTTP, one request a call.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it for a missing key or package.
    """

    name: str
    model: str
    """As the server knows it."""
    base_url: str
    """Up to and including `/v1`."""
    api_key_env: str | None
    """The environment variable that holds the key; None where the server needs none."""
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    timeout_s: float
    """For one whole answer. Generous: an answer that comes too late may have been billed."""
    concurrency: int
    start_concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    token_limit_field: TokenLimitField
    """The body's name for max_tokens; newer OpenAI models want the second one."""
    usd_per_million: Mapping[str, float | None]
    """Tokens: `prompt`, `completion`, and `cached_prompt` where it differs; None or left out where not known."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = field(default=True, init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(init=False)
    price: Price | None = field(init=False)

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url is {self.base_url!r}; give a URL such as http://127.0.0.1:8000/v1")
        if "@" in urlsplit(self.base_url).netloc:
            raise ConfigError("base_url holds a user or password; take them out and set api_key_env instead")
        if not self.model:
            raise ConfigError("model is empty; give the name under which the server knows it")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s is {self.timeout_s!r}; give seconds above 0")
        if self.token_limit_field not in get_args(TokenLimitField):
            raise ConfigError(
                f"token_limit_field is {self.token_limit_field!r}; allowed are {get_args(TokenLimitField)}"
            )
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
        object.__setattr__(self, "decoding", decoding)
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "price", price_of(self.usd_per_million))

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        secret = api_key(self.api_key_env, self.name)
        async with AsyncExitStack() as stack:
            places: list[Any] = []
            while len(places) < self.concurrency:
                client = open_client(self.base_url, secret, self.timeout_s, POOL_CONNECTIONS)
                places += [await stack.enter_async_context(client)] * POOL_CONNECTIONS

            async def answer(request: Request) -> Reply | Failure | Trouble:
                # The gate admits no more calls than there are places; the last used has an open connection.
                client = places.pop()
                try:
                    return await self._answer(client, secret, request)
                finally:
                    places.append(client)

            yield answer

    async def _answer(self, client: Any, secret: str, request: Request) -> Reply | Failure | Trouble:
        import openai

        try:
            # The library's own limit is for each read, so a server that drips could hold a call for ever.
            async with asyncio.timeout(self.timeout_s):
                # The generic call: `chat.completions.create` takes a third longer, to check types.
                content = body(request, self.token_limit_field)
                return read_reply(await client.post("/chat/completions", cast_to=object, body=content))
        except openai.APIStatusError as error:
            return read_error(error.status_code, error.response.text, error.response.headers, self.name, secret)
        except (TimeoutError, openai.APITimeoutError) as error:
            reason = f"no whole answer within {self.timeout_s} s"
            return Trouble(kind="timeout", reason=reason, maybe_paid=_was_sent(error))
        except openai.APIConnectionError as error:
            reason = redacted(f"{error} {error.__cause__!r}", secret)
            return Trouble(kind="connection", reason=reason, maybe_paid=_was_sent(error))
        except ValueError as error:
            return Trouble(kind="malformed", reason=redacted(str(error), secret), maybe_paid=True)


@asynccontextmanager
async def open_client(base_url: str, secret: str, timeout_s: float, connections: int) -> AsyncIterator[Any]:
    """An `openai.AsyncOpenAI` for one event loop, its own retries off. Raises ConfigError without the package."""
    try:
        import openai
    except ImportError as error:
        raise ConfigError("this teacher needs the `openai` package: pip install 'orca2-lightning[teacher]'") from error
    for library in HTTP_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=connections, max_keepalive_connections=connections)
    timeout = openai.Timeout(timeout_s, connect=min(timeout_s, CONNECT_SECONDS))
    http = openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout, base_url=base_url)
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key=secret, max_retries=0, timeout=timeout, http_client=http
    ) as client:
        yield client


def _was_sent(error: BaseException) -> bool:
    return type(error.__cause__).__name__ not in NEVER_SENT
