"""The budget: the worst case is reserved, waits where it must, and is remembered."""

import asyncio
from pathlib import Path

import pytest

from orca2.asking.budget import Budget, BudgetStop, Price, Purse, Spending, price_of, worst_case
from orca2.asking.cache import Cache
from orca2.asking.requests import Decoding, Request
from orca2.errors import ConfigError
from orca2.serving.outcomes import Usage

ASKED = Request(model="m", decoding=Decoding(max_tokens=100), system="", user="x" * 28)
WORST = 28 + 256 + 16 + 100
"""Bytes, template, one message's markup, answer."""


def test_worst_case_is_a_token_per_byte() -> None:
    """Fails if a script with several tokens per character can pass a cap."""
    assert worst_case(ASKED) == Usage(prompt_tokens=300, completion_tokens=100)
    wide = Request(model="m", decoding=Decoding(max_tokens=1), system="", user="ﷺ" * 100)
    assert worst_case(wide).prompt_tokens >= 300


def test_a_call_that_does_not_fit_waits_for_others(tmp_path: Path) -> None:
    """Fails if a run stops although calls under way will give most of their reservation back."""

    async def run() -> None:
        with Cache(tmp_path / "c.sqlite") as cache:
            purse = Purse(Budget(max_tokens=WORST + 50), None, cache, "run")
            first = await purse.reserve(ASKED)
            second = asyncio.create_task(purse.reserve(ASKED))
            await asyncio.sleep(0.01)
            assert not second.done()
            purse.settle(first, Usage(prompt_tokens=10, completion_tokens=5))
            assert (await second).worst == worst_case(ASKED)
            third = asyncio.create_task(purse.reserve(ASKED))
            await asyncio.sleep(0.01)
            purse.settle(await second, Usage(prompt_tokens=10, completion_tokens=50))
            with pytest.raises(BudgetStop, match="max_tokens=450"):
                await third
            assert purse.spending == Spending(requests=2, tokens=75)

    asyncio.run(run())


def test_spending_is_remembered_by_run(tmp_path: Path) -> None:
    """Fails if a cap starts anew after a crash, forgets the calls that died, or mixes two runs."""

    async def run() -> None:
        price = Price(prompt=1000.0, completion=10_000.0)
        with Cache(tmp_path / "c.sqlite") as cache:
            purse = Purse(Budget(max_usd=10.0), price, cache, "one")
            purse.settle(await purse.reserve(ASKED), Usage(prompt_tokens=100, completion_tokens=10))
            purse.settle(await purse.reserve(ASKED), None)
            await purse.reserve(ASKED)  # never settled: its process dies here
        with Cache(tmp_path / "c.sqlite") as cache:
            again = Purse(Budget(max_usd=10.0), price, cache, "one").spending
            assert (again.requests, again.tokens, again.unsure_requests) == (3, 110 + 2 * WORST, 2)
            assert again.usd == pytest.approx(0.2 + 2 * 1.3)
            assert Purse(Budget(max_usd=10.0), price, cache, "two").spending == Spending()
            with pytest.raises(BudgetStop, match="3 requests"):
                await Purse(Budget(max_usd=4.0), price, cache, "one").reserve(ASKED)

    asyncio.run(run())


def test_cost_of_the_rest() -> None:
    """Fails if calls that were refused for nothing make the rest look cheap."""
    spent = Spending(requests=8, tokens=100, usd=2.0)
    assert spent.for_requests(10, 4) == Spending(requests=10, tokens=250, usd=5.0)
    assert Spending().for_requests(10, 0) == Spending(requests=10)


@pytest.mark.parametrize("cap", [{"max_usd": 0}, {"max_tokens": -1}, {"max_requests": 0}, {"max_usd": float("nan")}])
def test_caps_must_be_positive(cap: dict[str, float]) -> None:
    """Fails if a cap of 0 or NaN means no cap."""
    with pytest.raises(ConfigError, match=next(iter(cap))):
        Budget(**cap)


def test_a_price_is_whole() -> None:
    """Fails if a price that is misspelt, or given by half, counts as nothing."""
    assert price_of({}) is price_of({"prompt": None, "completion": None}) is None
    assert price_of({"prompt": 1.0, "completion": 2.0, "cached_prompt": None}) == Price(prompt=1.0, completion=2.0)
    for half in ({"prompt": 1.0, "completion": None}, {"promt": 1.0, "completion": 2.0}):
        with pytest.raises(ConfigError, match="give `prompt` and `completion`"):
            price_of(half)
    with pytest.raises(ConfigError, match="price prompt is -1"):
        price_of({"prompt": -1, "completion": 2.0})
