"""What the loopback server answers: a plain answer, or what real servers do instead when the user's text names a mode.

    "What is 1 + 1?"              an answer
    "What is 1 + 1? #html"        an HTML page with status 200, each time
    "What is 1 + 1? #html-once"   the page at the first call, an answer at the second

A stand-in for faults that no real server shows on demand; each mode names the server it was copied from.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

FORCED = (
    "#too_long",
    "#filtered",
    "#filter_status",
    "#refuse",
    "#length",
    "#empty",
    "#invalid",
    "#quota",
    "#null",
)
"""Modes that change a completion's fields only, so that batch files can hold them, too."""
CONTEXT, PROMPT = 1000, 990
"""Tokens of context and prompt in the modes `#room_...`."""
WAIT_S = 0.12
"""What `#reset...` asks to wait."""


class Response(NamedTuple):
    """What goes over the wire."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


def complete(request: dict[str, Any]) -> tuple[int, Any]:
    """A chat completion whose text and length depend on the request alone."""
    text = request["messages"][-1]["content"]
    limit = request.get("max_completion_tokens") or request["max_tokens"]
    forced = next((word for word in FORCED if word in text), None)
    if forced == "#too_long":
        return 400, error("This model's maximum context length is 10 tokens", "context_length_exceeded")
    if forced == "#filter_status":
        return 400, error("blocked by our content management policy", "content_filter")
    if forced == "#invalid":
        return 400, error("unknown parameter")
    if forced == "#quota":
        return 429, error("You exceeded your current quota", "insufficient_quota")
    canonical = json.dumps(request, sort_keys=True)
    number = int(hashlib.sha256(canonical.encode()).hexdigest(), 16)
    message: dict[str, Any] = {"role": "assistant", "content": f"Answer: {number % 1000}"}
    finish, completion = "stop", 1 + number % limit
    if forced == "#refuse":
        message["refusal"] = "I will not"
    elif forced == "#length":
        finish, completion = "length", limit
    elif forced == "#filtered":
        finish = "content_filter"
    elif forced == "#empty":
        message["content"] = " \n"
    elif forced == "#null":
        message = {"role": "assistant", "content": None, "reasoning": "I think"}
    prompt = sum(len(m["content"].encode()) // 4 + 5 for m in request["messages"])
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return 200, {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": f"{request['model']}-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def error(message: str, code: str | int | None = None, param: str | None = None) -> dict[str, Any]:
    """An error's body, as OpenAI writes it."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def response(request: dict[str, Any], times: int, status: int, answer: Any) -> Response | None:
    """What the mode in the request's text answers instead at its call of this number; None where no mode is named."""
    text = request["messages"][-1]["content"]
    # The longest name first, because some begin like others.
    name = next((name for name in sorted(MODES, key=len, reverse=True) if name in text), None)
    if name is None or (f"{name}-once" in text and times > 1):
        return None
    return MODES[name](request, answer)


def _limit(request: dict[str, Any]) -> int:
    return int(request.get("max_completion_tokens") or request["max_tokens"])


def _bytes(body: bytes) -> Response:
    return Response(200, body, {"content-type": "application/json"})


def _json(status: int, content: Any, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, json.dumps(content).encode(), {"content-type": "application/json"} | named)


def _with(answer: dict[str, Any], **changes: Any) -> Response:
    """The answer with other fields; `choice` and `message` are changed inside."""
    choice = answer["choices"][0] | changes.pop("choice", {})
    choice["message"] = choice["message"] | changes.pop("message", {})
    return _json(200, answer | changes | {"choices": [choice]})


def _without_usage(answer: dict[str, Any]) -> Response:
    return _json(200, {key: value for key, value in answer.items() if key != "usage"})


def _text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _says(before: str = "", after: str = "") -> Callable[[dict[str, Any], dict[str, Any]], Response]:
    return lambda _, answer: _with(answer, message={"content": before + _text(answer) + after})


def _ends(reason: str | None, **message: Any) -> Callable[[dict[str, Any], dict[str, Any]], Response]:
    return lambda _, answer: _with(answer, choice={"finish_reason": reason}, message=message)


def _says_html(status: int) -> Callable[[dict[str, Any], dict[str, Any]], Response]:
    page = b"<!DOCTYPE html><html><body><h1>Please wait</h1></body></html>"
    return lambda *_: Response(status, page, {"content-type": "text/html"})


def _room(message: str) -> Callable[[dict[str, Any], dict[str, Any]], Response]:
    """A refusal until prompt and longest answer fit; `message` may use limit, total, prompt and context."""

    def refuse(request: dict[str, Any], answer: dict[str, Any]) -> Response:
        limit = _limit(request)
        if PROMPT + limit <= CONTEXT:
            return _json(200, answer)
        numbers = {"limit": limit, "total": PROMPT + limit, "prompt": PROMPT, "context": CONTEXT}
        return _json(400, error(message.format(**numbers, over=CONTEXT - limit + 1)))

    return refuse


def _unsupported(name: str, message: str) -> Callable[[dict[str, Any], dict[str, Any]], Response]:
    def refuse(request: dict[str, Any], answer: dict[str, Any]) -> Response:
        return _json(400, error(message, "unsupported_value", name)) if name in request else _json(200, answer)

    return refuse


_PARTS = [{"type": "text", "text": "Answer: "}, {"type": "text", "text": "5"}]
_THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "five, then"}]}

MODES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Response]] = {
    "#no_usage": lambda _, answer: _without_usage(answer),  # llama.cpp proxies
    "#usage_null": lambda _, answer: _with(answer, usage=None),
    "#abort": _ends("abort"),  # vLLM and SGLang, when a request is aborted
    "#ends_in_error": _ends("error"),  # OpenRouter, Mistral
    "#no_reason": _ends(None),
    "#eos_reason": _ends("eos"),  # Together
    "#tool_calls": _ends("tool_calls", content=None, tool_calls=[{"id": "1", "type": "function"}]),
    "#function_call": _ends("function_call", content=None),
    "#moderation": lambda *_: _json(  # OpenRouter
        403, error("Your chosen model requires moderation and your input was flagged", 403)
    ),
    "#guidelines": lambda *_: _json(  # xAI
        403, {"code": "denied", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}
    ),
    "#firewall": _says_html(403),  # Cloudflare, for a prompt that holds SQL or a script
    "#forbidden": lambda *_: _json(403, error("Project does not have access to model m", "model_not_found")),
    "#parts": lambda _, answer: _with(answer, message={"content": _PARTS}),
    "#thinking_parts": lambda _, answer: _with(answer, message={"content": [_THOUGHT, *_PARTS]}),  # Mistral
    "#image_part": lambda _, answer: _with(answer, message={"content": [{"type": "image_url", "image_url": {}}]}),
    "#reset": lambda *_: _json(  # OpenAI and Groq, whose limit for a day resets in hours
        429, error("Rate limit reached"), x_ratelimit_reset_requests="5h0m0s", x_ratelimit_remaining_requests="9",
        x_ratelimit_reset_tokens=f"{round(WAIT_S * 1000)}ms", x_ratelimit_remaining_tokens="0",
    ),
    "#room_messages": _room(  # OpenAI, older vLLM
        "This model's maximum context length is {context} tokens. However, you requested {total} tokens ({prompt} in "
        "the messages, {limit} in the completion). Please reduce the length of the messages or completion."
    ),
    "#room_total": _room(
        "This model's maximum context length is {context} tokens. However, you requested {total} tokens (with the "
        "completion). Please reduce."
    ),
    "#room_input": _room(  # vLLM 0.9
        "'max_tokens' or 'max_completion_tokens' is too large: {limit}. This model's maximum context length is "
        "{context} tokens and your request has {prompt} input tokens ({limit} > {context} - {prompt})."
    ),
    "#room_at_least": _room(  # vLLM 0.12, which counts no further than what does not fit
        "This model's maximum context length is {context} tokens. However, you requested {limit} output tokens and "
        "your prompt contains at least {over} input tokens, for a total of at least 1001 tokens."
    ),
    "#room_sglang": _room(
        "Requested token count exceeds the model's maximum context length of {context} tokens. You requested a total "
        "of {total} tokens: {prompt} tokens from the input messages and {limit} tokens for the completion."
    ),
    "#room_openrouter": _room(
        "This endpoint's maximum context length is {context} tokens. However, you requested about {total} tokens "
        "({prompt} of text input, {limit} in the output). Please reduce the length of either one."
    ),
    "#room_none": lambda *_: _json(  # vLLM, for a prompt that fills the context alone
        400, error("This model's maximum context length is 1000 tokens. However, you requested 2048 tokens in the "
                   "messages, Please reduce the length of the messages.")
    ),
    "#room_uncounted": _room("This is beyond the context window."),
    "#wants_max_completion_tokens": _unsupported(
        "max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
    ),
    "#wants_no_temperature": _unsupported(
        "temperature", "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) "
        "value is supported.",
    ),
    "#cut_json": lambda _, answer: _bytes(json.dumps(answer).encode()[:-9]),
    "#bad_utf8": lambda _, answer: _bytes(json.dumps(answer).encode().replace(b"Answer", b"\xff\xfe")),
    "#html": _says_html(200),
    "#error_body": lambda *_: _json(200, error("the upstream provider is down", 502)),  # OpenRouter
    "#vllm_error": lambda *_: _json(200, {"object": "error", "message": "engine is dead", "code": 500}),
    "#no_choices": lambda _, answer: _json(200, answer | {"choices": []}),
    "#end_marker": _says(after="<|im_end|>"),
    "#end_twice": _says(after="</s></s>\n"),
    "#run_on": _says(after="<|im_end|>\n<|im_start|>user\nAnd what is 6 * 9?"),
    "#channel": _says(before="Let me see.<|channel|>"),
    "#start_marker": _says(before="<|im_start|>assistant\n"),
    "#speaks_of": _says(before="A turn ends with `<|im_end|>` in ChatML, and <s>not</s> in HTML. "),
    "#spoken_of <|eot_id|>": _says(before="After <|eot_id|> comes the next turn. "),
}  # fmt: skip
"""Name -> (request, plain answer) -> what is sent."""

BATCH_MODES = ("#twice", "#foreign", "#broken_line")
"""Modes of a line in a batch's result file: it comes again with another text, is joined by one with an id that nobody
asked for, or is not JSON."""


def batch_lines(row: dict[str, Any], text: str) -> list[str]:
    """The lines of a result file for one result."""
    whole = json.dumps(row)
    if "#broken_line" in text:
        return [whole[:-5]]
    if "#twice" in text:
        return [whole, whole.replace("Answer: ", "Answer: again ")]
    if "#foreign" in text:
        return [whole, json.dumps(row | {"custom_id": "nobody"})]
    return [whole]
