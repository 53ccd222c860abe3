"""A teacher that reasons: its trace stands apart from its answer, and what was paid for is kept as it came."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orca2.records import Example
from orca2.serving.outcomes import Failure, Reply, Usage, accepted
from orca2.settings import build, compose_config
from tests.fake_reasoning_model import CUT_OFF, FORMS, TRACE, FakeReasoningModel

USAGE = Usage(prompt_tokens=1, completion_tokens=9, reasoning_tokens=5)


def reply(text: str, **more: Any) -> Reply:
    return Reply(text=text, finish_reason="stop", usage=USAGE, model="m", **more)


@pytest.mark.parametrize("number", range(len(FORMS)), ids=FORMS)
def test_the_trace_stands_apart(number: int) -> None:
    """A student would learn markers as text, and verification read the trace's candidates."""
    text, apart = FakeReasoningModel().says("Answer: 42", number)
    found = accepted(reply(text, reasoning=apart))
    assert isinstance(found, Reply)
    assert (found.text, found.reasoning, found.usage) == ("Answer: 42", TRACE, USAGE)


def test_traces_without_answers_are_failures() -> None:
    """Half a trace would be an answer."""
    cut = accepted(reply("<think>Answer: 7"))
    assert isinstance(cut, Failure) and (cut.kind, cut.usage, cut.text) == ("truncated", USAGE, "<think>Answer: 7")
    for silent in (reply("<think>a</think>\n"), reply("", reasoning="a")):
        found = accepted(silent)
        assert isinstance(found, Failure) and found.kind == "unparsable" and "behind its reasoning" in found.reason
    short = accepted(replace(reply("", reasoning="a"), finish_reason="length"))
    assert isinstance(short, Failure) and short.kind == "truncated"


def test_a_data_set_of_a_reasoning_teacher(tmp_path: Path, data_sets: Any) -> None:
    """The whole way: answers verified without traces, both stored, reasoning tokens counted, all read again."""
    overrides = ("size=120", "verification=verified", f"cache={tmp_path / 'cache.sqlite'}")
    data_sets.make(tmp_path / "a", *overrides, teacher=FakeReasoningModel().teacher())
    rows = data_sets.rows(tmp_path / "a")
    assert len(rows) == 120 and {row["verdict"] for row in rows} == {"right"}
    assert {row["reasoning"] for row in rows} == {TRACE} and not any(TRACE in row["answer"] for row in rows)
    thought = len(TRACE.split())
    assert all(row["usage"]["reasoning_tokens"] == thought < row["usage"]["completion_tokens"] for row in rows)
    record = data_sets.record(tmp_path / "a")
    assert record["usage"]["reasoning_tokens"] == 120 * thought and record["with_reasoning"] == 120
    # A part of the answer's tokens: counted once.
    assert record["spending"]["tokens"] == record["usage"]["prompt_tokens"] + record["usage"]["completion_tokens"]
    card = (tmp_path / "a" / "README.md").read_text()
    assert f"of which {120 * thought:,} of reasoning" in card and "120 of them have the teacher's reasoning" in card
    assert json.dumps(TRACE)[1:-1] in (tmp_path / "a" / "browser.html").read_text()

    with sqlite3.connect(tmp_path / "cache.sqlite") as cache:
        stored = [json.loads(text) for (text,) in cache.execute("SELECT reply FROM answers")]
    assert len(stored) == 120 and all(TRACE in one["text"] + one["reasoning"] for one in stored)
    # So another rule of splitting needs no call.
    data_sets.make(tmp_path / "b", *overrides, teacher=FakeReasoningModel(("none of it is asked",)).teacher())
    assert data_sets.rows(tmp_path / "b") == rows

    config = compose_config("train", ["source=synthesized", f"source.path={tmp_path / 'a'}"])
    source, strategy = replace(build(config.source), cache_dir=str(tmp_path / "imported")), build(config.strategy)
    source.prepare()
    read = [source.read(row, strategy) for row in range(source.size)]
    assert {(row.id, row.reasoning, row.answer) for row in read if isinstance(row, Example)} == {
        ("synthesized/" + row["id"], row["reasoning"], row["answer"]) for row in rows
    }


def test_traces_that_are_cut_off_are_listed(tmp_path: Path, data_sets: Any) -> None:
    """An item would vanish, or half a trace be trained on."""
    fake = FakeReasoningModel((FORMS[1], CUT_OFF))
    data_sets.make(tmp_path / "a", "size=60", f"cache={tmp_path / 'cache.sqlite'}", teacher=fake.teacher())
    failures = data_sets.lines(tmp_path / "a", "failures.jsonl")
    record = data_sets.record(tmp_path / "a")
    assert record["examples"] + len(failures) == 60 and 0 < len(failures) < 60
    assert record["failures"] == {"truncated": len(failures)} and record["with_reasoning"] == record["examples"]
    assert all("trace has no end" in one["reason"] and TRACE in one["text"] for one in failures)
