"""One table of what servers do and what it leads to, for teachers and for the evaluation of a served model alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orca2.asking.requests import TeacherError
from orca2.asking.student_specs import ServedSpec
from orca2.errors import ConfigError, ModelError
from orca2.generation import Chat
from orca2.records import Turn
from orca2.serving.outcomes import Failure, Reply
from orca2.settings import build, compose_config
from tests.loopback import server as loopback
from tests.loopback.modes import CONTEXT, MODES, PROMPT, WAIT_S
from tests.orca2.asking import test_engine as engine

TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a mode leads to; `text` is the answer's, where it is not the plain one."""

    teacher: str = "answer"
    """`answer`, a kind of failure, or `stop`: the run ends."""
    evaluation: str = "stop"
    """How the answer ends (`stop`, `length`, `refused`), `error` after the other prompts, or `ends`: at once."""
    calls: int = 1
    text: str | None = None
    says: str = ""
    """Words in the error, or in the reason of the failure."""


ANSWER = Expected()
TROUBLE = Expected(teacher="exhausted", evaluation="error", calls=TRIES)


def trouble(says: str) -> Expected:
    return Expected(teacher="exhausted", evaluation="error", calls=TRIES, says=says)


EXPECTED = {
    "#no_usage": ANSWER,
    "#usage_null": ANSWER,
    "#abort": trouble("finish_reason is 'abort'"),
    "#ends_in_error": trouble("finish_reason is 'error'"),
    "#no_reason": ANSWER,
    "#eos_reason": ANSWER,
    "#tool_calls": Expected(teacher="unparsable", text="", says="called a tool"),
    "#function_call": Expected(teacher="unparsable", text="", says="called a tool"),
    "#moderation": Expected(teacher="filtered", evaluation="refused", text="", says="requires moderation"),
    "#guidelines": Expected(teacher="filtered", evaluation="refused", text="", says="usage guidelines"),
    "#firewall": Expected(teacher="invalid", evaluation="error", says="an HTML page: Please wait"),
    "#forbidden": Expected(teacher="stop", evaluation="ends", says="HTTP 403: Project does not have access"),
    "#parts": Expected(text="Answer: 5"),
    "#thinking_parts": Expected(text="Answer: 5"),
    "#image_part": trouble("'image_url', not text"),
    "#reset": trouble("HTTP 429"),
    "#room_messages": Expected(calls=2),
    "#room_total": Expected(calls=2),
    "#room_input": Expected(calls=2),
    "#room_at_least": Expected(calls=3),
    "#room_sglang": Expected(calls=2),
    "#room_openrouter": Expected(calls=2),
    "#room_none": Expected(teacher="too_long", evaluation="length", text="", says="maximum context length"),
    "#room_uncounted": Expected(teacher="too_long", evaluation="length", text="", says="beyond the context window"),
    "#wants_max_completion_tokens": Expected(
        teacher="stop", evaluation="ends", says=".token_limit_field=max_completion_tokens"
    ),
    "#wants_no_temperature": Expected(teacher="stop", evaluation="ends", says=".temperature=null"),
    "#cut_json": trouble("not JSON in UTF-8"),
    "#bad_utf8": trouble("not JSON in UTF-8"),
    "#html": trouble("<!DOCTYPE html>"),
    "#error_body": trouble("the upstream provider is down"),
    "#vllm_error": trouble("engine is dead"),
    "#no_choices": trouble("not a chat completion"),
    "#end_marker": ANSWER,
    "#end_twice": ANSWER,
    "#run_on": ANSWER,
    "#channel": Expected(teacher="unparsable", text="Let me see.<|channel|>", says="<|channel|>"),
    "#start_marker": Expected(teacher="unparsable", text="<|im_start|>assistant\n", says="<|im_start|>"),
    "#speaks_of": Expected(text="A turn ends with `<|im_end|>` in ChatML"),
    "#spoken_of <|eot_id|>": Expected(text="After <|eot_id|> comes the next turn."),
}
"""Mode -> what it leads to. The answer must begin with `text`, and with `Answer: ` where none is given."""


def spec(url: str, **changes: Any) -> ServedSpec:
    values: dict[str, Any] = {
        "name": "openai", "retries": TRIES - 1, "first_wait_s": 0.01, "longest_wait_s": 0.05, "max_len": None,
    }  # fmt: skip
    asked = {"group": "backend.model", "concurrency": 4, "start_concurrency": min(4, changes.get("concurrency", 4))}
    model = engine.http_teacher(url, **asked | {key: changes[key] for key in changes.keys() - values.keys()})
    return ServedSpec(model=model, **values | {key: changes[key] for key in changes.keys() & values.keys()})


def evaluated(one: ServedSpec, chats: list[Chat]) -> tuple[dict[int, Any], str]:
    """Replies by the chat's place, and the error that came then."""
    found: dict[int, Any] = {}
    with one.open(one.find("owner/model"), build(compose_config("evaluate").format), 0) as backend:
        try:
            found.update(backend.answer(chats))
        except ModelError as error:
            return found, str(error)
    return found, ""


def chat(text: str, most: int = 40) -> Chat:
    return Chat(system="", user=text, max_new_tokens=most)


def begins(expected: Expected) -> str:
    return "Answer: " if expected.text is None else expected.text


def test_every_mode_has_its_line() -> None:
    """A mode that only one side knows is the second set of rules again."""
    assert EXPECTED.keys() == MODES.keys()


@pytest.mark.parametrize("mode", MODES)
def test_a_teacher_meets_it(mode: str, tmp_path: Path) -> None:
    """Fails if a server's habit loses answers, is taken for success, is asked in vain, or ends the run without need."""
    expected = EXPECTED[mode]
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        asked = engine.requests(teacher, 1, f"{{i}} {mode}")
        retry = engine.Retry(attempts=TRIES, first_seconds=0.01, longest_seconds=0.05)
        if expected.teacher == "stop":
            with pytest.raises(TeacherError) as stopped:
                engine.collect(teacher, tmp_path / "c.sqlite", asked, retry=retry)
            assert expected.says in str(stopped.value)
            return
        ((_, result),), done = engine.collect(teacher, tmp_path / "c.sqlite", asked, retry=retry)
        assert server.counters()["requests"] == expected.calls
    if expected.teacher == "answer":
        assert isinstance(result, Reply) and result.text.startswith(begins(expected))
        assert "<|im_end|>" not in result.text.replace("`<|im_end|>`", "") and "</s></s>" not in result.text
    else:
        assert isinstance(result, Failure) and result.kind == expected.teacher and expected.says in result.reason
    # Nobody counted: the worst case, and only once.
    assert done.spending.unsure_requests == (1 if "usage" in mode else done.spending.unsure_requests)


@pytest.mark.parametrize("mode", MODES)
def test_an_evaluation_meets_it(mode: str) -> None:
    """Fails if an evaluation dies of what a teacher survives, or loses the answers beside it."""
    expected = EXPECTED[mode]
    with loopback.serving() as server:
        replies, error = evaluated(spec(server.url), [chat("before"), chat(f"this {mode}"), chat("after")])
        calls = server.counters()["requests"]
    if expected.evaluation == "ends":
        assert expected.says in error and "What was answered is kept" in error
        return
    assert calls == 2 + expected.calls
    assert {0, 2} <= replies.keys()  # what can be answered is answered before an error
    if expected.evaluation == "error":
        assert 1 not in replies and "1 of 3 prompts have no answer" in error and expected.says in error
        assert "same command again" in error and "\n" not in error and len(error) < 900
        return
    assert not error and replies[1].finish_reason == expected.evaluation
    assert replies[1].text.startswith(begins(expected)) and (replies[1].text == "") == (expected.text == "")


HEALING = [mode for mode, expected in EXPECTED.items() if expected.teacher == "exhausted"]


@pytest.mark.parametrize("mode", HEALING)
def test_trouble_that_passes_leaves_no_trace(mode: str, tmp_path: Path) -> None:
    """Fails if one bad answer of a good server costs a row or a run."""
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        asked = engine.requests(teacher, 1, f"{{i}} {mode}-once")
        ((_, result),), _ = engine.collect(teacher, tmp_path / "c.sqlite", asked)
        replies, error = evaluated(spec(server.url), [chat(f"this {mode}-once")])
        assert server.counters()["requests"] == 4
    assert isinstance(result, Reply) and not error and replies[0].text.startswith("Answer: ")


def test_the_answer_gets_the_room_that_is_left(tmp_path: Path) -> None:
    """Fails if a prompt that fits counts as too long, or its answer gets less than there is."""
    for mode in (mode for mode in MODES if mode.startswith("#room_") and EXPECTED[mode].teacher == "answer"):
        with loopback.serving() as server:
            teacher = engine.http_teacher(server.url, max_tokens=400 if mode != "#room_at_least" else 16)
            asked = engine.requests(teacher, 1, f"{{i}} {mode}")
            engine.collect(teacher, tmp_path / f"{mode[1:]}.sqlite", asked)
            if mode != "#room_at_least":
                assert server.limits_seen[-1] == CONTEXT - PROMPT
            else:
                assert server.limits_seen == [16, 8]


def test_a_reset_is_waited_for() -> None:
    """Fails if a limit's reset is ignored, or that of a day is waited for instead of that of a second."""
    with loopback.serving() as server:
        replies, _ = evaluated(spec(server.url), [chat("this #reset-once")])
    assert WAIT_S <= replies[0].seconds < 20


def test_a_chat_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if an evaluation is not greedy, sends an empty system message, forgets turns, or shows its key."""
    monkeypatch.setenv("ORCA2_TEST_KEY", loopback.KEY)
    talk = Chat(system="", user="why?", history=(Turn(user="a", answer="b"),), max_new_tokens=9)
    with loopback.serving(loopback.Faults(need_key=True)) as server:
        one = spec(server.url, api_key_env="ORCA2_TEST_KEY")
        replies, _ = evaluated(one, [talk])
        monkeypatch.setenv("ORCA2_TEST_KEY", loopback.KEY.replace("secret", "wrong!"))
        _, error = evaluated(one, [talk])
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["user", "assistant", "user"]
    body = {key: value for key, value in server.bodies[0].items() if key != "messages"}
    assert body == {"temperature": 0.0, "max_tokens": 9, "model": "owner/model"}
    assert replies[0].prompt == "user: a\n\nassistant: b\n\nuser: why?" and replies[0].prompt_tokens > 0
    assert "401" in error and "sk-" not in error and "***" in error


def test_an_estimate_serves_where_nobody_counts() -> None:
    """Fails if a server that only says `too long` makes empty answers of prompts that fit."""
    with loopback.serving() as server:
        text = "#room_uncounted " + "x" * 900
        replies, _ = evaluated(spec(server.url, max_len=len(text) // 3 + 1 + 8), [chat(text, 1024)])
        assert replies[0].text.startswith("Answer: ") and server.limits_seen == [1024, 8]
        replies, _ = evaluated(spec(server.url), [chat(text, 1024)])
        assert (replies[0].text, replies[0].finish_reason) == ("", "length")


def test_reasoning_in_parts_is_kept() -> None:
    """Fails if a reasoning model's trace is lost, or stands in its answer."""
    with loopback.serving() as server:
        replies, _ = evaluated(spec(server.url), [chat("#thinking_parts"), chat("#null")])
    assert (replies[0].reasoning, replies[0].text) == ("five, then", "Answer: 5")
    assert (replies[1].reasoning, replies[1].text) == ("I think", "")


def test_a_server_that_fails_everything_is_left_early() -> None:
    """Fails if each of a thousand prompts waits for its last attempt at a server that is gone."""
    chats = [chat("good")] + [chat(f"{i} #invalid") for i in range(200)]
    with loopback.serving() as server:
        replies, error = evaluated(spec(server.url), chats)
        assert server.counters()["requests"] < 50
    assert list(replies) == [0] and "8 prompts in a row have no answer" in error and "unknown parameter" in error


def test_an_evaluation_keeps_to_the_accounts_rates() -> None:
    """Fails if a rate that an account allows is not kept, so that a tier's calls end in 429."""
    with loopback.serving() as server:
        one = spec(server.url, requests_per_minute=600)
        evaluated(one, [chat(f"{i}") for i in range(15)])
        assert server.spread() >= 0.4  # ten a second, of which ten may come at once


def test_what_a_config_gets_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a mistake shows only when the server is asked."""
    monkeypatch.delenv("ORCA2_TEST_KEY", raising=False)
    for changes, says in (
        ({"base_url": "127.0.0.1:8000"}, r"backend\.model\.base_url"), ({"retries": -1}, "attempts"),
        ({"base_url": "http://me:pw@h/v1"}, r"backend\.model\.api_key_env"), ({"concurrency": 0}, "concurrency"),
        ({"timeout_s": 0}, r"backend\.model\.timeout_s"),
        ({"token_limit_field": "n"}, r"backend\.model\.token_limit_field"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            spec("http://h/v1", **changes)
    with pytest.raises(ConfigError, match="ORCA2_TEST_KEY"):
        evaluated(spec("http://127.0.0.1:9/v1", api_key_env="ORCA2_TEST_KEY"), [chat("x")])
