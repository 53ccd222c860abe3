"""The progress of an evaluation: samples done, time left. A live line on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_EVERY_S = 15.0
"""Seconds between lines where the output is not a terminal; ours."""


@contextmanager
def show_progress(console: Console, total: int, done: int) -> Iterator[Callable[[], None]]:
    """Yields what to call after each sample. `done` of `total` samples were answered in earlier runs."""
    if console.is_terminal:
        columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("answering", total=total, completed=done)
            yield lambda: bar.advance(task)
        return
    lines = _PlainLines(console, total, done)
    yield lines.advance


def pace(samples_per_s: float) -> str:
    """The rate in words; of a slow student the seconds of a sample, for 0.0 samples/s tells nothing."""
    return f"{samples_per_s:.1f} samples/s" if samples_per_s >= 1 else f"{1 / samples_per_s:.1f} s/sample"


class _PlainLines:
    def __init__(self, console: Console, total: int, done: int) -> None:
        self._console, self._total, self._done, self._first = console, total, done, done
        self._began = self._last = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last < PLAIN_EVERY_S:
            return
        self._last = now
        rate = (self._done - self._first) / (now - self._began)
        left = (self._total - self._done) / rate
        self._console.print(
            f"answering {self._done:,} of {self._total:,}  {pace(rate)}  left {int(left // 60)}:{int(left % 60):02d}",
            highlight=False,
        )
