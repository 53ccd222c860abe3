"""Decides which answers are kept: the best of several, by their verdicts.

answers      verdicts      keep right only
a1           wrong    ──▶  rejected, with the verdict's reason
a2           right    ──▶  kept
a3           right    ──▶  rejected: "not needed"        preference pairs: a2 over a1
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orca2.answers.verification.checkers import OUTCOMES, Outcome, Verdict
from orca2.errors import ConfigError

NOT_NEEDED = "not needed: an earlier answer was kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSample:
    """One of several answers to the same request."""

    number: int
    """Index among the request's samples, from 0."""
    answer: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedSample:
    """A sample that is not kept, and why."""

    sample: AnswerSample
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What became of a row's answers."""

    kept: AnswerSample | None
    rejected: tuple[DroppedSample, ...]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How many answers are asked for, and which outcomes may be kept.

    Raises:
        ConfigError: `keep` does not say yes or no to each outcome, or keeps none; `samples` or `timeout`
        below its least.
    """

    name: str
    keep: Mapping[str, bool]
    """Outcome to whether such an answer is kept: right, wrong, undecided."""
    samples: int
    """Most answers per row. Asking stops at the first one that is kept."""
    timeout: float
    """Seconds for comparing two expressions, or for a generator's own scorer."""

    def __post_init__(self) -> None:
        if set(self.keep) != set(OUTCOMES) or not any(self.keep.values()):
            raise ConfigError(
                f"verification={self.name}: keep is {dict(self.keep)}; say true or false to each of "
                f"{', '.join(OUTCOMES)}, true to one at least"
            )
        if self.samples < 1:
            raise ConfigError(f"verification={self.name}: samples is {self.samples}; at least 1 answer is needed")
        if self.timeout <= 0:
            raise ConfigError(f"verification={self.name}: timeout is {self.timeout} seconds; it must be above 0")

    def keeps(self, verdict: Verdict) -> bool:
        return self.keep[verdict.outcome]

    def enough(self, samples: Sequence[AnswerSample]) -> bool:
        """Whether no further answer is needed: the best possible one is there, or all were asked for."""
        best = self._ranked[0]
        return len(samples) >= self.samples or any(sample.verdict.outcome == best for sample in samples)

    def choose(self, samples: Sequence[AnswerSample]) -> Chosen:
        """The first sample of the best outcome that may be kept; the others with the reason why not."""
        kept = next(
            (sample for outcome in self._ranked for sample in samples if sample.verdict.outcome == outcome),
            None,
        )
        rejected = tuple(
            DroppedSample(sample=sample, reason=self._reason(sample)) for sample in samples if sample is not kept
        )
        return Chosen(kept=kept, rejected=rejected)

    @property
    def _ranked(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in ("right", "undecided", "wrong") if self.keep[outcome])

    def _reason(self, sample: AnswerSample) -> str:
        return NOT_NEEDED if self.keeps(sample.verdict) else f"{sample.verdict.outcome}: {sample.verdict.reason}"
