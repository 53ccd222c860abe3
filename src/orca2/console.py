"""The console that commands write to."""

import sys

from rich.console import Console

ELSEWHERE = 140
"""Columns off a terminal, so that tables in a log are not folded; ours."""


def open_console(quiet: bool = False) -> Console:
    """A console on stdout, as wide as the terminal, which colours nothing by itself.

    A `quiet` one writes nothing; it is that of every process but the first.
    """
    return Console(width=None if sys.stdout.isatty() else ELSEWHERE, quiet=quiet, highlight=False)
