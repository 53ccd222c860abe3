"""Scores answers to items of reasoning-gym in a process of its own: the scorers are foreign code on a teacher's text.

Answer: 1e999999999   a scorer that writes the number out would stop the whole synthesis; here it is killed
"""

from orca2.answers.verification.process import START_SECONDS, Worker
from orca2.rows.items import TaskItem


class GymScorer(Worker):
    """Raises ConfigError where the extra `gym` is missing."""

    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds for one answer."""
        super().__init__("orca2.answers.verification.gym_worker", package="reasoning_gym", extra="gym")
        self.timeout = timeout

    def score(self, item: TaskItem, answer: str) -> float | None:
        """The score from 0 to 1; None where the scorer raises or is out of time. `answer` is the bare final answer."""
        # Making the item again may take long and is not a fault of the answer.
        if self.ask({"lineage": item.lineage}, START_SECONDS) is None:
            return None
        scored = self.ask({"lineage": item.lineage, "answer": answer}, self.timeout)
        return scored["score"] if scored is not None else None
