"""Caps on what a run may spend, kept by reserving the worst case of a call before it is sent.

    cap   |■■■■■■■■ settled ■■■■■■■■|▒▒ reserved: calls under way ▒▒|   free   |
                                          │ call ends: its reservation becomes what it took
    a call that does not fit waits while others are under way; when none is, the run stops

The worst case of a call is one token per byte of the prompt, the chat template's own tokens, and max_tokens.
No byte-level tokenizer makes more tokens than bytes, so spending cannot pass a cap, whatever the concurrency.
A call that may have been billed unseen (time-out, broken connection, killed process) counts in full. Every
call is in the cache's `calls` table before it is sent, so a cap covers all processes that work one after the
other on the same run.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from typing_extensions import override

from orca2.asking.cache import Cache, CallState
from orca2.asking.requests import Request
from orca2.errors import ConfigError, Orca2Error
from orca2.serving.outcomes import Usage

TEMPLATE_TOKENS = 256
"""Tokens that a chat template may add to a call beyond its messages (ours; Llama 3.1's adds about 30, Qwen
2.5's about 20)."""
TEMPLATE_TOKENS_PER_MESSAGE = 16
"""Markup around each message (ours; ChatML takes 5)."""
BYTES_PER_TOKEN = 3.0
"""Ours, for a typical prompt (English takes about 4). Only for rate limits and estimates, never for caps."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million tokens.

    Raises:
        ConfigError: a negative price.
    """

    prompt: float
    completion: float
    cached_prompt: float | None = None
    """Price of prompt tokens in the provider's prefix cache; None: the same as `prompt`."""

    def __post_init__(self) -> None:
        for name in ("prompt", "completion", "cached_prompt"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"price {name} is {value!r}; give USD per million tokens, at least 0")

    def usd(self, usage: Usage) -> float:
        """The price of a call."""
        cached_price = self.prompt if self.cached_prompt is None else self.cached_prompt
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        full = (usage.prompt_tokens - cached) * self.prompt + cached * cached_price
        return (full + usage.completion_tokens * self.completion) / MILLION

    def scaled(self, factor: float) -> "Price":
        """The price under a discount, such as a batch service's."""
        cached = None if self.cached_prompt is None else self.cached_prompt * factor
        return Price(prompt=self.prompt * factor, completion=self.completion * factor, cached_prompt=cached)


FREE = Price(prompt=0.0, completion=0.0)


def price_of(usd_per_million: Mapping[str, float | None]) -> Price | None:
    """A teacher's price from its setting; None where none is given. Raises ConfigError for half a price."""
    given = {name: value for name, value in usd_per_million.items() if value is not None}
    if not given:
        return None
    try:
        return Price(**given)
    except TypeError as error:
        raise ConfigError(
            f"usd_per_million is {given}; give `prompt` and `completion`, and `cached_prompt` where it differs"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Caps on a run; None is not a cap.

    Raises:
        ConfigError: a cap that is not above 0.
    """

    max_usd: float | None = None
    max_tokens: int | None = None
    """Prompt and completion tokens together."""
    max_requests: int | None = None
    """Calls sent, those that failed included."""

    def __post_init__(self) -> None:
        for name in ("max_usd", "max_tokens", "max_requests"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value!r}; give a cap above 0, or null for none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a run has taken, over all processes that worked on it."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    unsure_requests: int = 0
    """How many of `requests` were perhaps billed; their worst case is in `tokens` and `usd`."""

    def for_requests(self, requests: int, ended: int) -> "Spending":
        """What this many requests would take where `ended` ones, with all their calls, have taken this."""
        share = requests / ended if ended else 0.0
        return Spending(requests=requests, tokens=round(self.tokens * share), usd=self.usd * share)

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __sub__(self, other: "Spending") -> "Spending":
        return Spending(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})

    def told(self, price_known: bool) -> str:
        """The spending for people."""
        unsure = f" ({self.unsure_requests:,} of them counted at their worst)" if self.unsure_requests else ""
        usd = f"{self.usd:.4f} USD" if price_known else "price unknown"
        return f"{self.requests:,} requests{unsure}, {self.tokens:,} tokens, {usd}"

    @override
    def __str__(self) -> str:
        return self.told(price_known=True)


class BudgetStop(Orca2Error):
    """The next call could pass a cap. All answers so far are in the cache."""

    def __init__(self, message: str, spending: Spending) -> None:
        super().__init__(message)
        self.spending = spending


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room set aside for one call."""

    number: int
    """The call's row in the cache."""
    worst: Usage


def worst_case(request: Request) -> Usage:
    """The most tokens that a call can take."""
    template = TEMPLATE_TOKENS + TEMPLATE_TOKENS_PER_MESSAGE * len(request.messages)
    return Usage(prompt_tokens=request.prompt_bytes + template, completion_tokens=request.decoding.max_tokens)


def expected_prompt_tokens(request: Request) -> int:
    """A guess by the prompt's length."""
    return round(request.prompt_bytes / BYTES_PER_TOKEN)


def expected_tokens(request: Request) -> float:
    """What a rate limit is charged before a call's usage is known; providers, too, charge max_tokens at first."""
    return expected_prompt_tokens(request) + request.decoding.max_tokens


def check_price(budget: "Budget", price: Price | None, model: str) -> None:
    """Raises ConfigError for a cap in USD on a model whose price is not known."""
    if budget.max_usd is not None and price is None:
        raise ConfigError(
            f"max_usd={budget.max_usd} cannot be kept: the price of {model!r} is not known; give its "
            "usd_per_million.prompt and usd_per_million.completion, or cap max_tokens or max_requests instead"
        )


class Purse:
    """Guards one run's budget in one event loop. A cap in USD needs a price: see `check_price`."""

    def __init__(self, budget: Budget, price: Price | None, cache: Cache, run: str) -> None:
        self._budget, self._price, self._cache, self.run = budget, price, cache, run
        self._spent = spending_of(cache, [run])
        self._reserved = Spending()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stop: BudgetStop | None = None

    @property
    def spending(self) -> Spending:
        """Settled spending of the run, without the calls under way."""
        return self._spent

    async def reserve(self, request: Request) -> Reservation:
        """Set the worst case of a call aside and note the call; waits while others may give room back.

        Raises:
            BudgetStop: the call does not fit and none is under way. Every later call raises it too.
        """
        worst = worst_case(request)
        cost = self._cost(worst)
        while True:
            if self._stop is not None:
                raise self._stop
            passed = self._cap_passed(cost)
            if passed is None:
                break
            if self._reserved.requests == 0:
                self._stop = BudgetStop(self._message(passed), self._spent)
                self._wake()
                raise self._stop
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._reserved = self._reserved + cost
        usd = None if self._price is None else cost.usd
        return Reservation(self._cache.open_call(self.run, request.key, worst, usd), worst)

    def settle(self, reservation: Reservation, usage: Usage | None) -> None:
        """Replace a reservation by what the call took; None, where nobody knows, counts the worst case."""
        state: CallState = "unsure" if usage is None else "known"
        took = reservation.worst if usage is None else usage
        cost = self._cost(took)
        if usage is None:
            cost = replace(cost, unsure_requests=1)
        self._cache.settle_call(reservation.number, state, took, None if self._price is None else cost.usd)
        self._spent = self._spent + cost
        reserved = self._cost(reservation.worst)
        self._reserved = Spending(
            requests=self._reserved.requests - 1,
            tokens=self._reserved.tokens - reserved.tokens,
            usd=self._reserved.usd - reserved.usd if self._reserved.requests > 1 else 0.0,
        )
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def _cost(self, usage: Usage) -> Spending:
        usd = 0.0 if self._price is None else self._price.usd(usage)
        return Spending(requests=1, tokens=usage.prompt_tokens + usage.completion_tokens, usd=usd)

    def _cap_passed(self, cost: Spending) -> str | None:
        total = self._spent + self._reserved + cost
        for cap, value in (
            ("max_usd", total.usd),
            ("max_tokens", total.tokens),
            ("max_requests", total.requests),
        ):
            limit = getattr(self._budget, cap)
            if limit is not None and value > limit:
                return cap
        return None

    def _message(self, cap: str) -> str:
        return (
            f"stopped before {cap}={getattr(self._budget, cap)} could be passed; taken so far: "
            f"{self._spent}; all answers are kept, run the same command with a higher {cap} to go on"
        )


def spending_of(cache: Cache, runs: Iterable[str]) -> Spending:
    """What these runs have taken; calls that a dead process never settled count at their worst."""
    total = Spending()
    for run in runs:
        for state, (requests, prompt, completion, usd) in cache.calls(run).items():
            unsure = 0 if state == "known" else requests
            part = Spending(requests=requests, tokens=prompt + completion, usd=usd, unsure_requests=unsure)
            total = total + part
    return total
