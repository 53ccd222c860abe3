"""The procedural task families as a benchmark: fresh questions that no training run has seen.

Questions come from the held-out split of the families (`orca2.tasks.problems`), so they need no files, and the strict
format that a student is trained on is demanded: `Answer: X` on the last line.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orca2.answers.extraction import NOTHING, Extraction
from orca2.answers.grading import grade
from orca2.errors import ConfigError
from orca2.evaluation.benchmark import Domain, Judgement, Sample
from orca2.records import Rejected
from orca2.tasks.catalogue import families
from orca2.tasks.problems import make_problem


@dataclass(frozen=True, kw_only=True)
class ProceduralBenchmark:
    """Held-out questions of every task family.

    Raises:
        ConfigError: a number is not positive, or a family lacks the level.
    """

    name: str
    version: int
    domain: Domain
    max_new_tokens: int
    questions_per_family: int
    level: int
    seed: int
    judgement: Judgement = "none"

    def __post_init__(self) -> None:
        for field in ("version", "max_new_tokens", "questions_per_family"):
            if getattr(self, field) < 1:
                raise ConfigError(f"benchmark {self.name!r}: {field} = {getattr(self, field)} must be at least 1")
        lacking = [name for name, family in families().items() if self.level not in family.levels]
        if lacking:
            raise ConfigError(f"benchmark {self.name!r}: level = {self.level} does not exist in {lacking}")

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy",)

    def samples(self, data_dir: Path | None) -> Iterator[Sample | Rejected]:
        """Questions are drawn, not read; `data_dir` says nothing here. A question drawn twice comes once."""
        for name, family in families().items():
            seen: set[str] = set()
            for index in range(self.questions_per_family):
                problem = make_problem(family, self.seed, "held_out", index, self.level)
                if problem.question in seen:
                    continue
                seen.add(problem.question)
                yield Sample(
                    id=f"{self.name}/{name}/{self.level}-{self.seed}-{index}",
                    benchmark=self.name,
                    task=name,
                    turns=(problem.question,),
                    kind=family.answer_kind,
                    gold=((problem.answer,),),
                    strict=True,
                )

    def read(self, text: str, sample: Sample) -> Extraction:
        verdict = grade(sample.gold[0][0], sample.kind, text)
        if not verdict.format_ok or verdict.value is None:
            return NOTHING
        end = len(text.rstrip())
        return Extraction((verdict.value,), True, "last_line", (end - len(verdict.value), end))

    def score(self, extraction: Extraction, sample: Sample) -> dict[str, float]:
        return {"accuracy": float(extraction.ok and extraction.value == sample.gold[0])}
