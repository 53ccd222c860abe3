"""What is asked: a model behind the engine, which holds its cache, caps and limits. Teachers, judges, simulated users
and students that are served are models."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from orca2.asking.budget import Price
from orca2.asking.cache import Cache
from orca2.asking.requests import Answer, Decoding
from orca2.serving.limits import Limits


class Model(Protocol):
    """A model that writes answers. Opened once per event loop; everything it holds is closed with it."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str:
        """Goes into every request and so into its key."""
        ...

    @property
    def decoding(self) -> Decoding: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def price(self) -> Price | None:
        """Price of a call; None if it is unknown, and a budget in USD is then refused."""
        ...

    @property
    def cached(self) -> bool:
        """Whether answers are cached; False for a model whose answers cost nothing to make again."""
        ...

    def open(self, cache: Cache, runs: Sequence[str]) -> AbstractAsyncContextManager[Answer]:
        """`runs`: the run that asks, then those that ended before it; what they left unfinished at the provider is
        stored in the cache before this returns.
        """
        ...
