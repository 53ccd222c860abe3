"""What one call of a server can come to.

Reply      the model's text, with its usage; `accepted` says whether it is an answer
Failure    this prompt has no answer, and asking again at once would not give one
Trouble    the call went wrong on the way (rate limit, time-out, half an answer, ...): asked again, then a Failure
Unusable   every call would fail in the same way: the run ends
"""

from dataclasses import dataclass, replace
from typing import Literal

from orca2.hashing import is_unicode
from orca2.reasoning import split
from orca2.serving.markup import clean

FailureKind = Literal["refused", "truncated", "too_long", "unparsable", "filtered", "invalid", "missing", "exhausted"]
"""`refused`: the model declined; `truncated`: the answer met max_tokens; `too_long`: the prompt does not fit
the context; `unparsable`: an answer without text, with chat markup inside, or a call of a tool; `filtered`: stopped by
the provider's content filter; `invalid`: the server does not accept the request; `missing`: a replayed cache does not
hold it; `exhausted`: every attempt ended in trouble."""

LASTING: tuple[FailureKind, ...] = ("refused", "truncated", "too_long", "unparsable", "filtered")
"""Failures that a later run would meet again, so a cache replays them unless it is told to ask again; the others are
always asked anew."""

TroubleKind = Literal["rate_limit", "server", "timeout", "connection", "malformed"]

ReplyEnd = Literal["stop", "length", "content_filter", "tool_calls"]
"""Why an answer ended, whatever the server calls it: see `orca2.serving.wire.FINISH_REASONS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call as the server counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Those of the prompt that the provider had in its prefix cache, and bills at another price."""
    reasoning_tokens: int = 0
    """Those of `completion_tokens` that the model reasoned with, where the provider counts them; same price."""

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
    """What a model wrote. Stored as it came; `accepted` says whether it is an answer."""

    text: str
    finish_reason: str
    """A `ReplyEnd`; caches of earlier versions hold others, which `accepted` does not take for success."""
    usage: Usage
    model: str
    """Model and revision as the server reports them; an `Example`'s teacher."""
    reasoning: str = ""
    """The trace where the server sends it apart from the text; `accepted` adds what stands between markers."""
    refusal: str = ""
    usage_known: bool = True
    """False: the server did not count, `usage` is zero, and a budget counts the worst case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request without an answer. Counted and listed, never dropped in silence."""

    kind: FailureKind
    reason: str
    usage: Usage = NO_USAGE
    text: str = ""
    """What the model had written, for looking at."""
    reasoning: str = ""
    """What it had thought, where the server sends that apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A call that went wrong on the way; the same call may succeed later."""

    kind: TroubleKind
    reason: str
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    maybe_paid: bool = False
    """The server may have answered and billed: a budget counts the worst case."""
    usage: Usage | None = None
    """What the server says it took, where it answered at all."""

    @property
    def overload(self) -> bool:
        """Whether fewer calls at a time would mend it."""
        return self.kind in ("rate_limit", "timeout") or self.retry_after is not None


@dataclass(frozen=True, slots=True)
class Unusable:
    """No call can succeed: a wrong key, no money, no such model, a setting that the model does not take."""

    reason: str
    """The reason, with what to change if the server's error tells."""


Outcome = Reply | Failure | Trouble | Unusable


def accepted(reply: Reply, asked: str = "") -> Reply | Failure:
    """The reply where it is a whole answer, its trace apart and its markup cut; else what kind of failure it is.

    `asked`: the text of the prompt; markup that it names may stand in the answer.
    """

    def failed(kind: FailureKind, reason: str) -> Failure:
        return Failure(kind=kind, reason=reason, usage=reply.usage, text=reply.text, reasoning=reply.reasoning)

    if reply.refusal:
        return failed("refused", reply.refusal)
    if reply.finish_reason in ("length", "content_filter"):
        kind: FailureKind = "truncated" if reply.finish_reason == "length" else "filtered"
        return failed(kind, f"finish_reason is {reply.finish_reason!r} after {reply.usage.completion_tokens} tokens")
    if reply.finish_reason == "tool_calls":
        return failed("unparsable", "the model called a tool instead of answering, though none was offered")
    if reply.finish_reason != "stop":
        return failed("unparsable", f"finish_reason is {reply.finish_reason!r}: the server did not finish the answer")
    said = split(reply.text, reply.reasoning)
    if not said.closed:
        return failed("truncated", f"the reasoning trace has no end after {reply.usage.completion_tokens} tokens")
    if not said.answer.strip():
        return failed("unparsable", "the answer has no text" + (" behind its reasoning trace" * bool(said.reasoning)))
    if not is_unicode(reply.text + reply.reasoning):
        return failed("unparsable", "the answer holds half of a surrogate pair; no file can hold it")
    text, left = clean(said.answer, asked)
    if left:
        return failed("unparsable", f"the answer holds {left}, which is markup of a chat format")
    if not text.strip():
        return failed("unparsable", "the answer has no text besides chat markup")
    return replace(reply, text=text, reasoning=said.reasoning)
