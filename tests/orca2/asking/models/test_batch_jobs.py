"""Batch jobs: their answers are shared, they survive their process, and no process disturbs another's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from orca2.asking.budget import worst_case
from orca2.asking.cache import Cache
from orca2.asking.engine import asking
from orca2.asking.models import batch
from orca2.asking.models.batch import BatchTeacher
from orca2.asking.requests import Request, TeacherError
from orca2.serving.outcomes import Failure, Reply
from tests.loopback import server as loopback
from tests.orca2.asking import test_engine as engine

collect, http_teacher, requests = engine.collect, engine.http_teacher, engine.requests


def batch_teacher(url: str, **changes: Any) -> BatchTeacher:
    values: dict[str, Any] = {
        "name": "batch", "model": "m", "base_url": url, "api_key_env": None, "max_tokens": 40, "temperature": 0.0,
        "top_p": None, "seed": None, "token_limit_field": "max_tokens", "batch_size": 50, "jobs": 2, "poll_s": 0.02,
        "linger_s": 0.05, "usd_per_million": {"prompt": 1.0, "completion": 2.0}, "batch_factor": 0.5,
    }  # fmt: skip
    return BatchTeacher(**(values | changes))


def test_batch_and_online_share_the_cache(tmp_path: Path) -> None:
    """Fails if an answer from a batch job is bought again online, or is not joined to its request."""
    with loopback.serving(loopback.Faults(batch_expires=0.2)) as server:
        teacher = batch_teacher(server.url)
        asked = [*requests(teacher, 120), *requests(teacher, 2, "#length {i}"), *requests(teacher, 2, "#too_long {i}")]
        results, engine_ = collect(teacher, tmp_path / "c.sqlite", asked)
        assert [item for item, _ in results] == asked
        assert [getattr(r, "kind", "reply") for _, r in results[-4:]] == ["truncated"] * 2 + ["too_long"] * 2
        counters = server.counters()
        assert counters["repeated_answers"] == 0 and counters["batches"] >= 3 and counters["requests"] == 0
        online, _ = collect(http_teacher(server.url), tmp_path / "c.sqlite", asked)
        assert online == results and server.counters()["requests"] == 0
        assert engine_.spending.usd == pytest.approx(billed(server)) and billed(server) > 0


def test_batch_job_survives_its_process(tmp_path: Path) -> None:
    """Fails if a job that runs at the provider is created again after a crash, with or without its id stored."""

    async def abandon(teacher: BatchTeacher, asked: list[Request]) -> None:
        with Cache(tmp_path / "c.sqlite") as cache:
            async with asking(teacher, cache) as engine_:
                plan = engine_.map(asked, engine.answer_once)
                task = asyncio.ensure_future(anext(plan))
                while server.counters()["batches"] == 0:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    for forget_id in (False, True):
        with loopback.serving(loopback.Faults(batch_seconds=1.0)) as server:
            teacher = batch_teacher(server.url)
            asked = list(requests(teacher, 20, f"{forget_id} {{i}}"))
            asyncio.run(abandon(teacher, asked))
            with Cache(tmp_path / "c.sqlite") as cache:
                (token,) = cache.batches(["default"])
                if forget_id:
                    cache._db.execute("UPDATE batches SET id = NULL")
                before = cache.calls("default")["known"][3] if "known" in cache.calls("default") else 0.0
            results, engine_ = collect(teacher, tmp_path / "c.sqlite", asked)
            assert all(isinstance(result, Reply) for _, result in results) and len(results) == 20
            assert server.counters()["batches"] == 1 and server.counters()["answered"] == 20
            assert engine_.spending.usd == pytest.approx(before + billed(server))
            assert engine_.spending.unsure_requests == 0
        with Cache(tmp_path / "c.sqlite") as cache:
            assert cache.batches(["default"]) == {} and token


def billed(server: Any) -> float:
    counters = server.counters()
    return float((counters["prompt_tokens"] + 2 * counters["completion_tokens"]) / 1e6 * 0.5)


def test_a_process_that_starts_leaves_the_jobs_of_a_living_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a rank forgets the job that another one is just creating: its answers would be bought twice."""
    uploading = asyncio.Event()

    async def slow_upload(service: Any, content: Any) -> str:
        id = await upload(service, content)
        if service._run.startswith("d/0"):
            uploading.set()
            await asyncio.sleep(1.0)
        return str(id)

    upload = batch._Service._upload
    monkeypatch.setattr(batch._Service, "_upload", slow_upload)

    async def rank(number: int) -> float:
        # With a connection of its own, as a process has.
        with Cache(tmp_path / "c.sqlite") as cache:
            async with asking(teacher, cache, run=f"d/{number}-of-2", retry=engine.QUICK) as engine_:
                asked = requests(teacher, 20, f"{number} {{i}}")
                results = [result async for _, result in engine_.map(asked, engine.answer_once)]
            assert len(results) == 20 and all(isinstance(result, Reply) for result in results)
            return engine_.spending.usd

    async def both() -> float:
        first = asyncio.create_task(rank(0))
        await uploading.wait()
        second = await rank(1)
        assert not first.done()
        return await first + second

    with loopback.serving() as server:
        teacher = batch_teacher(server.url)
        spent = asyncio.run(both())
        assert server.counters()["answered"] == server.counters()["unique_answered"] == 40
        assert spent == pytest.approx(billed(server))


def test_one_hopeless_line_costs_no_answers(tmp_path: Path) -> None:
    """Fails if a line that ends the run takes the paid answers of its job along, or blocks every later start."""
    with loopback.serving(loopback.Faults()) as server:
        teacher = batch_teacher(server.url)
        asked = list(requests(teacher, 20))
        with pytest.raises(TeacherError, match="insufficient_quota"):
            collect(teacher, tmp_path / "c.sqlite", [*asked, *requests(teacher, 1, "#quota")])
        results, engine_ = collect(teacher, tmp_path / "c.sqlite", asked)
        assert all(isinstance(result, Reply) for _, result in results)
        assert server.counters()["batches"] == 1 and engine_.tally.replayed == 20
        assert engine_.spending.usd == pytest.approx(billed(server)) and engine_.spending.unsure_requests == 0


def test_odd_result_lines_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fails if a second answer takes the place of the first in silence, or a broken line loses its request."""
    with loopback.serving() as server:
        teacher = batch_teacher(server.url)
        asked = [*requests(teacher, 3), *requests(teacher, 2, "#twice {i}"), *requests(teacher, 1, "#foreign")]
        results, _ = collect(teacher, tmp_path / "c.sqlite", asked)
        assert all(isinstance(result, Reply) and "again" not in result.text for _, result in results)
        twice = [request.key for request in asked[3:5]]
        assert "2 lines have an id that came before; the first answer is kept" in caplog.text
        assert all(key in caplog.text for key in twice)
        assert "1 lines have an id that was not asked for: nobody" in caplog.text and len(results) == 6
        caplog.clear()
        broken = list(requests(teacher, 1, "#broken_line"))
        ((_, result),), _ = collect(teacher, tmp_path / "c.sqlite", broken, retry=replace(engine.QUICK, attempts=2))
        assert isinstance(result, Failure) and result.kind == "exhausted"
        assert "1 lines are not results; their requests are asked again" in caplog.text


def test_a_job_that_nobody_counted_counts_at_its_worst(tmp_path: Path) -> None:
    """Fails if an answer without usage costs nothing, or is thrown away."""
    with loopback.serving(loopback.Faults(batch_usage=False)) as server:
        teacher = batch_teacher(server.url)
        asked = list(requests(teacher, 5))
        results, engine_ = collect(teacher, tmp_path / "c.sqlite", asked)
        assert all(isinstance(result, Reply) for _, result in results) and server.counters()["batches"] == 1
    worst = [worst_case(request) for request in asked]
    assert engine_.spending.unsure_requests == 5
    assert engine_.spending.tokens == sum(one.prompt_tokens + one.completion_tokens for one in worst)


def test_a_job_that_may_exist_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a job that was heard, but never answered, is forgotten: it is bought twice, and counted once."""
    down = batch.CALLS_TO_THE_SERVICE
    open_client, find = batch.open_client, batch._Service._find_once

    def cut() -> None:
        nonlocal down
        down -= 1
        raise openai.APIConnectionError(request=httpx.Request("POST", server.url))

    @contextlib.asynccontextmanager
    async def client(*settings: Any) -> AsyncIterator[Any]:
        async with open_client(*settings) as real:
            create = real.batches.create

            async def heard(**named: Any) -> Any:
                job = await create(**named)
                return job if not down else cut()

            monkeypatch.setattr(real.batches, "create", heard)
            yield real

    async def listed(service: Any, token: str) -> str | None:
        if down and server.counters()["batches"]:
            cut()
        return await find(service, token)

    monkeypatch.setattr(batch, "open_client", client)
    monkeypatch.setattr(batch._Service, "_find_once", listed)
    with loopback.serving() as server:
        teacher = batch_teacher(server.url)
        asked = list(requests(teacher, 20))
        with pytest.raises(TeacherError, match="nobody knows whether the provider took a job of 20 requests"):
            collect(teacher, tmp_path / "c.sqlite", asked)
        assert down == 0
        results, engine_ = collect(teacher, tmp_path / "c.sqlite", asked)
        assert len(results) == 20 and all(isinstance(result, Reply) for _, result in results)
        assert server.counters()["batches"] == 1 and server.counters()["answered"] == 20
        assert engine_.spending.usd == pytest.approx(billed(server))
