"""Where further work plugs into a synthesis.

    tasks ──▶ [item steps] ──▶ instruction ──▶ teacher ──▶ verdict ──▶ [answer steps] ──▶ shards ──▶ [finish steps]
              Rejected: listed, never asked                Rejected: kept with the reason

Item steps meet every item in the order of the tasks, in every process, so they may remember earlier items (as the
search for duplicates does). Answer steps meet answers in no order and must not remember. Finish steps find the data
set written and may add files to its folder; DONE follows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from orca2.records import Rejected
from orca2.synthesis.items import TaskItem
from orca2.synthesis.rows import AnswerStep


class ItemStep(Protocol):
    """A check before an item is asked."""

    def __call__(self, item: TaskItem) -> Rejected | None:
        """Why the item is left out; None where nothing speaks against it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A written data set."""

    folder: Path
    record: Mapping[str, Any]
    """The manifest's entry `output`: counts, strategies, verdicts, sources, spending, files."""
    config: Mapping[str, Any]
    console: Console


class FinishStep(Protocol):
    """Work on the written data set, such as its card. May be repeated after a crash."""

    def __call__(self, output: Output) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a synthesis does besides asking and writing."""

    items: tuple[ItemStep, ...] = ()
    answers: tuple[AnswerStep, ...] = ()
    finish: tuple[FinishStep, ...] = ()
