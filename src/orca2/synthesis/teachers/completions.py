"""The chat completions wire format: a request's body, a reply, and what an error status means.

200            Reply                          429, 408, 409, 425, 5xx   Trouble: ask again
400, 413, 422  Failure: too_long, filtered or invalid
401, 402, 403, 404, and 429 with `insufficient_quota`                   TeacherError: all calls would fail
"""

import json
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from orca2.errors import ConfigError
from orca2.synthesis.requests import Failure, Reply, Request, TeacherError, Trouble, Usage

LONGEST_REASON = 300
"""Characters of a server's error text that are kept."""

_HOPELESS = frozenset({401, 402, 403, 404})
_HOPELESS_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_BAD_REQUEST = frozenset({400, 413, 422})
_LOST_BACKEND = frozenset({502, 504})
"""A gateway lost the server behind it, which may have answered."""
_TOO_LONG = (
    "context_length_exceeded",
    "context length",
    "context window",
    "maximum context",
    "max_model_len",
    "too long",
)
_FILTERED = ("content_filter", "content_policy", "content management policy")


def api_key(variable: str | None, teacher: str) -> str:
    """The key that an environment variable holds; a dummy where the server needs none. Raises ConfigError."""
    if variable is None:
        return "none"
    key = os.environ[variable].strip() if variable in os.environ else ""
    if not key:
        raise ConfigError(
            f"teacher={teacher} takes its key from the environment variable {variable}, which is not set; "
            f"set it, or set teacher.api_key_env to null for a server without keys"
        )
    return key


def body(request: Request, token_limit_field: str) -> dict[str, Any]:
    """What is posted to /chat/completions."""
    decoding = request.decoding
    content: dict[str, Any] = {
        "model": request.model,
        "messages": request.messages,
        token_limit_field: decoding.max_tokens,
    }
    if decoding.temperature is not None:
        content["temperature"] = decoding.temperature
    if decoding.top_p is not None:
        content["top_p"] = decoding.top_p
    if decoding.seed is not None:
        content["seed"] = decoding.seed + request.sample
    return content | dict(decoding.extra)


def read_reply(completion: Any) -> Reply:
    """A chat completion, as decoded from JSON, as a Reply. Raises ValueError where it is none."""
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        fingerprint = completion.get("system_fingerprint")
        model = str(completion["model"])
        return Reply(
            text=_text(message.get("content")),
            finish_reason=_text(choice.get("finish_reason")) or "stop",
            usage=_usage(completion["usage"]),
            model=f"{model}@{fingerprint}" if fingerprint else model,
            # vLLM renamed the field; some servers still use the old name.
            reasoning=_text(message.get("reasoning") or message.get("reasoning_content")),
            refusal=_text(message.get("refusal")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion ({type(error).__name__}: {error})") from error


def read_error(status: int, text: str, headers: Mapping[str, str], teacher: str, secret: str) -> Failure | Trouble:
    """What a status other than 200 means. Raises TeacherError where every other call would fail as well."""
    reason = f"HTTP {status}: {redacted(text, secret)[:LONGEST_REASON]}"
    code = _code(text)
    lower = text.lower()
    if status in _HOPELESS or code in _HOPELESS_CODES:
        raise TeacherError(
            f"teacher={teacher} cannot be used: {reason}; check the key, the model's name, base_url and the account"
        )
    if status == 429:
        return Trouble(kind="rate_limit", reason=reason, retry_after=retry_after(headers))
    if status in _BAD_REQUEST:
        if any(sign in lower for sign in _FILTERED):
            return Failure(kind="filtered", reason=reason)
        if status == 413 or any(sign in lower for sign in _TOO_LONG):
            return Failure(kind="too_long", reason=reason)
        return Failure(kind="invalid", reason=reason)
    if status >= 500 or status in (408, 409, 425):
        kind: Any = "timeout" if status in (408, 504) else "server"
        return Trouble(kind=kind, reason=reason, retry_after=retry_after(headers), maybe_paid=status in _LOST_BACKEND)
    return Failure(kind="invalid", reason=reason)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if name not in headers:
            continue
        try:
            seconds = float(headers[name]) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(headers[name]).timestamp() - time()
            except ValueError:
                continue
        # NaN and infinity are numbers to float(), but not to a clock.
        if seconds == seconds and abs(seconds) != float("inf"):
            return max(0.0, seconds)
    return None


def redacted(text: str, secret: str) -> str:
    """The text without the key: some servers quote it in their errors."""
    return text.replace(secret, "***") if len(secret) > len("none") else text


def _usage(counts: Any) -> Usage:
    """The tokens that a reply says it took.

    Most servers count reasoning inside `completion_tokens`. Where only the total shows that it stands beside them, as
    xAI's does, it is added, so that `reasoning_tokens` is always a part.
    """
    prompt, completion = int(counts["prompt_tokens"]), int(counts["completion_tokens"])
    cached = int((counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    reasoning = int((counts.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
    if reasoning and counts.get("total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, reasoning_tokens=reasoning)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    # Half a surrogate pair, written as an escape, is legal JSON, but no file could hold it.
    return value.encode("utf-8", "replace").decode()


def _code(text: str) -> str | None:
    try:
        error = json.loads(text)["error"]
        return str(error["code"] or error["type"])
    except (ValueError, KeyError, TypeError):
        return None
