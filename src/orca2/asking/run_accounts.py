"""What a run has taken so far, over all the processes that worked on it, and what is left to each.

The run is a data set that is made, or an evaluation.

    <account>: `probes`, or `<rank>-of-<world>`; its run in a cache is `<run>/<account>`
    a cache                            every call of the accounts that were opened in it
    <out_dir>/spending/<account>.json  what an account had taken when its last process ended

A shared cache holds all calls. Processes with caches of their own learn of each other from the files.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orca2.asking.budget import Budget, BudgetStop, Spending, spending_of
from orca2.asking.cache import Cache
from orca2.errors import DataError
from orca2.files import atomic_write_json

PROBES = "probes"
FOLDER = "spending"


def account_of(rank: int, world: int) -> str:
    """The account of one of `world` processes."""
    return f"{rank}-of-{world}"


@dataclass(frozen=True, slots=True)
class RunAccounts:
    """The accounts of one run as this process sees them.

    Raises:
        DataError: a file that does not hold an account.
    """

    cache: Cache
    owner: str
    """The run."""
    folder: Path
    """Folder of the files."""

    def run(self, account: str) -> str:
        """The account's name in a cache."""
        return f"{self.owner}/{account}"

    def taken(self) -> dict[str, Spending]:
        """Account -> what it has taken, by the cache, or by its file where that knows of more calls."""
        found = {run.removeprefix(self.run("")): self._cached(run) for run in self.cache.runs(self.run(""))}
        for path in sorted(self.folder.glob("*.json")):
            noted = _read(path)
            if path.stem not in found or noted.requests > found[path.stem].requests:
                found[path.stem] = noted
        return found

    def ended(self, world: int) -> list[str]:
        """Accounts that cannot be at work while `world` processes share the run."""
        return [account for account in self.taken() if not account.endswith(f"-of-{world}")]

    @contextmanager
    def noting(self, account: str) -> Iterator[None]:
        """Note at the end what the account has taken."""
        elsewhere = self._elsewhere(account)
        try:
            yield
        finally:
            spent = self._cached(self.run(account)) + elsewhere
            if spent.requests:
                atomic_write_json(self.folder / f"{account}.json", asdict(spent))

    def left(self, budget: Budget, account: str, peers: Sequence[str]) -> Budget:
        """What `account` may take, by its run in this cache, while its peers work, too; `account` is one of them.

        The spending of all but the peers is subtracted, and the rest dealt out evenly; a peer that took more keeps it.
        So no process has to know what its peers spend while they are at work. Raises BudgetStop where nothing is left.
        """
        taken = self.taken()
        elsewhere, total = self._elsewhere(account), sum(taken.values(), Spending())
        left: dict[str, Any] = {}
        for cap, unit in (("max_usd", "usd"), ("max_tokens", "tokens"), ("max_requests", "requests")):
            limit = getattr(budget, cap)
            if limit is None:
                continue
            amounts = {name: getattr(spent, unit) for name, spent in taken.items()}
            rest = limit - sum(amount for name, amount in amounts.items() if name not in peers)
            share = _even_share(rest, [amounts.get(peer, 0) for peer in peers]) - getattr(elsewhere, unit)
            left[cap] = share if cap == "max_usd" else math.floor(share)
            if left[cap] <= 0:
                raise BudgetStop(f"{cap}={limit} is used up: this run has taken {total}; raise it to go on", total)
        return Budget(**left)

    def purchase(self, budget: Budget, rank: int, world: int) -> "Purchase":
        """What the process `rank` asks with, while all `world` are at work. Raises BudgetStop where nothing is left."""
        own, peers = account_of(rank, world), [account_of(peer, world) for peer in range(world)]
        ended = [self.run(one) for one in self.ended(world)]
        return Purchase(self.cache, self.left(budget, own, peers), self.run(own), ended)

    def _cached(self, run: str) -> Spending:
        return spending_of(self.cache, [run])

    def _elsewhere(self, account: str) -> Spending:
        """What the account has taken by its file and not by this cache, because its last process had another one."""
        here, taken = self._cached(self.run(account)), self.taken()
        return taken[account] - here if account in taken else Spending()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One process's share in a run: where answers are kept, and what all processes together may take for them."""

    owner: str
    folder: Path
    """Folder of the run; its accounts are below."""
    cache: Path
    budget: Budget
    rank: int
    world: int

    def taken(self) -> Spending:
        """What all processes have taken, those with other caches as far as they have ended."""
        with Cache(self.cache) as cache:
            return sum(RunAccounts(cache, self.owner, self.folder / FOLDER).taken().values(), Spending())

    @contextmanager
    def opened(self) -> Iterator["Purchase"]:
        """Raises BudgetStop where nothing is left; DataError where the cache cannot be used."""
        with Cache(self.cache) as cache:
            accounts = RunAccounts(cache, self.owner, self.folder / FOLDER)
            with accounts.noting(account_of(self.rank, self.world)):
                yield accounts.purchase(self.budget, self.rank, self.world)


@dataclass(frozen=True, slots=True)
class Purchase:
    """What `orca2.asking.engine.asking` needs besides the model."""

    cache: Cache
    budget: Budget
    run: str
    ended: Sequence[str]


def _even_share(rest: float, taken: Sequence[float]) -> float:
    """The share `s` of each with `sum(max(s, one) for one in taken) == rest`."""
    by_amount = sorted(taken)
    while len(by_amount) > 1 and by_amount[-1] > rest / len(by_amount):
        rest -= by_amount.pop()
    return rest / len(by_amount)


def _read(path: Path) -> Spending:
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Spending(**values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not what an account has taken ({error}); delete it to count it anew") from error
