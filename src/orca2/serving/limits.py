"""How many calls are under way, and how fast they start: adaptive concurrency with rate limits.

    calls under way
      128 |              ╱╲    ╱|               grows by one per answer up to the first complaint,
       64 |        ╱ ╱╲╱  ╲╱╱  |               then by one per `limit` answers; a complaint (429, time-out)
        8 |  ╱╱╱               └ Retry-After   cuts it to 3/4, once for all calls under way together
          +--------------------------------▶ time

Requests and tokens per minute are token buckets that refill evenly, so a minute's worth is never sent
at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orca2.errors import ConfigError

CUT = 0.75
"""What a complaint leaves of the concurrency; NeMo Data Designer cuts by the same quarter."""
BURST_SECONDS = 1.0
"""How much of a minute's allowance may be used at once (ours)."""
LONGEST_PAUSE = 600.0
"""Seconds; a longer Retry-After is cut to this, and the call is tried again then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a teacher's server allows.

    Raises:
        ConfigError: a value below 1, or a start above the most.
    """

    concurrency: int
    """Most calls under way."""
    start: int | None = None
    """Calls under way at the beginning; None: the most, for teachers that never complain."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "start", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; give at least 1, or null for none")
        if self.start is not None and self.start > self.concurrency:
            raise ConfigError(f"start is {self.start}, above concurrency={self.concurrency}; lower it")


class Bucket:
    """A token bucket; what is taken beyond its content is owed, and waited for by the taker."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float]) -> None:
        self._rate = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._burst = 0.0 if self._rate is None else max(1.0, self._rate * BURST_SECONDS)
        self._content, self._filled = self._burst, clock()

    def take(self, amount: float) -> float:
        """Take an amount; returns the seconds to wait before using it."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        self._content = min(self._burst, self._content + (now - self._filled) * self._rate) - amount
        self._filled = now
        return max(0.0, -self._content / self._rate)

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used; a negative amount takes more without waiting."""
        self._content += amount


class Gate:
    """Lets calls start. One per opened teacher, used in one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = limits.concurrency
        self._limit = float(limits.concurrency if limits.start is None else limits.start)
        self._growing = True
        self._clock = clock
        self._requests = Bucket(limits.requests_per_minute, clock)
        self._tokens = Bucket(limits.tokens_per_minute, clock)
        self._under_way = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._last_cut = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be under way now."""
        return int(self._limit)

    @property
    def under_way(self) -> int:
        """Calls that are under way now."""
        return self._under_way

    @asynccontextmanager
    async def call(self, tokens: float) -> AsyncIterator["Passage"]:
        """Wait for one's turn, then hold a place until the call ends; `tokens`: what it will probably take."""
        await self._turn()
        try:
            delay = max(self._requests.take(1), self._tokens.take(tokens))
            while (wait := max(delay, self._paused_until - self._clock())) > 0:
                await asyncio.sleep(wait)
                delay = 0.0
            yield Passage(self, self._clock(), tokens)
        finally:
            self._under_way -= 1
            self._admit()

    async def _turn(self) -> None:
        if self._under_way < self.limit and not self._queue:
            self._under_way += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._under_way -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._queue and self._under_way < self.limit:
            turn = self._queue.popleft()
            if not turn.done():
                self._under_way += 1
                turn.set_result(None)

    def answered(self, tokens_left: float) -> None:
        """A call succeeded and took `tokens_left` fewer tokens than expected: room for more calls."""
        self._tokens.give_back(tokens_left)
        self._limit = min(float(self._most), self._limit + (1.0 if self._growing else 1.0 / self._limit))
        self._admit()

    def complained(self, started: float, retry_after: float | None) -> None:
        """The server is overloaded: fewer calls, and none at all before it asked to be called again."""
        if retry_after is not None:
            pause = min(max(retry_after, 0.0), LONGEST_PAUSE)
            self._paused_until = max(self._paused_until, self._clock() + pause)
        # Calls that were sent before the last cut complain of the old concurrency.
        if started >= self._last_cut:
            self._limit = max(1.0, self._limit * CUT)
            self._last_cut = self._clock()
            self._growing = False


@dataclass(frozen=True, slots=True)
class Passage:
    """A place in the gate, held by one call."""

    gate: Gate
    started: float
    tokens: float

    def answered(self, tokens: float) -> None:
        """The call succeeded and took this many tokens."""
        self.gate.answered(self.tokens - tokens)

    def complained(self, retry_after: float | None) -> None:
        """The server complained of the load."""
        self.gate.complained(self.started, retry_after)
