"""One call of a server, and the connections that many calls share. Retries, limits and budgets are their callers'."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from orca2.errors import ConfigError
from orca2.serving.outcomes import Failure, Outcome, Trouble
from orca2.serving.refusals import Speaker, read_error, redacted, room_left
from orca2.serving.wire import TOKEN_LIMIT_FIELDS, TokenLimitField, read_reply

CONNECT_SECONDS = 10.0
"""Time limit for opening a connection; ours."""
POOL_CONNECTIONS = 16
"""Connections of one client. The HTTP library's pool looks at each of its connections twice a request, so one of 256
takes longer than all the rest (measured: 4.4 ms of processor time a request, 2.0 ms with pools of 16)."""
NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""Errors of the HTTP library before a request is on its way, so that it cannot have been billed. By name,
because openai 2 stands on httpx and openai 3 on httpx2."""
HTTP_LIBRARIES = ("httpx", "httpx2", "openai")
"""They log a line for each request, which would bury the progress line under a million others."""

Call = Callable[[dict[str, Any]], Awaitable[Outcome]]
"""One call, by the body of its request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Address of a server, and how it is spoken to.

    Raises:
        ConfigError: a value that cannot be used.
    """

    group: str
    """The config group of its settings: `teacher` or `backend`."""
    base_url: str
    """The address, up to and including `/v1`."""
    timeout_s: float
    """Time limit of one whole answer. It is generous: an answer that comes too late may have been billed."""
    token_limit_field: TokenLimitField

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                f"{self.group}.base_url is {self.base_url!r}; give a URL such as http://127.0.0.1:8000/v1"
            )
        if "@" in parts.netloc:
            raise ConfigError(
                f"{self.group}.base_url holds a user or password; take them out and set {self.group}.api_key_env"
            )
        if not self.timeout_s > 0:
            raise ConfigError(f"{self.group}.timeout_s is {self.timeout_s!r}; give seconds above 0")
        if self.token_limit_field not in TOKEN_LIMIT_FIELDS:
            raise ConfigError(
                f"{self.group}.token_limit_field is {self.token_limit_field!r}; allowed are {TOKEN_LIMIT_FIELDS}"
            )

    @asynccontextmanager
    async def connected(self, speaker: Speaker, concurrency: int) -> AsyncIterator[Call]:
        """Connections for so many calls at a time, in one event loop. Raises ConfigError without the package."""
        async with AsyncExitStack() as stack:
            places: list[Any] = []
            while len(places) < concurrency:
                client = open_client(self.base_url, speaker.secret, self.timeout_s, POOL_CONNECTIONS)
                places += [await stack.enter_async_context(client)] * POOL_CONNECTIONS

            async def call(body: dict[str, Any]) -> Outcome:
                # The caller's gate admits no more calls than there are places; the last used has an open connection.
                client = places.pop()
                try:
                    return await self._fitted(client, speaker, body)
                finally:
                    places.append(client)

            yield call

    async def _fitted(self, client: Any, speaker: Speaker, body: dict[str, Any]) -> Outcome:
        """Make the call, and again with the room that is left if the prompt fits but its longest answer does not."""
        limit = int(body[self.token_limit_field])
        while True:
            outcome = await self._once(client, speaker, body | {self.token_limit_field: limit})
            room = 0
            if isinstance(outcome, Failure) and outcome.kind == "too_long":
                room = room_left(outcome.reason, limit)
            if not 0 < room < limit:
                return outcome
            limit = room

    async def _once(self, client: Any, speaker: Speaker, body: dict[str, Any]) -> Outcome:
        import openai

        try:
            # The library's own limit is for each read, so a server that drips could hold a call forever.
            async with asyncio.timeout(self.timeout_s):
                # The generic call: `chat.completions.create` takes a third longer, to check types.
                completion = await client.post("/chat/completions", cast_to=object, body=body)
            return read_reply(completion, body[self.token_limit_field], speaker)
        except openai.APIStatusError as error:
            return read_error(error.status_code, error.response.text, error.response.headers, speaker)
        except (TimeoutError, openai.APITimeoutError) as error:
            reason = f"no whole answer within {self.timeout_s} s"
            return Trouble(kind="timeout", reason=reason, maybe_paid=_was_sent(error))
        except openai.APIConnectionError as error:
            reason = redacted(f"{error} {error.__cause__!r}", speaker.secret)
            return Trouble(kind="connection", reason=reason, maybe_paid=_was_sent(error))
        except (ValueError, RecursionError) as error:
            # JSON that is cut off or has no end of brackets, or bytes that are not UTF-8.
            reason = redacted(f"the answer is not JSON in UTF-8 ({error})", speaker.secret)
            return Trouble(kind="malformed", reason=reason, maybe_paid=True)


@asynccontextmanager
async def open_client(base_url: str, secret: str, timeout_s: float, connections: int) -> AsyncIterator[Any]:
    """An `openai.AsyncOpenAI` for one event loop, its own retries off. Raises ConfigError without the package."""
    require_package()
    import openai

    for library in HTTP_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=connections, max_keepalive_connections=connections)
    timeout = openai.Timeout(timeout_s, connect=min(timeout_s, CONNECT_SECONDS))
    http = openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout, base_url=base_url)
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key=secret, max_retries=0, timeout=timeout, http_client=http
    ) as client:
        yield client


def require_package() -> None:
    """Raise ConfigError where the `openai` package is missing."""
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "asking a server needs the `openai` package: pip install 'orca2-lightning[teacher]'"
        ) from error


def _was_sent(error: BaseException) -> bool:
    return type(error.__cause__).__name__ not in NEVER_SENT
