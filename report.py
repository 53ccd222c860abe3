"""Report one evaluation anew, or several side by side.

Writes report.md, report.html with the samples to read, report.json and report.svg; asks no model.

    python report.py out_dir=runs/mine/evaluations/reasoning
    python report.py 'runs={base: <folder>, ours: <folder>}' out_dir=reports/base-and-ours
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

from pathlib import Path
from typing import Any

from orca2.console import open_console
from orca2.evaluation.report.load import load_runs
from orca2.evaluation.report.write import HTML, MARKDOWN, write_report
from orca2.settings import build_all, run_main


def report(cfg: Any) -> None:
    """Read the evaluations, write the report, and say where it is."""
    console = open_console()
    settings = build_all(cfg)
    runs = load_runs(settings["runs"], settings["out_dir"])
    folder = Path(settings["out_dir"])
    summary = write_report(runs, folder, settings["samples_each"])
    for note in summary.notes:
        console.print(f"note: {note}")
    for average in summary.averages:
        console.print(
            f"{average.run}, {average.message}, {average.group}: accuracy {average.macro:.2%} macro, "
            f"{average.micro.value:.2%} micro; format-OK {average.format_ok.value:.2%}; {average.n:,} samples"
        )
    console.print(f"read      {folder / MARKDOWN}\nsamples   {folder / HTML}")


if __name__ == "__main__":
    run_main("report", report)
