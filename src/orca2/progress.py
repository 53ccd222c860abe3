"""Progress lines: a live line on a terminal, with a bar where the end is known; elsewhere (a log file, a notebook, CI)
a plain line now and then.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

REDRAW_S = 0.25
PLAIN_S = 15.0
"""Pause between two lines off a terminal; ours."""


class ProgressLine:
    """Draws what `text` returns. Use as a context manager, and call `changed` whenever something has.

    `share`: the part that is done, from 0 to 1; None draws no bar.
    """

    def __init__(
        self,
        console: Console,
        text: Callable[[], str],
        share: Callable[[], float] | None = None,
        plain_every_s: float | None = None,
    ) -> None:
        self._console, self._text, self._share, self._drawn = console, text, share, time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._pause_s = REDRAW_S if self._live is not None else PLAIN_S if plain_every_s is None else plain_every_s

    def changed(self, at_once: bool = False) -> None:
        """Draw if it is time, or `at_once`."""
        now = time.monotonic()
        if now - self._drawn < self._pause_s and not at_once:
            return
        self._drawn = now
        if self._live is None:
            self._console.print(self._text())
            return
        line = Table.grid(padding=(0, 1))
        bar = [] if self._share is None else [ProgressBar(total=1.0, completed=self._share(), width=24)]
        line.add_row(*bar, Text(self._text(), no_wrap=True, overflow="ellipsis"))
        self._live.update(line, refresh=True)

    def start(self) -> None:
        """Take the last line of the terminal; for callers without a block."""
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        """Give the last line of the terminal back."""
        if self._live is not None:
            self._live.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def answering(console: Console, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A line for `total` samples, of which earlier runs answered `done`. Yields what to call after each sample."""
    began, count = time.monotonic(), done

    def text() -> str:
        seconds = time.monotonic() - began
        rate = (count - done) / seconds
        return f"answering {count:,} of {total:,}  {pace(rate)}  left {clock((total - count) / rate)}"

    with ProgressLine(console, text, lambda: count / total) as line:

        def add() -> None:
            nonlocal count
            count += 1
            line.changed()

        yield add


def pace(samples_per_s: float) -> str:
    """The rate in words; a slow student's is told in seconds a sample, for 0.0 samples/s tells nothing."""
    return f"{samples_per_s:.1f} samples/s" if samples_per_s >= 1 else f"{1 / samples_per_s:.1f} s/sample"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: `0:02:10`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
