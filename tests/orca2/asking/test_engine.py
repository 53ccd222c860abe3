"""The engine against a server that misbehaves: all answered, paid once, in order, within the caps."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orca2.asking.budget import Budget, BudgetStop, Price
from orca2.asking.cache import Cache
from orca2.asking.call_plans import Conversation, answer_once, draft_then_check
from orca2.asking.engine import Asking, asking
from orca2.asking.models.http import HttpTeacher
from orca2.asking.requests import Ask, Request, TeacherError
from orca2.errors import ConfigError
from orca2.serving.outcomes import Failure, Reply
from orca2.serving.retries import Retry
from tests.loopback import server as loopback

Faults, serving = loopback.Faults, loopback.serving

QUICK = Retry(attempts=12, first_seconds=0.01, longest_seconds=0.05)


def http_teacher(url: str, **changes: Any) -> HttpTeacher:
    values = {
        "name": "loopback",
        "model": "m",
        "base_url": url,
        "api_key_env": None,
        "max_tokens": 40,
        "temperature": 0.0,
        "top_p": None,
        "seed": None,
        "timeout_s": 30.0,  # a busy machine must not turn an answer into a time-out
        "concurrency": 32,
        "start_concurrency": 32,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "token_limit_field": "max_tokens",
        "usd_per_million": {"prompt": 1.0, "completion": 2.0},
    }
    return HttpTeacher(**(values | changes))


def requests(teacher: Any, count: int, text: str = "What is {i} + 1?") -> Iterator[Request]:
    for i in range(count):
        yield Request(model=teacher.model, decoding=teacher.decoding, system="Be brief.", user=text.format(i=i))


def collect(
    teacher: Any, cache: Path, items: Any, plan: Any = answer_once, **settings: Any
) -> tuple[list[Any], Asking]:
    """Run a plan over all items; their results and the engine."""

    async def run() -> tuple[list[Any], Asking]:
        ordered = settings.pop("ordered", True)
        with Cache(cache, settings.pop("ask_again", ())) as opened:
            async with asking(teacher, opened, **({"retry": QUICK} | settings)) as asked:
                return [pair async for pair in asked.map(items, plan, ordered)], asked

    return asyncio.run(run())


def test_every_fault_is_survived_and_order_kept(tmp_path: Path) -> None:
    """Fails if a fault loses, repeats or reorders an answer, or ends the run."""
    faults = Faults(
        rate_limit=0.1,
        error=0.1,
        hang=0.02,
        truncate=0.1,
        malformed=0.1,
        drip=0.02,
        drop=0.1,
        retry_after="0.01",
    )
    with serving(faults) as server:
        teacher = http_teacher(server.url, timeout_s=1.5)
        results, asked = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 150))
        counters = server.counters()
    assert [item.user for item, _ in results] == [f"What is {i} + 1?" for i in range(150)]
    assert all(isinstance(result, Reply) for _, result in results)
    assert counters["unique_answered"] == 150 and counters["repeated_answers"] == 0
    assert set(asked.tally.troubles) == {"rate_limit", "server", "timeout", "connection", "malformed"}
    assert asked.tally.calls == counters["requests"]


def test_second_run_calls_nobody(tmp_path: Path) -> None:
    """Fails if the cache misses in another order, or stores something else than what was returned."""
    with serving() as server:
        teacher = http_teacher(server.url)
        first, _ = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 40))
        before = server.counters()["requests"]
        backwards = list(requests(teacher, 40))[::-1]
        second, asked = collect(teacher, tmp_path / "c.sqlite", backwards)
        assert server.counters()["requests"] == before == 40
    assert [result for _, result in second] == [result for _, result in first][::-1]
    assert asked.tally.replayed == 40 and asked.tally.answered == 0


def test_equal_requests_under_way_are_one_call(tmp_path: Path) -> None:
    """Fails if two items that ask the same pay twice because neither is in the cache yet."""
    with serving(Faults(delay=0.05)) as server:
        teacher = http_teacher(server.url)
        results, _ = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 20, "same"))
        assert server.counters()["requests"] == 1
    assert len({result.text for _, result in results}) == 1 and len(results) == 20


def test_samples_of_one_request_are_several_calls(tmp_path: Path) -> None:
    """Fails if best-of-n gets one answer n times."""
    with serving() as server:
        teacher = http_teacher(server.url, temperature=1.0, seed=7)
        first = next(requests(teacher, 1))
        results, _ = collect(teacher, tmp_path / "c.sqlite", [replace(first, sample=n) for n in range(4)])
        assert server.counters()["requests"] == 4
    assert len({result.text for _, result in results}) == 4


@pytest.mark.parametrize(
    ("word", "kind", "calls_again"),
    [
        ("#too_long", "too_long", False),
        ("#filtered", "filtered", False),
        ("#filter_status", "filtered", False),
        ("#refuse", "refused", False),
        ("#length", "truncated", False),
        ("#empty", "unparsable", False),
        ("#null", "unparsable", False),
        ("#invalid", "invalid", True),
    ],
)
def test_failures_have_kinds(tmp_path: Path, word: str, kind: str, calls_again: bool) -> None:
    """Fails if a failure has the wrong kind, is retried in vain, or is paid for again by the next run."""
    with serving() as server:
        teacher = http_teacher(server.url)
        results, _ = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 3, word + " {i}"))
        assert [result.kind for _, result in results] == [kind] * 3
        assert server.counters()["requests"] == 3
        again, _ = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 3, word + " {i}"))
        assert [result.kind for _, result in again] == [kind] * 3
        assert server.counters()["requests"] == (6 if calls_again else 3)


def test_exhausted_is_asked_anew_by_the_next_run(tmp_path: Path) -> None:
    """Fails if a server that was down for a while leaves its rows failed forever."""
    with serving(Faults(error=1.0)) as server:
        teacher = http_teacher(server.url)
        results, _ = collect(teacher, tmp_path / "c.sqlite", requests(teacher, 2), retry=replace(QUICK, attempts=3))
        assert server.counters()["requests"] == 6
    assert [result.kind for _, result in results] == ["exhausted"] * 2
    with serving() as server:
        results, _ = collect(http_teacher(server.url), tmp_path / "c.sqlite", requests(teacher, 2))
    assert all(isinstance(result, Reply) for _, result in results)


def test_hopeless_server_stops_the_run(tmp_path: Path) -> None:
    """Fails if a wrong setting is paid for row by row: the run must stop early and say why."""
    with serving() as server:
        teacher = http_teacher(server.url)
        with pytest.raises(TeacherError, match="answered none of the first 50"):
            collect(teacher, tmp_path / "c.sqlite", requests(teacher, 1000, "#invalid {i}"))
        assert server.counters()["requests"] < 200
        with pytest.raises(TeacherError, match="insufficient_quota"):
            collect(teacher, tmp_path / "c.sqlite", requests(teacher, 1000, "#quota {i}"))


@pytest.mark.parametrize("cap", ["max_usd", "max_tokens", "max_requests"])
def test_spending_never_passes_a_cap(tmp_path: Path, cap: str) -> None:
    """Fails if concurrency, retries or unseen bills carry spending over a cap, as the server counts it."""
    faults = Faults(
        rate_limit=0.1,
        error=0.05,
        hang=0.01,
        truncate=0.1,
        malformed=0.1,
        drop=0.05,
        delay=0.002,
        retry_after="0.01",
    )
    budget = Budget(**{cap: {"max_usd": 0.1, "max_tokens": 60_000, "max_requests": 300}[cap]})
    with serving(faults) as server:
        teacher = http_teacher(server.url, concurrency=64, start_concurrency=64, timeout_s=1.5)
        answered, spent = 0, []
        for _ in range(2):  # the second run goes on where the first stopped, and must stop at once
            with pytest.raises(BudgetStop, match=cap) as stop:
                collect(teacher, tmp_path / "c.sqlite", requests(teacher, 5000), budget=budget)
            counts = server.counters()
            usd = (counts["prompt_tokens"] + 2 * counts["completion_tokens"]) / 1e6
            tokens = counts["prompt_tokens"] + counts["completion_tokens"]
            used = {"max_usd": usd, "max_tokens": tokens, "max_requests": counts["requests"]}[cap]
            assert used <= getattr(budget, cap)
            said = {"max_usd": stop.value.spending.usd, "max_requests": stop.value.spending.requests}
            assert used <= said.get(cap, stop.value.spending.tokens) <= getattr(budget, cap) + 1e-9
            answered = counts["answered"]
            spent.append(used)
    assert answered > 30 and spent[0] > 0


def test_a_cap_is_used_up(tmp_path: Path) -> None:
    """Fails if reservations are not given back, so that a run stops with most of its money unspent."""
    with serving() as server:
        teacher = http_teacher(server.url, timeout_s=30.0)
        with pytest.raises(BudgetStop) as stop:
            collect(teacher, tmp_path / "c.sqlite", requests(teacher, 5000), budget=Budget(max_tokens=20_000))
        counts = server.counters()
    assert 19_000 < counts["prompt_tokens"] + counts["completion_tokens"] <= 20_000
    assert stop.value.spending.tokens == counts["prompt_tokens"] + counts["completion_tokens"]


def test_finished_items_come_before_the_stop(tmp_path: Path) -> None:
    """Fails if a budget stop swallows answers that were paid for."""

    async def run() -> tuple[list[Any], str]:
        got: list[Any] = []
        with Cache(tmp_path / "c.sqlite") as cache, serving() as server:
            teacher = http_teacher(server.url)
            async with asking(teacher, cache, Budget(max_requests=25), retry=QUICK) as asked:
                try:
                    async for pair in asked.map(requests(teacher, 100), answer_once):
                        got.append(pair)
                except BudgetStop as stop:
                    return got, str(stop)
        raise AssertionError("the run did not stop")

    got, message = asyncio.run(run())
    assert [item.user for item, _ in got] == [f"What is {i} + 1?" for i in range(25)]
    assert "25 requests" in message and "max_requests" in message


def test_unknown_price_with_a_budget_is_refused(tmp_path: Path) -> None:
    """Fails if a cap in USD silently counts every call as free."""
    teacher = http_teacher("http://127.0.0.1:9/v1", usd_per_million={"prompt": None})
    with pytest.raises(ConfigError, match="price of 'm' is not known"):
        collect(teacher, tmp_path / "c.sqlite", [], budget=Budget(max_usd=1.0))


def test_concurrency_adapts_to_the_server(tmp_path: Path) -> None:
    """Fails if the engine does not go down to what the server takes, or does not grow from a careful start."""
    with serving(Faults(delay=0.01, overload_above=8, retry_after="0.01")) as server:
        teacher = http_teacher(server.url, timeout_s=30.0, concurrency=64, start_concurrency=64)
        patient = replace(QUICK, attempts=100)
        _, asked = collect(teacher, tmp_path / "a.sqlite", requests(teacher, 300), retry=patient)
        assert asked.concurrency < 64 and asked.tally.answered == 300
    with serving(Faults(delay=0.01)) as server:
        teacher = http_teacher(server.url, timeout_s=30.0, concurrency=64, start_concurrency=2)
        _, asked = collect(teacher, tmp_path / "b.sqlite", requests(teacher, 300))
        assert asked.concurrency == 64
        assert 8 < server.counters()["most_under_way"] <= 64


def test_plans_of_several_calls(tmp_path: Path) -> None:
    """Fails if a conversation forgets its history, or a plan's finished calls are paid again after a crash."""

    async def note(item: str, ask: Ask) -> tuple[str, ...]:
        first = Request(model=teacher.model, decoding=teacher.decoding, system="You are a doctor.", user="")
        talk = Conversation(ask, first)
        return await talk.say(item), await talk.say("Now write the note.")

    with serving() as server:
        teacher = http_teacher(server.url)
        (pair,), _ = collect(teacher, tmp_path / "c.sqlite", ["My knee hurts."], note)
        assert pair[1][0] != pair[1][1]
        assert server.counters()["requests"] == 2
        # Another plan with the same first call pays for its second call only.
        (pair2,), _ = collect(teacher, tmp_path / "c.sqlite", ["My knee hurts."], _only_first(teacher))
        assert pair2[1] == pair[1][0] and server.counters()["requests"] == 2
        question = next(requests(teacher, 1))
        (checked,), _ = collect(teacher, tmp_path / "c.sqlite", [question], draft_then_check("Check your answer."))
        assert server.counters()["requests"] == 4
        assert checked[1].usage.prompt_tokens > 2 * (len("Be brief.What is 0 + 1?") // 4)
        (failed,), _ = collect(teacher, tmp_path / "c.sqlite", [question], draft_then_check("#refuse"))
        assert isinstance(failed[1], Failure) and failed[1].kind == "refused"
        assert failed[1].usage.prompt_tokens > 0


def _only_first(teacher: Any) -> Any:
    async def plan(item: str, ask: Ask) -> str:
        start = Request(model=teacher.model, decoding=teacher.decoding, system="You are a doctor.", user="")
        return await Conversation(ask, start).say(item)

    return plan


def test_items_are_taken_as_needed(tmp_path: Path) -> None:
    """Fails if an endless stream of items is read ahead: memory must not grow with their number."""
    taken = 0

    async def run() -> int:
        nonlocal taken

        def endless() -> Iterator[Request]:
            nonlocal taken
            while True:
                taken += 1
                yield from requests(teacher, 1, f"number {taken} {{i}}")

        with Cache(tmp_path / "c.sqlite") as cache, serving() as server:
            teacher = http_teacher(server.url, concurrency=8, start_concurrency=8)
            async with asking(teacher, cache) as asked:
                results = asked.map(endless(), answer_once, ordered=False)
                got = [await anext(results) for _ in range(100)]
                await results.aclose()
        return len({item.user for item, _ in got})

    assert asyncio.run(run()) == 100
    assert taken <= 100 + 2 * 8


CHILD = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    from test_engine import *
    async def main():
        teacher = http_teacher({url!r}, timeout_s=600.0, concurrency=64, start_concurrency=64)
        with Cache({cache!r}) as cache:
            async with asking(teacher, cache, retry=QUICK) as asked:
                async for item, result in asked.map(requests(teacher, {count}), answer_once):
                    assert isinstance(result, Reply)
    asyncio.run(main())
"""


def test_kill_and_resume_pays_each_request_once(tmp_path: Path) -> None:
    """Fails if an answer that was delivered is lost with the process that got it.

    The server stops answering at half, so that the kill meets calls that are open but none whose answer is on the
    way: those could be paid twice, and no client could help it.
    """
    count, half = 600, 300
    with serving(Faults(freeze_after=half, delay=0.002)) as server:
        values = {
            "tests": str(Path(__file__).parent),
            "url": server.url,
            "cache": str(tmp_path / "c.sqlite"),
            "count": count,
        }
        code = textwrap.dedent(CHILD).format(**values)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        child = subprocess.Popen([sys.executable, "-c", code], env=environment)
        try:
            _wait_for(lambda: server.counters()["answered"] >= half and server.counters()["under_way"] >= 64, child)
            time.sleep(0.3)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        answered = server.counters()["answered"]
        assert half <= answered < count
        _wait_for(lambda: server.counters()["under_way"] == 0 or setattr(server, "thawed", True), None)
        with Cache(tmp_path / "c.sqlite") as cache:
            assert len(cache) == answered
        teacher = http_teacher(server.url, timeout_s=30.0)
        results, asked = collect(teacher, tmp_path / "c.sqlite", requests(teacher, count))
        counters = server.counters()
    assert len(results) == count and all(isinstance(result, Reply) for _, result in results)
    assert asked.tally.replayed == answered
    assert counters["unique_answered"] == count
    assert counters["repeated_answers"] == 0
    # The budget remembers the calls that died unsettled, at their worst.
    assert asked.spending.unsure_requests == 64
    assert asked.spending.requests == count + 64


def _wait_for(condition: Any, child: Any) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert child is None or child.poll() is None, "the child ended early"
        time.sleep(0.02)


def test_price_counts_cached_tokens() -> None:
    """Fails if prompt tokens from the provider's prefix cache are billed at the full price."""
    from orca2.serving.outcomes import Usage

    usage = Usage(prompt_tokens=1_000_000, completion_tokens=500_000, cached_tokens=400_000)
    assert Price(prompt=2.0, completion=8.0, cached_prompt=1.0).usd(usage) == pytest.approx(1.2 + 0.4 + 4.0)
    assert Price(prompt=2.0, completion=8.0).scaled(0.5).usd(usage) == pytest.approx(3.0)
