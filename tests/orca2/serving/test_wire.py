"""The wire format alone: replies, errors and hints of real servers, read without a server."""

import json
from typing import Any

import pytest

from orca2.asking.budget import Price
from orca2.serving.outcomes import Failure, Reply, Trouble, Unusable, Usage, accepted
from orca2.serving.refusals import Speaker, read_error, retry_after, room_left
from orca2.serving.wire import read_reply

SPEAKER = Speaker("teacher=t", "teacher", "sk-0123456789")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "2"}, 2.0), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5), ({"retry-after": "x"}, None),
     ({"retry-after": "nan"}, None), ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0), ({}, None),
     ({"x-ratelimit-reset-requests": "1s"}, 1.0), ({"x-ratelimit-reset-tokens": "6m0s"}, 360.0),
     ({"x-ratelimit-reset-tokens": "20ms", "retry-after": "3"}, 3.0), ({"x-ratelimit-reset-tokens": "soon"}, None),
     ({"x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5), ({"x-ratelimit-reset-requests": "7"}, 7.0),
     ({"x-ratelimit-reset-requests": "5h0m0s", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
     ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-tokens": "1ms",
       "x-ratelimit-remaining-tokens": "5"}, 2.0)],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Fails if a server's hint is misread, so that the run hammers it or sleeps forever."""
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


def test_statuses() -> None:
    """Fails if a fault that heals ends the run, or one that does not is repeated forever."""
    kinds = {s: read_error(s, "", {}, SPEAKER) for s in (408, 409, 425, 429, 500, 502, 503, 504)}
    assert {s: (t.kind, t.maybe_paid) for s, t in kinds.items() if isinstance(t, Trouble)} == {
        408: ("timeout", False), 409: ("server", False), 425: ("server", False), 429: ("rate_limit", False),
        500: ("server", False), 502: ("server", True), 503: ("server", False), 504: ("timeout", True),
    }  # fmt: skip
    for status in (401, 402, 403, 404):
        found = read_error(status, f"no such key: {SPEAKER.secret}", {}, SPEAKER)
        assert isinstance(found, Unusable) and str(status) in found.reason and SPEAKER.secret not in found.reason


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": 403, "message": "your input was flagged", "metadata": {"reasons": []}}}, "filtered"),
        ({"error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}, "filtered"),
        ({"error": {"code": "content_policy_violation", "message": "no"}}, "filtered"),
        ({"error": {"message": "Invalid key", "code": "invalid_api_key"}}, None),
        ({"error": {"message": "Your account was flagged for abuse. Contact support."}}, None),
        ({"error": {"message": "Country, region, or territory not supported"}}, None),
        ({"detail": "Forbidden"}, None),
    ],
)  # fmt: skip
def test_a_moderation_is_told_from_a_bad_key(body: dict[str, Any], kind: str | None) -> None:
    """Fails if one flagged prompt ends a run of thousands, or a wrong key costs a call for each of them."""
    found = read_error(403, json.dumps(body), {}, SPEAKER)
    assert isinstance(found, Unusable) if kind is None else isinstance(found, Failure) and found.kind == kind


@pytest.mark.parametrize(
    ("message", "param", "setting"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
         "max_tokens", "teacher.token_limit_field=max_completion_tokens"),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature",
         "teacher.temperature=null"),
        ("`temperature` is deprecated for this model.", None, "teacher.temperature=null"),
        ("Unsupported parameter: 'top_p' is not supported with this model.", "top_p", "teacher.top_p=null"),
        ("Unrecognized request argument supplied: seed is not supported", "seed", "teacher.seed=null"),
        ("this tool is not supported", "tools", ""),
    ],
)  # fmt: skip
def test_a_setting_that_a_model_does_not_take_is_named(message: str, param: str | None, setting: str) -> None:
    """Fails if the user has to find out from `HTTP 400` what to change, after fifty calls."""
    text = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": param}})
    found = read_error(400, text, {}, SPEAKER)
    if setting:
        assert isinstance(found, Unusable) and f"set {setting}" in found.reason
    else:
        assert isinstance(found, Failure) and found.kind == "invalid"


def test_a_models_own_limit_is_room() -> None:
    """Fails if a limit above what a model can write at all fails every prompt."""
    said = "max_tokens is too large: 99999. This model supports at most 16384 completion tokens, whereas you provided 9"
    found = read_error(400, json.dumps({"error": {"message": said, "code": "invalid_value"}}), {}, SPEAKER)
    assert isinstance(found, Failure) and found.kind == "too_long" and room_left(found.reason, 99999) == 16384


def completion(usage: dict[str, Any] | None = None, reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    choice = {"message": {"content": "Answer: 1"} | message, "finish_reason": reason}
    return {"model": "m", "choices": [choice], "usage": usage}


@pytest.mark.parametrize(("total", "billed"), [(110, 100), (170, 160), (None, 100)])
def test_reasoning_tokens_are_a_part_of_the_answer(total: int | None, billed: int) -> None:
    """Fails if reasoning is priced twice, or not at all where a server counts it beside the answer, as xAI's does."""
    usage = {"prompt_tokens": 10, "completion_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 60}}
    reply = read_reply(completion(usage | {"total_tokens": total}, reasoning_content="hm"), None, SPEAKER)
    assert isinstance(reply, Reply)
    assert reply.usage == Usage(prompt_tokens=10, completion_tokens=billed, reasoning_tokens=60)
    assert (reply.usage + reply.usage).reasoning_tokens == 120 and reply.reasoning == "hm"
    assert Price(prompt=1e6, completion=1e6).usd(reply.usage) == 10 + billed


def test_an_answer_that_names_no_end_is_cut_where_it_took_all() -> None:
    """Fails if a server without reasons gives half answers for whole ones, or none at all."""
    usage = {"prompt_tokens": 10, "completion_tokens": 7}
    ends = [read_reply(completion(usage, None), most, SPEAKER) for most in (7, 8)]
    assert [end.finish_reason for end in ends if isinstance(end, Reply)] == ["length", "stop"]


def test_an_answer_that_no_file_can_hold_is_a_failure() -> None:
    """Half of a surrogate pair, legal in a server's JSON, ends the run when the shards are written, on every resume."""
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    outcome = accepted(Reply(text="4" + chr(0xD83D), finish_reason="stop", usage=usage, model="m"))
    assert isinstance(outcome, Failure) and (outcome.kind, outcome.usage) == ("unparsable", usage)


def test_an_unknown_end_in_an_old_cache_is_not_success() -> None:
    """Fails if an aborted answer that an earlier version stored is trained on."""
    reply = Reply(text="Answer: 1", finish_reason="abort", usage=Usage(prompt_tokens=1, completion_tokens=2), model="m")
    outcome = accepted(reply)
    assert isinstance(outcome, Failure) and outcome.kind == "unparsable" and "'abort'" in outcome.reason
