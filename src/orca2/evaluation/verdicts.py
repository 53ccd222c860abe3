"""What a judge said about answers: one JSON line for each verdict, beside the samples that it is about.

`verdicts.jsonl` is written whole, from a cache that holds every paid call, so it needs no repair and no resume.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orca2.errors import DataError
from orca2.files import atomic_write_text

VERDICTS = "verdicts.jsonl"
NOT_ASKED = "not_asked"
"""`problem` of a question that a cap kept from the judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeVerdict:
    """One judgement of one answer in one run of the judge."""

    key: str
    """Key of the sample's record."""
    benchmark: str
    task: str
    message: str
    sample: str
    rubric: str
    """`grade`: 1 to 10; `grounding`: 1 where the source does not support the text; `safety`: 1 for a defect;
    `preference`: 1 where this answer is better than the other run's, 0 where it is worse, 0.5 for a tie."""
    rubric_version: int
    judge: str
    """The judging model."""
    judge_run: int
    """Number of the judge's run, from 0; several runs show its spread."""
    turn: int
    """Number of the sample's answer, from 0."""
    value: float | None
    """The verdict as a number; None if there is none, see `problem`."""
    problem: str = ""
    """`unparsable`, `not_asked`, or why the judge gave no answer."""
    text: str = ""
    """The judge's own words."""
    against: str = ""
    """Folder of the evaluation whose answer this one was compared with; empty: the answer was judged alone."""

    @property
    def series(self) -> tuple[str, str, str]:
        """Verdicts with the same key are replaced and summed up together: rubric, judge, evaluation compared with."""
        return self.rubric, self.judge, self.against


def renewed(before: Iterable[JudgeVerdict], now: Sequence[JudgeVerdict]) -> list[JudgeVerdict]:
    """`before`, in which the series that `now` holds are replaced by those of `now`.

    Where a cap stopped the judge now, its earlier verdict stays.
    """
    series = {one.series for one in now}
    other, same = [], {}
    for one in before:
        if one.series in series:
            same[_question(one)] = one
        else:
            other.append(one)
    return other + [same.get(_question(one), one) if one.problem == NOT_ASKED else one for one in now]


def _question(verdict: JudgeVerdict) -> tuple[object, ...]:
    return *verdict.series, verdict.rubric_version, verdict.key, verdict.turn, verdict.judge_run


def write_verdicts(folder: Path, verdicts: Iterable[JudgeVerdict]) -> None:
    """Write `verdicts.jsonl`, whole or not at all."""
    atomic_write_text(folder / VERDICTS, "".join(json.dumps(asdict(one)) + "\n" for one in verdicts))


def read_verdicts(folder: Path) -> list[JudgeVerdict]:
    """The folder's verdicts; none where no judge has been there. Raises DataError for a damaged file."""
    path = folder / VERDICTS
    if not path.exists():
        return []
    try:
        return [JudgeVerdict(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged: {error}; delete it and judge again: the cache pays nothing twice"
        ) from error
