"""What the verdicts of a judge amount to: a mean with its interval, and how far the judge's own runs differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum

from orca2.evaluation.metrics import Interval, paired_bootstrap, wilson
from orca2.evaluation.report.load import Run
from orca2.evaluation.verdicts import NOT_ASKED, JudgeVerdict

RUBRICS = ("grade", "grounding", "safety", "preference")
RATES = ("grounding", "safety")
"""Rubrics whose values are 0 or 1; the mean is a rate of unsupported texts or of defects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdicts on one benchmark, or on one of its tasks or turns, under one message."""

    run: str
    benchmark: str
    message: str
    part: str
    """Empty: all; else a task such as a category of harm, or `turn 2`."""
    rubric: str
    judge: str
    n: int
    """Answers with at least one verdict."""
    value: Interval
    """Mean over answers, each the mean over the judge's runs: Wilson's interval for rates, else the bootstrap's."""
    judge_runs: tuple[float, ...]
    """The mean of each run of the judge."""
    missing: int
    """Verdicts that are not there: unparsable, refused, too long, not asked, ...; they count neither way."""
    against: str
    """Folder of the evaluation compared with; empty: none."""

    @property
    def who(self) -> str:
        """The judge, and what it compared with."""
        return f"{self.judge} against {self.against}" if self.against else self.judge

    @property
    def spread(self) -> float:
        """Largest less smallest of the judge's runs; 0 where there is one."""
        return max(self.judge_runs) - min(self.judge_runs)


def judged_of(run: Run) -> list[Judged]:
    """Per benchmark, message and rubric: all verdicts, then each turn, each category (what stands before the dot of
    a task's name) and each task, where there are several."""
    cells: dict[tuple[str, ...], list[JudgeVerdict]] = {}
    known = {record.key for record in run.records}
    for verdict in run.verdicts:
        if verdict.key in known:  # a verdict on an answer that was asked anew says nothing
            cells.setdefault((verdict.benchmark, verdict.message, *verdict.series), []).append(verdict)
    found = []
    for verdicts in cells.values():
        found += _judged(run.name, verdicts, "")
        shown = {""}
        for part_of in _PARTS:
            parts: dict[str, list[JudgeVerdict]] = {}
            for verdict in verdicts:
                parts.setdefault(part_of(verdict), []).append(verdict)
            if len(parts) > 1:
                for part in [part for part in parts if part not in shown]:
                    found += _judged(run.name, parts[part], part)
                shown |= parts.keys()
    return found


def unjudged(run: Run) -> list[str]:
    """For each rubric and judge, how many answers wait for it: a cap stopped it, or they came after it."""
    series: dict[tuple[str, str, str], list[JudgeVerdict]] = {}
    for verdict in run.verdicts:
        series.setdefault(verdict.series, []).append(verdict)
    found = []
    for (rubric, judge, against), verdicts in series.items():
        waiting = {one.key for one in verdicts if one.problem == NOT_ASKED} & {record.key for record in run.records}
        if not against:
            seen = {one.key for one in verdicts}
            waiting |= {one.key for one in run.records if one.judgement == rubric and one.key not in seen}
        if waiting:
            found.append(f"{rubric} by {judge} is not whole: {len(waiting):,} answers wait for it; judge them again")
    return found


_PARTS: tuple[Callable[[JudgeVerdict], str], ...] = (
    lambda verdict: f"turn {verdict.turn + 1}" if verdict.rubric == "grade" else "",
    lambda verdict: verdict.task.partition(".")[0],
    lambda verdict: verdict.task,
)


def _judged(run: str, verdicts: Sequence[JudgeVerdict], part: str) -> list[Judged]:
    by_answer: dict[tuple[str, int], list[float]] = {}
    by_run: dict[int, list[float]] = {}
    for verdict in verdicts:
        if verdict.value is not None:
            by_answer.setdefault((verdict.key, verdict.turn), []).append(verdict.value)
            by_run.setdefault(verdict.judge_run, []).append(verdict.value)
    if not by_answer:
        return []
    first = verdicts[0]
    means = [fsum(values) / len(values) for values in by_answer.values()]
    rate = first.rubric in RATES
    value = wilson(fsum(means), len(means)) if rate else paired_bootstrap([0.0] * len(means), means)
    return [
        Judged(
            run=run,
            benchmark=first.benchmark,
            message=first.message,
            part=part,
            rubric=first.rubric,
            judge=first.judge,
            n=len(means),
            value=value,
            judge_runs=tuple(fsum(values) / len(values) for _, values in sorted(by_run.items())),
            missing=sum(verdict.value is None for verdict in verdicts),
            against=first.against,
        )
    ]
