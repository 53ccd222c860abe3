"""How often and after how long a call is repeated."""

from dataclasses import dataclass
from random import Random

from orca2.errors import ConfigError
from orca2.serving.limits import LONGEST_PAUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Attempts and waits of one call.

    The wait before attempt n + 1 is drawn from the upper half of min(longest, first * 2^(n-1)) seconds; the
    draw is seeded by the request's key, so it spreads the calls and is the same in every run.

    Raises:
        ConfigError: no attempt, or a negative wait.
    """

    attempts: int = 6
    """Ours: with the waits below, a server may be gone for half a minute."""
    first_seconds: float = 1.0
    longest_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts is {self.attempts}; give at least 1")
        if not 0 <= self.first_seconds <= self.longest_seconds:
            raise ConfigError(
                f"first_seconds={self.first_seconds} must be from 0 to longest_seconds={self.longest_seconds}"
            )

    def wait(self, key: str, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the attempt of this number, from 1."""
        backoff = min(self.longest_seconds, self.first_seconds * 2.0 ** (attempt - 1))
        jittered = backoff * Random(f"{key}/{attempt}").uniform(0.5, 1.0)
        return max(jittered, min(retry_after or 0.0, LONGEST_PAUSE))
