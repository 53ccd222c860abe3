"""The progress lines of a synthesis: done, verified, failed, spent, left; and of the probes before it.

1,204/2,000 items  kept 1,190  right 1,101 of 1,150 judged  failed 14  spent 3.1210 USD, 702,311 tokens
left 2.0634 USD, 0:02:10  96 calls at a time                                                (one line)

measuring strategies: 812 probes of at most 3,584, 3 of 7 groups settled  left at most 0:03:10
"""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from typing_extensions import override

from orca2.asking.engine import Asking
from orca2.progress import ProgressLine, clock
from orca2.synthesis.answering import ItemOutcome
from orca2.synthesis.selection import GroupEvidence


class ProbesLine(ProgressLine):
    """Counts probes. `most`: how many it takes if no strategy is ever ruled out; `groups`: groups of tasks."""

    def __init__(self, console: Console, most: int, groups: int) -> None:
        super().__init__(console, lambda: self.text)
        self._most, self._groups, self._started = most, groups, time.monotonic()
        self.probes = self.settled = 0

    def add(self) -> None:
        """Count one answered probe, and draw if it is time."""
        self.probes += 1
        self.changed()

    def rounds(self, evidence: Mapping[str, GroupEvidence]) -> None:
        """Note after a round which groups are settled."""
        self.settled = sum(bool(one.reason) for one in evidence.values())

    @property
    def text(self) -> str:
        """The figures as one line."""
        seconds = (time.monotonic() - self._started) * (self._most - self.probes) / max(self.probes, 1)
        return (
            f"measuring strategies: {self.probes:,} probes of at most {self._most:,}, {self.settled:,} of "
            f"{self._groups:,} groups settled  left at most {clock(seconds)}"
        )


class ItemsLine(ProgressLine):
    """Counts results; the last line stays.

    `total`: rows of the tasks, None where nobody knows; `counts["not_asked"]`: those that are left out so far.
    """

    def __init__(self, console: Console, asking: Asking, total: int | None, counts: Mapping[str, int]) -> None:
        super().__init__(console, lambda: self.line, None if total is None else lambda: self.done / max(total, 1))
        self._asking, self._total, self._counts = asking, total, counts
        self._started = time.monotonic()
        self.answered = self.kept = self.right = self.judged = self.failed = 0

    def add(self, answered: ItemOutcome) -> None:
        """Count one item, and draw if it is time."""
        self.answered += 1
        self.failed += answered.kept is None and bool(answered.failures)
        self.kept += answered.kept is not None
        verdict = answered.kept.verdict if answered.kept is not None else None
        self.right += verdict == "right"
        self.judged += verdict in ("right", "wrong")
        self.changed()

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self.done:
            self._console.print(self.line)

    @property
    def done(self) -> int:
        """Rows settled."""
        return self.answered + self._counts["not_asked"]

    @property
    def line(self) -> str:
        """The figures as one line."""
        total = f"/{self._total:,}" if self._total is not None else ""
        spending = self._asking.spending
        spent = f"  spent {spending.usd:.4f} USD, {spending.tokens:,} tokens" if spending.requests else ""
        calls = f"  {self._asking.concurrency} calls at a time" if spending.requests else ""
        return (
            f"{self.done:,}{total} items  kept {self.kept:,}  right {self.right:,} of {self.judged:,} judged  "
            f"failed {self.failed:,}{spent}  {self._time}{calls}"
        )

    @property
    def _time(self) -> str:
        seconds = time.monotonic() - self._started
        if self._total is None or not self.done or self.done >= self._total:
            return f"{clock(seconds)} passed"
        # Replayed answers come at once: a rate that counted them would promise too much.
        fresh = self.done - min(self._asking.tally.replayed, self.done - 1)
        rest = self._asking.taken.for_requests(self._total - self.done, fresh)
        cost = f"{rest.usd:.4f} USD, " if rest.usd else ""
        return f"left {cost}{clock(seconds * (self._total - self.done) / fresh)}"
