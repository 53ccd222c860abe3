"""A teacher that only knows the answers in another run's cache: no model, no cost, no network."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orca2.asking.budget import FREE, Price
from orca2.asking.cache import Cache
from orca2.asking.requests import Answer, Decoding, Request
from orca2.errors import ConfigError
from orca2.serving.limits import Limits
from orca2.serving.outcomes import Failure, Reply


@dataclass(frozen=True, kw_only=True)
class ReplayTeacher:
    """Answers from the cache file `path`. Model and decoding must be those that the answers were made with.

    Raises:
        ConfigError: `open` raises it where there is no such file.
    """

    name: str
    path: str
    model: str
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    price: Price = field(default=FREE, init=False)
    cached: bool = field(default=False, init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(default=Limits(concurrency=16), init=False)

    def __post_init__(self) -> None:
        decoding = Decoding(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            extra=dict(self.extra),
        )
        object.__setattr__(self, "decoding", decoding)

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        if not Path(self.path).is_file():
            raise ConfigError(
                f"teacher={self.name}: there is no cache file {self.path}; name one that a run has written"
            )
        with Cache(self.path) as recorded:

            async def answer(request: Request) -> Reply | Failure:
                found = recorded.get(request)
                reason = f"{self.path} has no answer of {self.model} to this request"
                return Failure(kind="missing", reason=reason) if found is None else found

            yield answer
