"""Writes a report's four files."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from orca2.evaluation.report.chart import bar_chart
from orca2.evaluation.report.judged import RUBRICS, Judged
from orca2.evaluation.report.load import Run
from orca2.evaluation.report.markdown import markdown
from orca2.evaluation.report.page import page
from orca2.evaluation.report.summary import Summary, summarise
from orca2.evaluation.report.tables import all_tables
from orca2.files import atomic_write_json, atomic_write_text

MARKDOWN, HTML, JSON, SVG = "report.md", "report.html", "report.json", "report.svg"
SAMPLES_EACH = 200
"""Samples of each benchmark, message and run on the page; ours: the six of Table 1 under two messages make a page
of a few megabytes."""


def add_judged(folder: Path, judged: Sequence[Judged]) -> None:
    """Renew `<benchmark>/<message>/<rubric>`, and how many answers have no verdict, in the folder's `results.json`.

    Where several judges have judged the same, or against several evaluations, the name goes on with `:` and which.
    An evaluation that is not finished has no such file, and gets the figures when it is.
    """
    path = folder / "results.json"
    if not path.exists():
        return
    results = json.loads(path.read_text(encoding="utf-8"))
    results = {key: value for key, value in results.items() if not _is_judged(key)}
    whole = [one for one in judged if not one.part]
    times = Counter((one.benchmark, one.message, one.rubric) for one in whole)
    for one in whole:
        cell = (one.benchmark, one.message, one.rubric)
        # A key has three parts between slashes, which a model's name or a folder may have too.
        which = ":" + re.sub(r"[^\w.-]+", "_", one.who) if times[cell] > 1 else ""
        name = "/".join(cell)
        results |= {f"{name}{which}": one.value.value, f"{name}_missing{which}": one.missing}
    atomic_write_json(path, results)


def _is_judged(key: str) -> bool:
    return key.rpartition("/")[2].partition(":")[0].removesuffix("_missing") in RUBRICS


def write_report(runs: Sequence[Run], folder: Path, samples_each: int = SAMPLES_EACH) -> Summary:
    """Write `report.md`, `report.html`, `report.json` and `report.svg` to `folder`; returns what they say."""
    summary = summarise(runs)
    tables = all_tables(summary, runs)
    title = "Evaluation of " + ", ".join(run.name for run in runs)
    chart = bar_chart(summary.scores, len(runs) > 1)
    if chart:
        atomic_write_text(folder / SVG, chart)
    atomic_write_text(folder / MARKDOWN, markdown(title, summary.notes, tables, SVG if chart else None))
    atomic_write_text(folder / HTML, page(title, summary.notes, tables, chart, runs, samples_each))
    atomic_write_json(folder / JSON, asdict(summary))
    return summary
