"""The gate: never more calls than allowed, rates kept, complaints heeded once."""

import asyncio

import pytest

from orca2.errors import ConfigError
from orca2.serving.limits import Bucket, Gate, Limits
from orca2.serving.retries import Retry


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_bucket_refills_evenly() -> None:
    """Fails if a minute's allowance can be sent at once, or a wait is too short."""
    clock = Clock()
    bucket = Bucket(600, clock)  # 10 a second, of which one second's worth at once
    assert [bucket.take(5), bucket.take(5)] == [0.0, 0.0]
    assert bucket.take(5) == pytest.approx(0.5)
    assert bucket.take(10) == pytest.approx(1.5)
    clock.now += 2.0
    assert bucket.take(5) == 0.0
    clock.now += 3600.0
    assert bucket.take(10) == 0.0 and bucket.take(1) == pytest.approx(0.1)
    assert Bucket(None, clock).take(10**9) == 0.0


def test_unused_tokens_are_given_back() -> None:
    """Fails if calls are charged their worst case forever, so that a tenth of the rate is used."""
    bucket = Bucket(60, Clock())
    assert bucket.take(1) == 0.0
    bucket.give_back(1)
    assert bucket.take(1) == 0.0 and bucket.take(1) == pytest.approx(1.0)


def test_burst_of_complaints_cuts_once() -> None:
    """Fails if 64 calls that meet one overload together bring the concurrency down to nothing."""
    clock = Clock()
    gate = Gate(Limits(concurrency=64), clock)
    for _ in range(64):
        gate.complained(999.0 if gate.limit < 64 else 1000.0, None)
    assert gate.limit == 48
    clock.now += 5
    gate.complained(1001.0, None)
    assert gate.limit == 36
    for _ in range(10_000):
        gate.answered(0)
    assert gate.limit == 64


def test_growth_is_fast_before_the_first_complaint_and_slow_after() -> None:
    """Fails if a careful start never reaches what the server takes, or overload is provoked again at once."""
    gate = Gate(Limits(concurrency=64, start=4), Clock())
    for _ in range(20):
        gate.answered(0)
    assert gate.limit == 24
    gate.complained(1000.0, None)
    for _ in range(20):
        gate.answered(0)
    assert gate.limit == 19


def test_no_call_starts_before_retry_after() -> None:
    """Fails if one call honours Retry-After while the others go on asking."""

    async def run() -> tuple[float, int]:
        gate = Gate(Limits(concurrency=2))
        loop = asyncio.get_running_loop()
        async with gate.call(1) as passage:
            passage.complained(0.2)
        start, most = loop.time(), 0

        async def call() -> None:
            nonlocal most
            async with gate.call(1):
                assert loop.time() - start >= 0.19
                most = max(most, gate.under_way)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(call() for _ in range(6)))
        return loop.time() - start, most

    waited, most = asyncio.run(run())
    assert waited >= 0.19 and most == 1  # 2 cut by a quarter


def test_cancelled_waiters_free_their_place() -> None:
    """Fails if a plan that is cancelled in the queue takes a place with it, until nobody can call."""

    async def run() -> int:
        gate = Gate(Limits(concurrency=1))

        async def call(seconds: float) -> None:
            async with gate.call(1):
                await asyncio.sleep(seconds)

        holder = asyncio.create_task(call(0.05))
        await asyncio.sleep(0)
        waiters = [asyncio.create_task(call(10)) for _ in range(3)]
        await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(holder, *waiters, return_exceptions=True)
        await asyncio.wait_for(call(0), 5)
        return gate.under_way

    assert asyncio.run(run()) == 0


def test_waits_grow_and_are_the_same_in_every_run() -> None:
    """Fails if calls that failed together come back together, or a Retry-After is undercut."""
    retry = Retry(attempts=5, first_seconds=1.0, longest_seconds=4.0)
    waits = [retry.wait("key", attempt, None) for attempt in (1, 2, 3, 4)]
    assert waits == [retry.wait("key", attempt, None) for attempt in (1, 2, 3, 4)]
    for wait, longest in zip(waits, (1, 2, 4, 4), strict=True):
        assert longest / 2 <= wait <= longest
    assert retry.wait("other", 1, None) != waits[0]
    assert retry.wait("key", 1, 30.0) == 30.0


@pytest.mark.parametrize("values", [{"concurrency": 0}, {"concurrency": 4, "start": 5}, {"concurrency": 4, "start": 0}])
def test_impossible_limits_are_refused(values: dict[str, int]) -> None:
    """Fails if a run hangs because no call may ever start."""
    with pytest.raises(ConfigError):
        Limits(**values)
