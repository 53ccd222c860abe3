"""The flat figures of `results.json`, from records.

`<benchmark>/<system message>/<metric>`: what the benchmark scores (accuracy first, where it has one), then

    format_ok       share of answers in which exactly one final answer of the right form was found
    n               samples; the denominator of everything here
    answer_tokens   mean, without end tokens
    truncated       share of answers that ran into their limit
    cut             prompts that lost a part of their document, a number
"""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from orca2.evaluation.sample_plan import SamplePlan
from orca2.evaluation.sample_records import SampleRecord

Cell = tuple[str, str]
"""Benchmark and name of the system message."""


def by_cell(records: Iterable[SampleRecord]) -> dict[Cell, list[SampleRecord]]:
    """The records of each benchmark under each message, in order of first appearance."""
    cells: dict[Cell, list[SampleRecord]] = {}
    for record in records:
        cells.setdefault((record.benchmark, record.message), []).append(record)
    return cells


def cell_metrics(records: Sequence[SampleRecord]) -> dict[str, float]:
    """Metric to value for the records of one cell, of which there is at least one."""
    n = len(records)
    scores = {name: fsum(record.scores[name] for record in records) / n for name in records[0].scores}
    return scores | {
        "format_ok": sum(record.extraction.ok for record in records) / n,
        "n": n,
        "answer_tokens": sum(turn.answer_tokens for record in records for turn in record.turns) / n,
        "truncated": sum(record.truncated for record in records) / n,
        "cut": sum(any(turn.truncated_tokens for turn in record.turns) for record in records),
    }


def flat_results(records: Iterable[SampleRecord], plan: SamplePlan) -> dict[str, float]:
    """All figures, and for each benchmark how many rows its files have and how many cannot be asked."""
    flat: dict[str, float] = {}
    for (benchmark, message), cell in by_cell(records).items():
        flat |= {f"{benchmark}/{message}/{metric}": value for metric, value in cell_metrics(cell).items()}
    for name, planned in plan.benchmarks.items():
        flat |= {f"data/{name}/rows": planned.rows, f"data/{name}/asked": len(planned.samples)}
        flat |= {f"data/{name}/rejected": len(planned.rejected), f"data/{name}/absent_tasks": len(planned.absent)}
    return flat


def result_rows(flat: Mapping[str, float]) -> list[tuple[str, str, dict[str, float]]]:
    """(benchmark, message, metric -> value) of flat results, for a table; without the counts of rows."""
    rows: dict[Cell, dict[str, float]] = {}
    for key, value in flat.items():
        first, second, metric = key.split("/")
        if first != "data":
            rows.setdefault((first, second), {})[metric] = value
    return [(benchmark, message, metrics) for (benchmark, message), metrics in rows.items()]
