"""The progress line of a student so slow that the first log point is minutes away."""

from collections.abc import Callable
from io import StringIO

from rich.console import Console

from lightning_modules.accounts import Accounts
from lightning_modules.training_line import TrainingLine
from orca2.progress import pace
from tests.small_fit import Fit


def test_the_loss_stands_there_from_the_first_step(make_fit: Callable[..., Fit]) -> None:
    """A user of a student that takes a minute a step wants to see in the first that it learns, not in the tenth."""
    printed, fit = StringIO(), make_fit(rows=40)
    line = TrainingLine(Accounts(every_steps=1000, epochs=1), Console(file=printed, width=140), plain_every_s=1e9)
    fit.run(line)
    (first,) = printed.getvalue().splitlines()
    assert f"step 1  loss {fit.recorder.losses[0]:.3f}" in first


def test_a_slow_pace_is_told_in_seconds() -> None:
    """28 seconds a sample was told as 0.0 samples/s."""
    assert pace(1 / 28) == "28.0 s/sample"
    assert pace(2.5) == "2.5 samples/s"
