"""What people look at must say what is there."""

from pathlib import Path

from rich.console import Console

from orca2.display import loss_curve, score_table
from orca2.evaluation.held_out import TaskScore


def test_loss_curve_falls_from_the_left_top(tmp_path: Path) -> None:
    """A curve drawn upside down or shifted would be believed."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n10,8.0\n20,4.0\n30,2.0\n40,1.0\n")
    lines = loss_curve(path, width=4, height=4).splitlines()
    assert [line.split("┤")[1] for line in lines[1:5]] == ["•", " •", "  •", "   •"]
    assert lines[1].startswith("   8.000") and lines[4].startswith("   1.000")
    assert "step 10" in lines[-1] and "step 40" in lines[-1]


def test_loss_curve_of_a_run_without_steps(tmp_path: Path) -> None:
    """A run that was stopped before the first log point has nothing to draw, and must not fail."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n")
    assert loss_curve(path) == ""


def test_score_table_pairs_the_messages() -> None:
    """The two messages stand side by side, and the strategies are those of the first."""
    score = TaskScore(task="sums", n=4, accuracy=0.75, format_ok=1.0, answer_tokens=12.4, strategies={"direct": 4})
    other = TaskScore(task="sums", n=4, accuracy=0.5, format_ok=0.25, answer_tokens=3.0, strategies={"none": 4})
    console = Console(width=140, record=True)
    console.print(score_table({"cautious": [score], "empty": [other]}))
    row = next(line for line in console.export_text().splitlines() if "sums" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "sums", "75%", "100%", "12", "50%", "25%", "3", "direct 4",
    ]  # fmt: skip
