"""What is asked of a teacher and what comes back.

    Request(model, decoding, system, user, history, sample)  --key-->  sha256, the address in the cache
        │ one call
        ├─▶ Reply      the teacher's text, with its usage
        ├─▶ Failure    this request has no answer, and asking again would not give one
        └─▶ Trouble    the call went wrong on the way (rate limit, time-out, ...); asked again, then a Failure

A request's key covers all that changes the answer and nothing else: neither the server's address nor the
strategy's name nor the row's number, so that another server, another order or another shard size pays for
nothing twice.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from orca2.errors import ConfigError, DataError, Orca2Error
from orca2.hashing import is_unicode
from orca2.records import Turn
from orca2.tasks.family import Problem

if TYPE_CHECKING:
    from orca2.synthesis.budget import Price
    from orca2.synthesis.cache import Cache
    from orca2.synthesis.limits import Limits

KEY_VERSION = 1
"""Part of every key: raise it when the same request would be sent in another form."""

FailureKind = Literal["refused", "truncated", "too_long", "unparsable", "filtered", "invalid", "missing", "exhausted"]
"""`refused`: the model declined; `truncated`: the answer met max_tokens; `too_long`: the prompt does not fit
the context; `unparsable`: an answer without text; `filtered`: stopped by the provider's content filter;
`invalid`: the server does not accept the request; `missing`: a replayed cache does not hold it; `exhausted`:
every attempt ended in trouble."""

LASTING: frozenset[FailureKind] = frozenset({"refused", "truncated", "too_long", "unparsable", "filtered"})
"""Failures that a later run would meet again, so the cache replays them; the others are asked anew."""

TroubleKind = Literal["rate_limit", "server", "timeout", "connection", "malformed"]


class TeacherError(Orca2Error):
    """The teacher cannot be used at all: every further call would fail in the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the teacher chooses tokens.

    Raises:
        ConfigError: a value outside its range.
    """

    max_tokens: int
    """Longest answer, in the teacher's tokens; the worst case that a budget reserves."""
    temperature: float | None = None
    """None sends none: some models take no temperature."""
    top_p: float | None = None
    seed: int | None = None
    """Sent as seed + sample; None sends none."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body that change the answer, such as `reasoning_effort`."""

    def __post_init__(self) -> None:
        if isinstance(self.max_tokens, bool) or self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens!r}; give the longest answer, at least 1 token")
        for name, low, high in (("temperature", 0.0, 2.0), ("top_p", 0.0, 1.0)):
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; allowed are {low} to {high}, or null to send none")
            # 0 and 0.0 decode alike and must have one key.
            object.__setattr__(self, name, float(value))
        own = {"model", "messages", "n", "stream", "max_completion_tokens", *(f.name for f in fields(self))}
        taken = sorted(own & set(self.extra))
        if taken:
            raise ConfigError(f"extra names {taken}, which have their own settings or are not free to choose")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The generated problem behind a request, for the rule teacher only: never sent, no part of the key."""

    problem: Problem[Any]
    strategy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of a teacher.

    Raises:
        DataError: a text that UTF-8 cannot hold, such as half a surrogate pair.
    """

    model: str
    decoding: Decoding
    system: str
    """The strategy's instruction; empty sends no system message."""
    user: str
    history: tuple[Turn, ...] = ()
    sample: int = 0
    """Numbers the samples of one request in best-of-n, from 0; each has its own key."""
    generated: Generated | None = field(default=None, compare=False, repr=False)
    _key: str = field(default="", init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for message in self.messages:
            try:
                message["content"].encode()
            except UnicodeEncodeError as error:
                raise DataError(
                    f"a {message['role']} message cannot be sent: {error}; repair or reject the row"
                ) from error

    @property
    def messages(self) -> list[dict[str, str]]:
        """`[{"role": ..., "content": ...}, ...]`, as chat completions want them."""
        chat = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.history:
            chat += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
        return [*chat, {"role": "user", "content": self.user}]

    @property
    def canonical(self) -> str:
        """The request as JSON with one spelling; what the key is the hash of, and what the cache stores."""
        decoding = {f.name: getattr(self.decoding, f.name) for f in fields(self.decoding)}
        content = {
            "version": KEY_VERSION,
            "model": self.model,
            "messages": self.messages,
            "decoding": decoding | {"extra": dict(self.decoding.extra)},
            "sample": self.sample,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """The request's address: 64 hexadecimal digits."""
        if not self._key:
            # Kept, because every step of a call asks for it; made late, because a rule teacher's requests
            # never do.
            object.__setattr__(self, "_key", key_of(self.canonical))
        return self._key

    @property
    def prompt_bytes(self) -> int:
        """Length of all messages in UTF-8."""
        return sum(len(message["content"].encode()) for message in self.messages)

    def then(self, answer: str, user: str) -> "Request":
        """The next call of the same conversation: this one's question and `answer` become history."""
        return replace(self, history=(*self.history, Turn(user=self.user, answer=answer)), user=user)


def key_of(canonical: str) -> str:
    """sha256 of a request's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call as the teacher counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Those of the prompt that the provider had in its prefix cache, and bills at another price."""
    reasoning_tokens: int = 0
    """Those of `completion_tokens` that the model reasoned with, where the provider counts them."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a teacher wrote. Stored as it came; `accepted` says whether it is an answer."""

    text: str
    finish_reason: str
    """As the server says: `stop`, `length`, `content_filter`, ..."""
    usage: Usage
    model: str
    """Model and revision as the server reports them; an `Example`'s teacher."""
    reasoning: str = ""
    """Hidden reasoning where the server shows it; no part of the answer."""
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request without an answer. Counted and listed, never dropped in silence."""

    kind: FailureKind
    reason: str
    usage: Usage = NO_USAGE
    text: str = ""
    """What the teacher had written, for looking at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A call that went wrong on the way; the same call may succeed later."""

    kind: TroubleKind
    reason: str
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    maybe_paid: bool = False
    """The server may have answered and billed: a budget counts the worst case."""


class Failed(Exception):
    """Carries a `Failure` out of a plan of several calls; `Asking.map` turns it back into one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.reason}")
        self.failure = failure


Answer = Callable[[Request], Awaitable[Reply | Failure | Trouble]]
"""One call, by an opened teacher."""
Ask = Callable[[Request], Awaitable[Reply | Failure]]
"""One answered request: from the cache, or by as many calls as it takes."""


class Teacher(Protocol):
    """A model that writes answers. Opened once per event loop; everything it holds is closed with it."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str:
        """Goes into every request and so into its key."""
        ...

    @property
    def decoding(self) -> Decoding: ...
    @property
    def limits(self) -> "Limits": ...
    @property
    def price(self) -> "Price | None":
        """None where unknown; a budget in USD is then refused."""
        ...

    @property
    def cached(self) -> bool:
        """False for a teacher whose answers cost nothing to make again."""
        ...

    def open(self, cache: "Cache", runs: Sequence[str]) -> AbstractAsyncContextManager[Answer]:
        """`runs`: the run that asks, then those that ended before it; what they left unfinished at the provider is
        stored in the cache before this returns.
        """
        ...


def accepted(reply: Reply) -> Reply | Failure:
    """The reply where it is a whole answer, else what kind of failure it is."""
    kinds: dict[str, FailureKind] = {"length": "truncated", "content_filter": "filtered"}
    if reply.refusal:
        return Failure(kind="refused", reason=reply.refusal, usage=reply.usage, text=reply.text)
    if reply.finish_reason in kinds:
        reason = f"finish_reason is {reply.finish_reason!r} after {reply.usage.completion_tokens} tokens"
        return Failure(kind=kinds[reply.finish_reason], reason=reason, usage=reply.usage, text=reply.text)
    if not reply.text.strip():
        return Failure(kind="unparsable", reason="the answer has no text", usage=reply.usage)
    if not is_unicode(reply.text):
        reason = "the answer holds half of a surrogate pair; no file can hold it"
        return Failure(kind="unparsable", reason=reason, usage=reply.usage, text=reply.text)
    return reply
