"""Accounts: what a data set has taken is known to all its processes, and no division of the work passes a cap."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from orca2.asking.budget import Budget, BudgetStop, Spending
from orca2.asking.cache import Cache
from orca2.asking.run_accounts import PROBES, RunAccounts
from orca2.errors import DataError
from orca2.serving.outcomes import Usage

FOUR, TWO = [f"{rank}-of-4" for rank in range(4)], ["0-of-2", "1-of-2"]


def take(accounts: RunAccounts, account: str, tokens: int) -> None:
    """A process of this account that sends one call."""
    with accounts.noting(account):
        usage = Usage(prompt_tokens=tokens, completion_tokens=0)
        number = accounts.cache.open_call(accounts.run(account), "key", usage, 0.0)
        accounts.cache.settle_call(number, "known", usage, 0.0)


def left(accounts: RunAccounts, cap: int, account: str, peers: list[str]) -> int | None:
    return accounts.left(Budget(max_tokens=cap), account, peers).max_tokens


def test_no_change_of_the_number_of_processes_passes_a_cap(tmp_path: Path) -> None:
    """Fails if ranks that return get a share of what others have taken meanwhile: 240 of 240, and 45 more."""
    with Cache(tmp_path / "c.sqlite") as cache:
        accounts = RunAccounts(cache, "d", tmp_path / "spending")
        take(RunAccounts(cache, "other", tmp_path / "elsewhere"), "0-of-4", 1000)
        assert [left(accounts, 240, rank, FOUR) for rank in FOUR] == [60] * 4
        take(accounts, "0-of-4", 60)
        assert [left(accounts, 240, rank, FOUR) for rank in FOUR] == [60] * 4
        assert [left(accounts, 240, rank, TWO) for rank in TWO] == [90] * 2
        take(accounts, "0-of-2", 90)
        assert left(accounts, 240, "1-of-2", TWO) == 90, "a share must not move while its peers are at work"
        # Of the 150 left to four, rank 0 has 60 already: 30 for each of the others.
        assert [left(accounts, 240, rank, FOUR) for rank in FOUR[1:]] == [30] * 3
        take(accounts, "1-of-2", 90)
        with pytest.raises(BudgetStop, match="max_tokens=240 is used up: this run has taken 3 requests, 240"):
            left(accounts, 240, "1-of-4", FOUR)


def test_caches_of_their_own_share_one_cap(tmp_path: Path) -> None:
    """Fails if a rank with another cache does not know what the probes took, or a moved one begins anew."""
    with ExitStack() as stack:
        first, second, third = (
            RunAccounts(stack.enter_context(Cache(tmp_path / f"{name}.sqlite")), "d", tmp_path / "spending")
            for name in "abc"
        )
        take(first, PROBES, 90)
        assert [left(first, 100, rank, TWO) for rank in TWO] == [left(second, 100, rank, TWO) for rank in TWO] == [5, 5]
        take(first, "0-of-2", 4)
        take(second, "1-of-2", 3)
        assert first.taken() == second.taken() == third.taken()
        assert sum(first.taken().values(), Spending()) == Spending(requests=3, tokens=97)
        # Rank 1 goes on with a third cache: two of its five are left, by the calls of that cache.
        assert left(third, 100, "1-of-2", TWO) == 2
        take(third, "1-of-2", 2)
        assert first.taken()["1-of-2"] == Spending(requests=2, tokens=5)


def test_a_damaged_account_is_named(tmp_path: Path) -> None:
    """Fails if a half-written file counts as nothing spent, or ends in a traceback."""
    (tmp_path / "probes.json").write_text('{"requests": 1, "tok')
    with Cache(":memory:") as cache, pytest.raises(DataError, match=r"probes\.json is not what an account has taken"):
        RunAccounts(cache, "d", tmp_path).taken()
