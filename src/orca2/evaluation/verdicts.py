"""What a judge said about answers: one JSON line for each verdict, beside the samples that it is about.

`verdicts.jsonl` is written whole, from a cache that holds every paid call, so it needs no repair and no resume.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from orca2.errors import DataError
from orca2.runs import atomic_write_text

VERDICTS = "verdicts.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judgement of one answer in one run of the judge."""

    key: str
    """Of the sample's record."""
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
    """From 0; several runs of one judge show its spread."""
    turn: int
    """Which answer of the sample, from 0."""
    value: float | None
    """None: there is no verdict, see `problem`."""
    problem: str = ""
    """`unparsable`, or why the judge gave no answer."""
    text: str = ""
    """The judge's own words."""


def write_verdicts(folder: Path, verdicts: Iterable[Verdict]) -> None:
    """Write `verdicts.jsonl`, whole or not at all."""
    atomic_write_text(folder / VERDICTS, "".join(json.dumps(asdict(one)) + "\n" for one in verdicts))


def read_verdicts(folder: Path) -> list[Verdict]:
    """The folder's verdicts; none where no judge has been there. Raises DataError for a damaged file."""
    path = folder / VERDICTS
    if not path.exists():
        return []
    try:
        return [Verdict(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is damaged: {error}; delete it and judge again: the cache pays nothing twice"
        ) from error
