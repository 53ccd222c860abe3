"""Failures that a server can mend, servers that are of no use, and answers that nobody counted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orca2.asking.budget import worst_case
from orca2.asking.cache import Cache
from orca2.asking.requests import TeacherError
from orca2.errors import ConfigError
from orca2.serving.outcomes import LASTING, Failure, Reply
from orca2.settings import build_all, compose_config
from orca2.synthesis.synthesis_job import SynthesisJob
from tests.loopback import modes
from tests.loopback import server as loopback
from tests.orca2.asking import test_engine as engine

SERVED = ("teacher=vllm_server", "teacher.model=m", "teacher.temperature=0.7", "strategy=direct", "first_wait_s=0.01")


def test_usage_that_is_missing_is_charged_once_at_its_worst(tmp_path: Path) -> None:
    """Fails if answers are thrown away and bought again, or cost nothing, because a server does not count."""
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        asked = list(engine.requests(teacher, 4, "#no_usage {i}"))
        results, done = engine.collect(teacher, tmp_path / "c.sqlite", asked)
        assert server.counters()["requests"] == 4
        again, _ = engine.collect(teacher, tmp_path / "c.sqlite", asked)
        assert again == results and server.counters()["requests"] == 4
    assert all(isinstance(result, Reply) and not result.usage_known for _, result in results)
    worst = [worst_case(request) for request in asked]
    assert done.spending.tokens == sum(usage.prompt_tokens + usage.completion_tokens for usage in worst)
    assert (done.spending.requests, done.spending.unsure_requests) == (4, 4)


@pytest.mark.parametrize("word", ["#too_long", "#filtered", "#refuse", "#length", "#empty", "#invalid", "#tool_calls"])
def test_a_useless_server_is_left_whatever_fails(word: str, tmp_path: Path) -> None:
    """Fails if a wrong setting is paid for row by row because its failures are of another kind than expected."""
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        with pytest.raises(TeacherError, match=r"answered none of the first 5\d requests \(5\d ") as error:
            engine.collect(teacher, tmp_path / "c.sqlite", engine.requests(teacher, 1000, word + " {i}"))
        assert server.counters()["requests"] < 200 and "the last failure" in str(error.value)


def test_what_is_left_may_fail_where_the_server_has_answered_before(tmp_path: Path) -> None:
    """Fails if a data set whose last rows have no answer can never be finished."""
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        engine.collect(teacher, tmp_path / "c.sqlite", engine.requests(teacher, 5))
        left = engine.requests(teacher, 80, "#invalid {i}")
        results, _ = engine.collect(teacher, tmp_path / "c.sqlite", left)
    assert len(results) == 80 and {result.kind for _, result in results} == {"invalid"}


def test_failures_are_asked_again_where_that_is_wanted(tmp_path: Path) -> None:
    """Fails if a longer context or a mended template cannot reach the rows that failed, or all is paid again."""
    path = tmp_path / "c.sqlite"
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        asked = [*engine.requests(teacher, 3), *engine.requests(teacher, 1, "#too_long"),
                 *engine.requests(teacher, 1, "#empty"), *engine.requests(teacher, 1, "#length")]  # fmt: skip
        engine.collect(teacher, path, asked)
        with Cache(path, ["too_long", "unparsable"]) as cache:
            assert [cache.get(request) is None for request in asked] == [False] * 3 + [True, True, False]
    forced, modes.FORCED = modes.FORCED, ("#length",)  # the server was mended
    try:
        with loopback.serving() as server:
            teacher = engine.http_teacher(server.url)
            results, _ = engine.collect(teacher, path, asked, ask_again=["too_long", "unparsable"])
            assert server.counters()["requests"] == 2
            assert [getattr(result, "kind", "answer") for _, result in results] == ["answer"] * 5 + ["truncated"]
            again, _ = engine.collect(teacher, path, asked)
            assert again == results and server.counters()["requests"] == 2
    finally:
        modes.FORCED = forced


def test_what_fails_again_is_asked_once_a_process(tmp_path: Path) -> None:
    """Fails if equal rows that fail again are asked for each of them."""
    path = tmp_path / "c.sqlite"
    with loopback.serving() as server:
        teacher = engine.http_teacher(server.url)
        asked = list(engine.requests(teacher, 3, "#empty"))
        engine.collect(teacher, path, asked)
        results, _ = engine.collect(teacher, path, asked, ask_again=["unparsable"])
        assert server.counters()["requests"] == 2
    assert all(isinstance(result, Failure) and result.kind == "unparsable" for _, result in results)


def test_failures_that_may_pass_are_named_with_the_way_back(tmp_path: Path, data_sets: Any) -> None:
    """Fails if rows that an outage took stay away because nobody says how to get them."""
    command = ("size=28", "attempts=1", *SERVED)
    with loopback.serving(loopback.Faults(error=0.3)) as server:
        printed = data_sets.make(tmp_path / "a", *command, f"teacher.base_url={server.url}")
        lost = data_sets.record(tmp_path / "a")["failures"]["exhausted"]
        assert f"{lost} failures may pass: delete {tmp_path / 'a' / 'DONE'}" in printed and lost > 1
        server.faults = loopback.Faults()
        (tmp_path / "a" / "DONE").unlink()
        printed = data_sets.make(tmp_path / "a", *command, f"teacher.base_url={server.url}")
    assert "may pass" not in printed and len(data_sets.rows(tmp_path / "a")) == 28


def test_a_row_without_usage_says_so(tmp_path: Path, data_sets: Any) -> None:
    """Fails if a row claims that its answer took no token."""
    lines = [{"q": f"What is {n} + 1? {word}", "a": str(n + 1)} for n, word in enumerate(("", "#no_usage"))]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with loopback.serving() as server:
        data_sets.make(
            tmp_path / "a", *SERVED, f"teacher.base_url={server.url}", "tasks=flan2021",
            f"tasks.folder={tmp_path / 'tasks'}", "tasks.columns.user=q", "tasks.columns.gold=a",
            "~tasks.columns.task", "~tasks.columns.only",
        )  # fmt: skip
    usage = {"#" in row["user"]: row["usage"] for row in data_sets.rows(tmp_path / "a")}
    assert usage[True] is None and usage[False]["completion_tokens"] > 0


def test_the_command_asks_again(tmp_path: Path, data_sets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the setting does not reach the cache, or another one refuses the folder."""
    lines = [{"q": f"What is {n} + 1? {word}", "a": str(n + 1)} for n, word in enumerate(("", "#too_long", "#empty"))]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = ("tasks=flan2021", f"tasks.folder={tmp_path / 'tasks'}", "tasks.columns.user=q", "tasks.columns.gold=a",
             "~tasks.columns.task", "~tasks.columns.only")  # fmt: skip
    out = tmp_path / "a"
    with loopback.serving() as server:
        data_sets.make(out, *SERVED, f"teacher.base_url={server.url}", *tasks)
    assert Counter(row["kind"] for row in data_sets.lines(out, "failures.jsonl")) == {"too_long": 1, "unparsable": 1}
    monkeypatch.setattr(modes, "FORCED", ())
    (out / "DONE").unlink()
    with loopback.serving() as server:
        data_sets.make(out, *SERVED, f"teacher.base_url={server.url}", *tasks, "ask_again.too_long=true")
        assert server.counters()["requests"] == 1
    assert [row["kind"] for row in data_sets.lines(out, "failures.jsonl")] == ["unparsable"]
    assert len(data_sets.rows(out)) == 2


def test_kinds_to_ask_again_are_checked() -> None:
    """Fails if a kind that is misspelt asks nothing again in silence."""
    config = compose_config("synthesize", ["out_dir=/nowhere"])
    assert set(config.ask_again) == set(LASTING)
    config = compose_config("synthesize", ["out_dir=/nowhere", "+ask_again.to_long=true"])
    with pytest.raises(ConfigError, match="to_long"):
        SynthesisJob(**build_all(config, leave_out=("out_dir",)))
