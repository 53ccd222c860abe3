"""Collects single requests into batches, for teachers that answer many at once.

answer(a) ─┐
answer(b) ─┼─▶ size reached, or none came for a while ─▶ run([a, b, c]) ─▶ each caller gets its own outcome
answer(c) ─┘
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from orca2.asking.requests import Request, TeacherError
from orca2.serving.outcomes import Failure, Reply, Trouble

Outcome = Reply | Failure | Trouble | TeacherError
"""A TeacherError is raised to the caller of its request; the other requests of the batch keep their outcomes."""
Run = Callable[[Sequence[Request]], Awaitable[Sequence[Outcome]]]


class Gathering:
    """Batches of at most `size` requests; a smaller one leaves after `linger` quiet seconds."""

    def __init__(self, run: Run, size: int, linger: float) -> None:
        self._run, self._size, self._linger = run, size, linger
        self._waiting: list[tuple[Request, asyncio.Future[Reply | Failure | Trouble]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def answer(self, request: Request) -> Reply | Failure | Trouble:
        """The request's outcome. Raises what its batch raises."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Reply | Failure | Trouble] = loop.create_future()
        self._waiting.append((request, outcome))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if len(self._waiting) >= self._size else loop.call_later(self._linger, self._start)
        if self._timer is None:
            self._start()
        return await outcome

    async def close(self) -> None:
        """Give up what is waiting or running."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self) -> None:
        batch, self._waiting, self._timer = self._waiting, [], None
        # A caller that was cancelled needs no answer.
        batch = [(request, outcome) for request, outcome in batch if not outcome.done()]
        if batch:
            task = asyncio.get_running_loop().create_task(self._serve(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _serve(self, batch: list[tuple[Request, Any]]) -> None:
        try:
            outcomes = await self._run([request for request, _ in batch])
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, TeacherError):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)


def in_thread(answer_all: Callable[[Sequence[Request]], Sequence[Outcome]]) -> Run:
    """A `Run` that calls a blocking function in a thread, one batch at a time."""
    lock = asyncio.Lock()

    async def run(requests: Sequence[Request]) -> Sequence[Outcome]:
        async with lock:
            return await asyncio.to_thread(answer_all, requests)

    return run
