"""What a synthesis will take, told before anything is sent.

requests   those that the cache does not hold, once per item; best-of-n may ask up to n times
tokens     prompts by their length in bytes, answers as long as those in the cache or as EXPECTED_ANSWER
at most    every request at the worst case that the budget reserves
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orca2.asking.budget import FREE, Price, expected_prompt_tokens, worst_case
from orca2.asking.cache import Cache
from orca2.asking.model import Model
from orca2.asking.requests import Request
from orca2.errors import DataError
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Usage
from orca2.synthesis.answering import AskedItem, request_of
from orca2.synthesis.instructions import Calls

EXPECTED_ANSWER = 300
"""Tokens of an answer that shows its reasoning, where no answer has been seen yet; ours."""
CALLS: dict[Calls, int] = {"one": 1, "draft_then_check": 2, "conversation_then_note": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The requests that are left, at the first sample of each item."""

    read: int
    """Rows of the tasks, those included that will not be asked."""
    items: int
    requests: int
    cached: int
    """Requests that were answered before and cost nothing."""
    expected: Usage
    worst: Usage
    samples: int
    """Most answers per item."""

    def usd(self, price: Price | None, worst: bool = False) -> float | None:
        """The price of the requests; None if the teacher's price is not known."""
        return None if price is None else price.usd(self.worst if worst else self.expected)

    def hours(self, limits: Limits) -> float | None:
        """The least time that the rate limits allow; None without limits."""
        minutes = [
            amount / per_minute
            for amount, per_minute in (
                (self.requests, limits.requests_per_minute),
                (self.expected.prompt_tokens + self.expected.completion_tokens, limits.tokens_per_minute),
            )
            if per_minute is not None
        ]
        return max(minutes) / 60 if minutes else None

    def lines(self, teacher: Model, what: str = "items") -> list[str]:
        """The estimate in words; `what` was counted as items."""
        usd, most = self.usd(teacher.price), self.usd(teacher.price, worst=True)
        hours = self.hours(teacher.limits)
        expected, worst = _tokens(self.expected), _tokens(self.worst)
        at_most = "" if teacher.price == FREE else f" (at most {worst:,})"  # without a price it bounds nothing
        price = "price unknown" if usd is None or most is None else f"{usd:,.2f} USD (at most {most:,.2f})"
        lines = [
            f"estimate for {self.items:,} {what}: {self.requests:,} requests of teacher {teacher.name}, "
            f"{self.cached:,} more are in the cache",
            f"  about {expected:,} tokens{at_most}, {price}",
            f"  at least {hours:,.2f} hours at the rate limit" if hours is not None else "  no rate limit is set",
        ]
        if self.samples > 1:
            lines.append(f"  for the first answer of each item; verification asks for up to {self.samples}")
        return lines


def estimate(
    asked: Iterable[AskedItem], teacher: Model, cache: Cache, samples: int, counts: Mapping[str, int]
) -> Estimate:
    """Go over all items without sending anything; an item that cannot be sent counts as none.

    `counts["read"]` is, at the end, the number of rows behind `asked`.
    """
    answer = min(cache.mean_answer_tokens() or EXPECTED_ANSWER, teacher.decoding.max_tokens)
    items = requests = cached = 0
    expected = worst = Usage(prompt_tokens=0, completion_tokens=0)
    for one in asked:
        try:
            request = request_of(one, teacher)
        except DataError:
            continue
        items += 1
        calls = CALLS[one.instruction.calls]
        if cache.get(request) is not None:
            # The first call of a plan stands for all of its calls: the later ones depend on its answer.
            cached += calls
            continue
        requests += calls
        for call in range(calls):
            expected += _expected(request, answer, call)
            worst += _worst(request, call)
    return Estimate(
        read=counts["read"],
        items=items,
        requests=requests,
        cached=cached,
        expected=expected,
        worst=worst,
        samples=samples,
    )


def _expected(request: Request, answer: int, call: int) -> Usage:
    # A second call repeats the first one's prompt and answer.
    return Usage(prompt_tokens=expected_prompt_tokens(request) + call * answer, completion_tokens=answer)


def _worst(request: Request, call: int) -> Usage:
    worst = worst_case(request)
    return worst + Usage(prompt_tokens=call * request.decoding.max_tokens, completion_tokens=0)


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
