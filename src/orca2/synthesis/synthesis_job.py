"""What a synthesis is made of, and which settings leave its rows as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from orca2.answers.verification.presets import Verification
from orca2.asking.budget import Budget, check_price
from orca2.asking.cache import Cache
from orca2.asking.model import Model
from orca2.asking.models.batch import BatchTeacher
from orca2.asking.models.http import HttpTeacher, speaker_of
from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.rows.items import TaskReader
from orca2.runs import OF_ASKING
from orca2.serving.outcomes import LASTING, FailureKind
from orca2.serving.retries import Retry
from orca2.strategies import StrategyChoice
from orca2.synthesis.cleaning.cleaning import Cleaning
from orca2.synthesis.instructions import InstructionSource
from orca2.synthesis.publishing.upload import check_hub
from orca2.synthesis.sampling import TaskMix, sized

OPERATIONAL = (
    "name", "out_dir", "estimate", "cache", "shard_rows", "rank", "world", "max_usd", "max_tokens", "max_requests",
    "attempts", "first_wait_s", "longest_wait_s", "ask_again", "verification.timeout", "push_to_hub", "hub_private",
    *(f"teacher.{key}" for key in (*OF_ASKING, "device")),
)  # fmt: skip
"""Settings that change how fast and at what price a data set is made, and not its rows."""


@dataclass(frozen=True, kw_only=True)
class SynthesisJob:
    """Everything that one synthesis needs, checked and built.

    Raises:
        ConfigError: a rank outside its world, a cap in USD on a teacher without a price, several answers from one
            that gives the same each time, a cap per task on a mix, which has its own, or a push to the hub that
            could not start.
    """

    name: str
    seed: int
    tasks: TaskReader
    strategy: StrategyChoice
    instructions: InstructionSource
    teacher: Model
    verification: Verification
    size: int | None
    rows_per_task: int | None
    max_usd: float | None
    max_tokens: int | None
    max_requests: int | None
    attempts: int
    first_wait_s: float
    longest_wait_s: float
    ask_again: Mapping[FailureKind, bool]
    """Failures of earlier processes that are asked once more although another answer to the same call is unlikely."""
    shard_rows: int
    cache: str
    rank: int
    world: int
    estimate: bool
    cleaning: Cleaning
    erasing: Erasing
    """What the browser shows as the student's prompt; no row depends on it."""
    push_to_hub: str | None
    hub_private: bool

    def __post_init__(self) -> None:
        if not self.rank < self.world:
            raise ConfigError(f"rank is {self.rank}, world is {self.world}; ranks go from 0 to world - 1")
        if self.rows_per_task is not None and isinstance(self.tasks, TaskMix):
            raise ConfigError(
                f"rows_per_task is for one collection; tasks={self.tasks.name} has a cap for each: tasks.caps.<part>="
            )
        if self.verification.samples > 1 and self.teacher.decoding.temperature == 0:
            raise ConfigError(
                f"verification.samples={self.verification.samples} asks for several answers, but at temperature 0 they "
                "are all the same: set teacher.temperature=0.7, or verification.samples=1"
            )
        if unknown := sorted(set(self.ask_again) - set(LASTING)):
            raise ConfigError(f"ask_again names {unknown}; the cache keeps failures of the kinds {', '.join(LASTING)}")
        check_price(self.budget, self.teacher.price, self.teacher.model)
        _ = self.retry
        if self.push_to_hub is not None:
            check_hub(self.push_to_hub)

    def require_here(self) -> None:
        """Raise ConfigError for a key that is not set, before an hour of reading items. An estimate needs none."""
        if isinstance(self.teacher, HttpTeacher | BatchTeacher):
            speaker_of(self.teacher)

    def opened_cache(self, path: str | None = None) -> Cache:
        """The answers so far, without those to ask again; `path`: another file than the job's own."""
        return Cache(path or self.cache, [kind for kind, again in self.ask_again.items() if again])

    @property
    def budget(self) -> Budget:
        return Budget(max_usd=self.max_usd, max_tokens=self.max_tokens, max_requests=self.max_requests)

    @property
    def retry(self) -> Retry:
        return Retry(attempts=self.attempts, first_seconds=self.first_wait_s, longest_seconds=self.longest_wait_s)

    @property
    def few_shot(self) -> int:
        """How many examples are to be built from the answered ones."""
        return self.reader.few_shot if isinstance(self.reader, TaskMix) else 0

    @property
    def reader(self) -> TaskReader:
        """The tasks at the size that is asked for."""
        return sized(self.tasks, self.size, self.seed, self.rows_per_task)
