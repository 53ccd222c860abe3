"""What a server's error says: ask again, give this prompt up, ask for a shorter answer, or stop.

    408, 409, 425, 429, 5xx   Trouble: ask again, after what `retry-after` or `x-ratelimit-reset-*` say
    400, 413, 422             Failure: too_long, filtered or invalid
    400 that names max_tokens, temperature, top_p or seed as not supported     Unusable, with the setting to change
    403 of a moderation       Failure: filtered. 403 in HTML, of a firewall before the server: Failure: invalid
    401, 402, 403, 404, and any that says that the money is used up            Unusable

A moderation is told from a bad key by the words of the error: see `FILTERED`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from orca2.serving.outcomes import Failure, Trouble, TroubleKind, Unusable

LONGEST_REASON = 500
"""Characters of a server's error text that are kept."""
FILTERED = (
    "content_filter", "contentfilter", "content_policy", "content policy", "content management policy", "moderation",
    "input was flagged", "flagged as", "invalid_prompt", "usage guidelines", "usage policies", "safety_check",
    "safety system", "data_inspection_failed", "inappropriate content", "content exists risk", "considered high risk",
)  # fmt: skip
"""Words of OpenAI, Azure, OpenRouter, xAI, Alibaba, DeepSeek, Zhipu and Moonshot for a prompt that they do not let
through."""
TOO_LONG = (
    "context_length_exceeded", "context length", "context window", "context size", "maximum context", "max_model_len",
    "too long", "max_new_tokens` must be", "completion tokens, whereas",
)  # fmt: skip
"""Signs that the prompt, or the prompt with the longest answer, fills the context."""

_HOPELESS = frozenset({401, 402, 403, 404})
_HOPELESS_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_BAD_REQUEST = frozenset({400, 413, 422})
_LOST_BACKEND = frozenset({502, 504})
"""A gateway lost the server behind it, which may have answered."""
_NOT_TAKEN = re.compile(r"unsupported|not support|does not accept|only the default|deprecated")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# As vLLM, OpenAI, SGLang, OpenRouter and TGI count in their refusals, in lower case.
_CONTEXT = re.compile(
    r"(?:context|model) length (?:is|of) (?:only )?(\d+)|must be <= (\d+)|available context size \((\d+)"
)
_PROMPT = re.compile(
    r"(at least )?(\d+) (?:input tokens|(?:tokens )?in (?:the messages|your prompt)|"
    r"(?:tokens )?from the input messages|of text input|`inputs` tokens)"
)
_REQUESTED = re.compile(r"requested (?:a total of |about )?(\d+) tokens(?! in the messages)")
_MOST = re.compile(r"supports at most (\d+) completion tokens")


@dataclass(frozen=True, slots=True)
class Speaker:
    """The server and its settings, as messages name them."""

    name: str
    """The config's choice, such as `teacher=openai`."""
    settings: str
    """The config group of its settings: `teacher` or `backend`."""
    secret: str = ""
    """The key, which is struck out: some servers quote it in their errors."""


def read_error(status: int, text: str, headers: Mapping[str, str], speaker: Speaker) -> Failure | Trouble | Unusable:
    """What a status other than 200 means; `text` is the body."""
    reason = f"HTTP {status}: {_short(text, speaker.secret)}"
    code, lower = _code(text), text.lower()
    if code in _HOPELESS_CODES:
        return _unusable(reason, speaker, "check the account")
    filtered = any(sign in lower for sign in FILTERED)
    if status == 403 and filtered:
        return Failure(kind="filtered", reason=reason)
    if status == 403 and _is_html(text):
        return Failure(kind="invalid", reason=reason)
    if status in _HOPELESS:
        return _unusable(reason, speaker, "check the key, the model's name, base_url and the account")
    if status == 429:
        return Trouble(kind="rate_limit", reason=reason, retry_after=retry_after(headers))
    if status >= 500 or status in (408, 409, 425):
        kind: TroubleKind = "timeout" if status in (408, 504) else "server"
        return Trouble(kind=kind, reason=reason, retry_after=retry_after(headers), maybe_paid=status in _LOST_BACKEND)
    if status in _BAD_REQUEST:
        if filtered:
            return Failure(kind="filtered", reason=reason)
        if remedy := _setting(text, speaker.settings):
            return _unusable(reason, speaker, remedy)
        if status == 413 or any(sign in lower for sign in TOO_LONG):
            return Failure(kind="too_long", reason=reason)
    return Failure(kind="invalid", reason=reason)


def room_left(said: str, asked_for: int) -> int:
    """Tokens that a refusal leaves for the answer, where `asked_for` were too many; 0 where it leaves none or does
    not count.
    """
    said = said.lower()
    if most := _MOST.search(said):
        return int(most[1])
    context, prompt, total = _CONTEXT.search(said), _PROMPT.search(said), _REQUESTED.search(said)
    if not context:
        return 0
    room = int(next(filter(None, context.groups())))
    if prompt:
        left = room - int(prompt[2])
        # vLLM counts no further than what does not fit: the next refusal counts further.
        return min(left, asked_for // 2) if prompt[1] else left
    return room - (int(total[1]) - asked_for) if total and int(total[1]) > asked_for else 0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, `retry-after` (seconds or a date), or the reset of the
    limit that is used up (`x-ratelimit-reset-requests`, `x-ratelimit-reset-tokens`: `1s`, `6m0s`, `20ms`, seconds).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if name not in headers:
            continue
        try:
            seconds = float(headers[name]) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(headers[name]).timestamp() - time()
            except (ValueError, OverflowError, OSError):  # a year that the clock of this machine does not have
                continue
        # NaN and infinity are numbers to float(), but not to a clock.
        if seconds == seconds and abs(seconds) != float("inf"):
            return max(0.0, seconds)
    resets = {unit: _duration(headers.get(f"x-ratelimit-reset-{unit}", "")) for unit in ("requests", "tokens")}
    known = {unit: seconds for unit, seconds in resets.items() if seconds is not None}
    used_up = [seconds for unit, seconds in known.items() if headers.get(f"x-ratelimit-remaining-{unit}") == "0"]
    # The reset of a limit that is not used up may be a day away.
    return max(used_up) if used_up else min(known.values(), default=None)


def redacted(text: str, secret: str) -> str:
    """The text without the key."""
    return text.replace(secret, "***") if len(secret) > len("none") else text


def _unusable(reason: str, speaker: Speaker, remedy: str) -> Unusable:
    return Unusable(f"{speaker.name} cannot be used: {reason}; {remedy}")


def _short(text: str, secret: str) -> str:
    """The error for a person: its message rather than its JSON, one line, without the key."""
    error = _error(text)
    if isinstance(error.get("message"), str):
        text = f"{error['message']} [{code}]" if (code := _code(text)) else error["message"]
    elif _is_html(text):
        text = f"an HTML page: {re.sub(r'<[^<>]*>', ' ', text)}"
    return redacted(" ".join(text.split()), secret)[:LONGEST_REASON]


def _is_html(text: str) -> bool:
    return text.lstrip()[:100].lower().startswith(("<!doctype html", "<html"))


def _setting(text: str, group: str) -> str:
    """The setting that the model does not take, as advice; empty where the error speaks of something else."""
    lower = text.lower()
    if not _NOT_TAKEN.search(lower):
        return ""
    named = _error(text).get("param")
    if named == "max_tokens" or ("max_tokens" in lower and "max_completion_tokens" in lower):
        other = "max_tokens" if named == "max_completion_tokens" else "max_completion_tokens"
        return f"set {group}.token_limit_field={other}"
    for name in ("temperature", "top_p", "seed"):
        if named == name or (named is None and re.search(rf"[`'\"]{name}[`'\"]", lower)):
            return f"set {group}.{name}=null"
    return ""


def _duration(text: str) -> float | None:
    """Seconds of `1s`, `6m0s`, `20ms`, `1h2m3.5s` or a plain number; None for anything else."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def _error(text: str) -> Mapping[str, Any]:
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


def _code(text: str) -> str | None:
    error = _error(text)
    return str(error.get("code") or error.get("type") or "") or None
