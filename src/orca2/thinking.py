"""Thinking: whether the student learns a reasoning model's trace along with its answer, decided when a row is rendered.

    conf/thinking/   the student learns to write
    drop             the answer alone
    keep             <think>⏎{trace}⏎</think>⏎⏎{answer}, where the row has a trace; else the answer alone
    mix              the one or the other, by a draw for each row

Earlier turns never carry a trace, as in the chat templates of reasoning models.
"""

from dataclasses import dataclass

from orca2.errors import ConfigError
from orca2.hashing import hash64
from orca2.reasoning import MARKERS, Trace
from orca2.records import Example


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """Decides which rows are trained on with their traces.

    Raises:
        ConfigError: the share is not from 0 to 1, or not 0 under the name `drop`; evaluation would not know the marker.
    """

    name: str
    share: float
    """Share of the rows with a trace that keep it."""
    opening: str = "<think>"
    """The marker before a trace, a key of `orca2.reasoning.MARKERS`; its own closing one stands behind the trace."""
    seed: int = 0
    """Seeds the draw together with the row's id. A row is drawn once, for all epochs."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"thinking.share = {self.share}: must be from 0 to 1")
        if self.name == "drop" and self.share:  # the signature of a run has no key for it: see orca2.runs
            raise ConfigError("thinking=drop keeps no trace, so thinking.share must be 0; take thinking=mix")
        if self.opening not in MARKERS:
            raise ConfigError(f"thinking.opening = {self.opening!r} is not known; choose from {', '.join(MARKERS)}")

    def trace(self, example: Example) -> Trace | None:
        """The trace that the student learns to write before the answer; None: the answer alone."""
        drawn = hash64(f"thinking/{self.seed}/{example.id}") / 2**64
        return Trace(example.reasoning, self.opening) if example.reasoning.strip() and drawn < self.share else None


DROP = Thinking(name="drop", share=0.0)
