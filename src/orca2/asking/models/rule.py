"""A teacher without a model: rules solve the generated tasks of `orca2.tasks`, under any strategy that a
family offers.

With error rates it is a teacher of known quality: a wrong answer is the worked answer to another problem of
the same family and level, so it has the right form and a false value.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orca2.asking.budget import FREE, Price
from orca2.asking.cache import Cache
from orca2.asking.requests import Answer, Decoding, Request
from orca2.errors import ConfigError
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Failure, Reply, Usage
from orca2.tasks.catalogue import families
from orca2.tasks.family import Problem

MODEL = "rules"
DRAWS = 1000
"""Draws for a problem with another answer; a family with two answers needs more than this once in 10^300."""


@dataclass(frozen=True, kw_only=True)
class RuleTeacher:
    """Rules, not a model. Reads `Request.generated`; a token is a word.

    Raises:
        ConfigError: an error rate outside 0 to 1, or for a family or strategy that does not exist.
    """

    name: str
    seed: int
    """Seeds the choice of the answers that are wrong."""
    error_rate: float
    """Share of wrong answers where `error_rates` says nothing."""
    error_rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Family -> strategy -> share of wrong answers."""
    model: str = field(default=MODEL, init=False)
    price: Price = field(default=FREE, init=False)
    cached: bool = field(default=False, init=False)
    # The rules end by themselves: the number is only there because a request has one.
    decoding: Decoding = field(default=Decoding(max_tokens=2**20), init=False)
    limits: Limits = field(default=Limits(concurrency=16), init=False)

    def __post_init__(self) -> None:
        rates = {"": self.error_rate}
        for family, by_strategy in self.error_rates.items():
            offered = families([family])[family].strategies
            for strategy, rate in by_strategy.items():
                if strategy not in offered:
                    raise ConfigError(
                        f"error_rates.{family}.{strategy}: {family} has no such strategy; it has {list(offered)}"
                    )
                rates[f"s.{family}.{strategy}"] = rate
        for where, rate in rates.items():
            if not 0 <= rate <= 1:
                raise ConfigError(f"error_rate{where} is {rate!r}; give a share from 0 to 1")

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        async def answer(request: Request) -> Reply | Failure:
            return self.solve(request)

        yield answer

    def solve(self, request: Request) -> Reply | Failure:
        """The rules' answer; a pure function of the request."""
        if request.generated is None:
            reason = "the rule teacher solves generated tasks only; take a teacher with a model for this task"
            return Failure(kind="invalid", reason=reason)
        problem, strategy = request.generated.problem, request.generated.strategy
        family = families()[problem.family]
        if strategy not in family.strategies:
            reason = f"{problem.family} has no rules for {strategy!r}; it has {list(family.strategies)}"
            return Failure(kind="invalid", reason=reason)
        text = family.trace(self._maybe_another(problem, strategy, request), strategy)
        words = sum(len(message["content"].split()) for message in request.messages)
        return Reply(
            text=text,
            finish_reason="stop",
            usage=Usage(prompt_tokens=words, completion_tokens=len(text.split())),
            model=MODEL,
        )

    def _maybe_another(self, problem: Problem[Any], strategy: str, request: Request) -> Problem[Any]:
        rate = self.error_rate
        if problem.family in self.error_rates and strategy in self.error_rates[problem.family]:
            rate = self.error_rates[problem.family][strategy]
        if rate == 0:
            return problem
        # Hashed first: seeding Random with a long text costs more than drawing.
        origin = f"{self.seed}/{problem.family}/{strategy}/{request.sample}/{problem.question}"
        rng = Random(hashlib.blake2b(origin.encode(), digest_size=16).digest())
        if rng.random() >= rate:
            return problem
        family = families()[problem.family]
        for _ in range(DRAWS):
            other = family.problem(rng, problem.level)
            if other.answer != problem.answer:
                return other
        raise ConfigError(f"task family {problem.family!r} has one answer only, so the rules cannot be wrong on it")
