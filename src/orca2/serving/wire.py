"""The chat completions wire format: a request's body, and what the body of a reply says.

    messages, max_tokens, ...  ──body──▶  POST /chat/completions  ──read_reply──▶  Reply | Failure | Trouble | Unusable

Whatever is not a whole chat completion is Trouble: no JSON, an error where an answer should be, no choice, a reason for
the end that says that the server did not finish. `orca2.serving.refusals` reads statuses other than 200.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from orca2.errors import ConfigError
from orca2.records import Turn
from orca2.serving.outcomes import NO_USAGE, Failure, Outcome, Reply, ReplyEnd, Trouble, Usage
from orca2.serving.refusals import Speaker, read_error, redacted

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]
TOKEN_LIMIT_FIELDS: tuple[TokenLimitField, ...] = get_args(TokenLimitField)
FINISH_REASONS: Mapping[str, ReplyEnd] = {
    # OpenAI and vLLM; Together's and TGI's for the end token; Anthropic's; Cohere's
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"), "stop"),
    # OpenAI and vLLM; Anthropic's and Gemini's; Mistral's for the context
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_calls"),
}
"""Servers' words, in lower case -> what they mean. Any other, such as `abort` or `error`, is trouble."""

MOST_TOKENS = 10**9
"""Most tokens of one answer; no context is as long, so a larger count from a server is ignored."""


def api_key(variable: str | None, speaker: str, group: str) -> str:
    """The key that an environment variable holds; a dummy where the server needs none. Raises ConfigError."""
    if variable is None:
        return "none"
    key = os.environ[variable].strip() if variable in os.environ else ""
    if not key:
        raise ConfigError(
            f"{speaker} takes its key from the environment variable {variable}, which is not set; "
            f"set it, or set {group}.api_key_env=null for a server without keys"
        )
    return key


def messages(system: str, history: Sequence[Turn], user: str) -> list[dict[str, str]]:
    """`[{"role": ..., "content": ...}, ...]`. An empty system message is left out: servers disagree about it."""
    chat = [{"role": "system", "content": system}] if system else []
    for turn in history:
        chat += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
    return [*chat, {"role": "user", "content": user}]


def body(
    model: str, chat: Sequence[Mapping[str, str]], token_limit_field: str, max_tokens: int, **decoding: Any
) -> dict[str, Any]:
    """What is posted to /chat/completions. Fields of `decoding` that are None are not sent."""
    settings = {name: value for name, value in decoding.items() if value is not None}
    return {"model": model, "messages": list(chat), token_limit_field: max_tokens, **settings}


def read_reply(completion: Any, most_tokens: int | None, speaker: Speaker) -> Outcome:
    """What the body of an answer with status 200 says, as decoded from JSON.

    `most_tokens`: what the request allowed; an answer without a reason for its end is cut off where it took as many.
    """
    try:
        if _is_error(completion):
            return _error_in_reply(completion, speaker)
        choice = completion["choices"][0]
        if choice.get("error"):
            return _error_in_reply(choice, speaker)
        message = choice["message"]
        text, thoughts, refusal = _content(message.get("content"))
        # vLLM renamed the field; some servers still use the old name.
        reasoning = _text(message.get("reasoning") or message.get("reasoning_content")) or thoughts
        refusal = _text(message.get("refusal")) or refusal
        usage = _usage(completion.get("usage"))
        model, fingerprint = _text(str(completion["model"])), completion.get("system_fingerprint")
        said = _text(choice.get("finish_reason"))
        reason = FINISH_REASONS.get(said.lower())
        if not said:
            cut = usage is not None and most_tokens is not None and usage.completion_tokens >= most_tokens
            reason = "length" if cut else "tool_calls" if message.get("tool_calls") else "stop"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}; it begins with {json.dumps(completion, default=str)[:100]}"
        return Trouble(
            kind="malformed", reason=redacted(f"not a chat completion ({found})", speaker.secret), maybe_paid=True
        )
    if reason is None:
        return Trouble(
            kind="server",
            reason=f"the server did not finish the answer: finish_reason is {said[:40]!r}",
            maybe_paid=True,
            usage=usage,
        )
    return Reply(
        text=text,
        finish_reason=reason,
        usage=usage or NO_USAGE,
        model=_text(f"{model}@{fingerprint}") if fingerprint else model,
        reasoning=reasoning,
        refusal=refusal,
        usage_known=usage is not None,
    )


def _is_error(completion: Any) -> bool:
    """OpenRouter and some proxies answer 200 with an error; vLLM's older ones say `"object": "error"`."""
    return bool(completion.get("error")) or completion.get("object") == "error"


def _error_in_reply(holder: Mapping[str, Any], speaker: Speaker) -> Failure | Trouble | Any:
    error = holder.get("error") or holder
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return read_error(status, json.dumps({"error": error}), {}, speaker)


def _content(content: Any) -> tuple[str, str, str]:
    """Text, reasoning and refusal of a message's content, which is a text or a list of parts."""
    if not isinstance(content, list):
        return _text(content), "", ""
    found: dict[str, list[str]] = {"text": [], "thinking": [], "refusal": []}
    for part in content:
        kind = part["type"]
        kind = "text" if kind == "output_text" else kind
        if kind not in found:
            raise ValueError(f"a part of the content is {kind!r}, not text")
        value = part["text" if kind == "text" else kind]
        # Mistral's reasoning models nest the parts of a thought.
        found[kind].append(_content(value)[0] if isinstance(value, list) else _text(value))
    return "".join(found["text"]), "".join(found["thinking"]), "".join(found["refusal"])


def _usage(counts: Any) -> Usage | None:
    """The tokens that a reply says it took; None where it does not say.

    Most servers count reasoning inside `completion_tokens`. Where only the total shows that it stands beside them, as
    xAI's does, it is added, so that `reasoning_tokens` is always a part.
    """
    try:
        prompt, completion = _count(counts["prompt_tokens"]), _count(counts["completion_tokens"])
        cached = _count((counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        reasoning = _count((counts.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    if reasoning and counts.get("total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, reasoning_tokens=reasoning)


def _count(value: Any) -> int:
    """Raises ValueError for what cannot be tokens: a budget would grow by a negative count, and no file could hold an
    endless one.
    """
    if not 0 <= (count := int(value)) <= MOST_TOKENS:
        raise ValueError(f"{value} tokens")
    return count


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    # Half a surrogate pair, written as an escape, is legal JSON, but no file could hold it.
    return value.encode("utf-8", "replace").decode()
