"""What is asked of a teacher; `orca2.serving.outcomes` holds what comes back.

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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from orca2.errors import ConfigError, DataError, Orca2Error
from orca2.records import Turn
from orca2.serving.outcomes import Failure, Reply, Trouble
from orca2.serving.wire import messages
from orca2.tasks.family import Problem

KEY_VERSION = 1
"""Part of every key: raise it when the same request would be sent in another form."""


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
    """Sampling temperature; None sends none, because some models take no temperature."""
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
        return messages(self.system, self.history, self.user)

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
    def prompt(self) -> str:
        """The text of all messages."""
        return "\n".join(message["content"] for message in self.messages)

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


class Failed(Exception):
    """Carries a `Failure` out of a plan of several calls; `Asking.map` turns it back into one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.reason}")
        self.failure = failure


Answer = Callable[[Request], Awaitable[Reply | Failure | Trouble]]
"""One call, by an opened teacher."""
Ask = Callable[[Request], Awaitable[Reply | Failure]]
"""One answered request: from the cache, or by as many calls as it takes."""
