"""The engine: runs plans over any number of items against one teacher, and pays for nothing twice.

    items ──▶ plan(item, ask) × window ──▶ results, in the items' order or as they come
                        │ ask(request)
                        ├─ cache has it ───────────────────────────▶ Reply | Failure
                        ├─ the same request is under way ── wait ──▶ its outcome
                        └─ gate ▸ budget ▸ call ▸ settle ▸ store ──▶ Reply | Failure
                              ▲                │ Trouble: back off
                              └────────────────┘

Memory is bounded by the window, whatever the number of items. Retries are a loop of our own and not
`tenacity`: each attempt must pass the gate and the budget again, which a decorator around the call cannot do.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from orca2.asking.budget import Budget, BudgetStop, Purse, Reservation, Spending, check_price, expected_tokens
from orca2.asking.cache import Cache
from orca2.asking.call_plans import Plan
from orca2.asking.model import Model
from orca2.asking.requests import Answer, Failed, Request, TeacherError
from orca2.serving.limits import Gate
from orca2.serving.outcomes import NO_USAGE, Failure, FailureKind, Reply, Trouble, Usage, accepted
from orca2.serving.retries import Retry

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 2
"""Plans under way for each call that may be: enough to hide slow items, little enough to keep in memory."""
FIRST_OUTCOMES = 50
"""The run stops when so many requests have ended without a single answer, for any reasons: further requests would fail
too."""


@dataclass(slots=True)
class Tally:
    """What happened so far, for the progress line and the accounts."""

    answered: int = 0
    """Requests answered by the teacher."""
    replayed: int = 0
    """Requests answered by the cache."""
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)

    @property
    def ended(self) -> int:
        """Requests that went to the teacher and have their outcome."""
        return self.answered + sum(self.failures.values())


class Asking:
    """An opened teacher with its cache, budget and gate. Made by `asking`; used in one event loop."""

    def __init__(
        self,
        teacher: Model,
        answer: Answer,
        cache: Cache,
        purse: Purse,
        retry: Retry,
        evidence: Collection[FailureKind] = (),
    ) -> None:
        self._teacher, self._answer, self._retry, self._evidence = teacher, answer, retry, evidence
        self._cache, self._purse = cache, purse
        self._gate = Gate(teacher.limits)
        self._under_way: dict[str, asyncio.Future[Reply | Failure]] = {}
        self._before = purse.spending
        self._works = False
        self.tally = Tally()

    @property
    def spending(self) -> Spending:
        """What the run has taken, earlier processes included."""
        return self._purse.spending

    @property
    def taken(self) -> Spending:
        """What this process has taken of it."""
        return self._purse.spending - self._before

    @property
    def concurrency(self) -> int:
        """Calls that may be under way now."""
        return self._gate.limit

    async def ask(self, request: Request) -> Reply | Failure:
        """The answer to a request, from the cache or the teacher; stored before it is returned.

        Raises:
            BudgetStop: the call could pass a cap.
            TeacherError: no call can succeed.
        """
        if not self._teacher.cached:
            return _judged(request, await self._call(request))
        key = request.key
        while key in self._under_way:
            shared = self._under_way[key]
            await asyncio.wait([shared])
            # A plan that was cancelled takes its call with it, but not those who waited for the same answer.
            if not shared.cancelled():
                return shared.result()
        stored = self._cache.get(request)
        if stored is not None:
            self.tally.replayed += 1
            judged = _judged(request, stored)
            self._works = self._works or isinstance(judged, Reply)
            return judged
        shared = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            outcome = _judged(request, await self._call(request))
            shared.set_result(outcome)
            return outcome
        except Exception as error:
            shared.set_exception(error)
            shared.exception()  # retrieved, so that asyncio does not report it where nobody waits
            raise
        except BaseException:
            shared.cancel()
            raise
        finally:
            del self._under_way[key]

    async def map(
        self, items: Iterable[Item], plan: Plan[Item, Result], ordered: bool = True, window: int = WINDOW
    ) -> AsyncGenerator[tuple[Item, Result | Failure], None]:
        """Run a plan over each item; yields item and result in the items' order, or as they come.

        `window`: plans under way for each call that may be.

        Raises:
            BudgetStop: a cap was met; every finished item has been yielded before.
            TeacherError, DataError: at once.
        """
        run = _ordered if ordered else _unordered
        stop: BudgetStop | None = None

        async def work(item: Item) -> tuple[Item, Result | Failure]:
            try:
                return item, await plan(item, self.ask)
            except Failed as failed:
                return item, failed.failure

        def until_stop() -> Iterator[Item]:
            for item in items:
                if stop is not None:
                    return
                yield item

        async with contextlib.aclosing(run(until_stop(), work, window * self._teacher.limits.concurrency)) as results:
            async for task in results:
                error = task.exception()
                if isinstance(error, BudgetStop):
                    stop = error
                else:
                    yield task.result()
        if stop is not None:
            raise stop

    async def _call(self, request: Request) -> Reply | Failure:
        key = request.key
        trouble: Trouble | None = None
        for attempt in range(1, self._retry.attempts + 1):
            outcome = await self._attempt(request)
            if not isinstance(outcome, Trouble):
                self._count(request, outcome)
                return outcome
            trouble = outcome
            self.tally.troubles[outcome.kind] += 1
            if attempt < self._retry.attempts:
                await asyncio.sleep(self._retry.wait(key, attempt, outcome.retry_after))
        assert trouble is not None
        failure = Failure(
            kind="exhausted",
            reason=f"{self._retry.attempts} attempts, the last: {trouble.kind}: {trouble.reason}",
        )
        if self._teacher.cached:
            self._cache.put(request, failure)
        self._count(request, failure)
        return failure

    async def _attempt(self, request: Request) -> Reply | Failure | Trouble:
        if not self._teacher.cached:
            self.tally.calls += 1
            return await self._answer(request)
        async with self._gate.call(expected_tokens(request)) as passage:
            reservation = await self._purse.reserve(request)
            self.tally.calls += 1
            outcome: Reply | Failure | Trouble | None = None
            try:
                outcome = await self._answer(request)
            except TeacherError as error:
                outcome = Failure(kind="invalid", reason=str(error))
                raise
            finally:
                # Also after an exception or a cancellation: the server may have answered and billed.
                self._settle(request, reservation, outcome)
            if isinstance(outcome, Trouble):
                if outcome.overload:
                    passage.complained(outcome.retry_after)
            else:
                passage.answered(outcome.usage.prompt_tokens + outcome.usage.completion_tokens)
            return outcome

    def _settle(self, request: Request, reservation: Reservation, outcome: Reply | Failure | Trouble | None) -> None:
        # One transaction: after a crash, answer and price are both known, or the call is still open.
        with self._cache.writing():
            usage: Usage | None = None
            if isinstance(outcome, Reply | Failure):
                self._cache.put(request, outcome)
                usage = outcome.usage if isinstance(outcome, Failure) or outcome.usage_known else None
            elif isinstance(outcome, Trouble):
                usage = outcome.usage if outcome.maybe_paid else NO_USAGE
            self._purse.settle(reservation, usage)

    def _count(self, request: Request, outcome: Reply | Failure) -> None:
        judged = _judged(request, outcome)
        if isinstance(judged, Reply):
            self.tally.answered += 1
            return
        self.tally.failures[judged.kind] += 1
        failures = sum(count for kind, count in self.tally.failures.items() if kind not in self._evidence)
        if self.tally.answered == 0 and failures >= FIRST_OUTCOMES and not self._has_worked():
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.tally.failures.most_common())
            raise TeacherError(
                f"teacher={self._teacher.name} answered none of the first {failures} requests ({kinds}); the last "
                f"failure: {judged.kind}: {judged.reason}"
            )

    def _has_worked(self) -> bool:
        """Whether this run has an answer, of an earlier process, too: what is left may be what cannot be answered."""
        if not self._works:
            replies = self._cache.replies(self._purse.run)
            self._works = any(isinstance(accepted(reply), Reply) for reply in replies)
        return self._works


def _judged(request: Request, outcome: Reply | Failure) -> Reply | Failure:
    return accepted(outcome, request.prompt) if isinstance(outcome, Reply) else outcome


@contextlib.asynccontextmanager
async def asking(
    teacher: Model,
    cache: Cache,
    budget: Budget | None = None,
    run: str = "default",
    retry: Retry | None = None,
    ended: Sequence[str] = (),
    evidence: Collection[FailureKind] = (),
) -> AsyncIterator[Asking]:
    """Open a teacher for one run.

    `run` names what the budget is for; its spending is summed over all processes that worked on it. `ended` are runs
    that will not go on, and whose batch jobs may hold answers to the same requests. `evidence` are failures that tell
    something of the teacher as it is measured, however many: they do not stop the run as those of a useless one do.

    Raises:
        ConfigError: the teacher or the budget cannot be used as configured.
    """
    budget = budget or Budget()
    check_price(budget, teacher.price, teacher.model)
    async with teacher.open(cache, (run, *ended)) as answer:
        # Made now, because opening may have settled calls of earlier processes.
        yield Asking(teacher, answer, cache, Purse(budget, teacher.price, cache, run), retry or Retry(), evidence)


async def _ordered(items: Iterator[Any], work: Any, window: int) -> AsyncGenerator[asyncio.Task[Any], None]:
    tasks: deque[asyncio.Task[Any]] = deque()
    try:
        for item in items:
            tasks.append(asyncio.ensure_future(work(item)))
            if len(tasks) >= window:
                await asyncio.wait([tasks[0]])
                while tasks and tasks[0].done():
                    yield tasks.popleft()
        while tasks:
            await asyncio.wait([tasks[0]])
            yield tasks.popleft()
    finally:
        await _cancelled(tasks)


async def _unordered(items: Iterator[Any], work: Any, window: int) -> AsyncGenerator[asyncio.Task[Any], None]:
    tasks: set[asyncio.Task[Any]] = set()
    finished: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    try:
        for item in items:
            task = asyncio.ensure_future(work(item))
            tasks.add(task)
            task.add_done_callback(finished.put_nowait)
            if len(tasks) >= window:
                task = await finished.get()
                tasks.discard(task)
                yield task
        while tasks:
            task = await finished.get()
            tasks.discard(task)
            yield task
    finally:
        await _cancelled(tasks)


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    left = list(tasks)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
