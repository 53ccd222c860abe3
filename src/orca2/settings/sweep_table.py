"""What a sweep found: one row for each arm, its seeds side by side, and the list of what failed.

erasing    seed 17   seed 18     mean ± spread   held_out/own/accuracy
cautious    0.9100    0.9700   0.9400 ± 0.0424         0.9400 ± 0.0424
empty       failed    0.0300            0.0300                  0.9500
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from orca2.files import atomic_write_json, atomic_write_text
from orca2.settings.sweeps import SEED, JobRecord, Sweep


@dataclass(frozen=True)
class Arm:
    """Jobs that differ in nothing but their seed."""

    values: tuple[str, ...]
    by_seed: dict[str, JobRecord]

    def figures(self, metric: str) -> "Figures":
        """Over the jobs that are done and have the metric."""
        found = [record.metrics[metric] for record in self.by_seed.values() if metric in record.metrics]
        return Figures(
            mean=statistics.fmean(found) if found else None,
            spread=statistics.stdev(found) if len(found) > 1 else None,
            n=len(found),
        )


@dataclass(frozen=True)
class Figures:
    """One metric of an arm over its seeds."""

    mean: float | None
    spread: float | None
    """Sample standard deviation; a single seed has none."""
    n: int


def arms_of(sweep: Sweep, records: Sequence[JobRecord]) -> list[Arm]:
    """The records by the values of all swept keys but the seed, in order of appearance."""
    arms: dict[tuple[str, ...], Arm] = {}
    for record in records:
        values = tuple(record.values[key] for key in _arm_keys(sweep))
        arms.setdefault(values, Arm(values, {})).by_seed[record.values.get(SEED, "")] = record
    return list(arms.values())


def close_sweep(sweep: Sweep, records: Sequence[JobRecord], console: Console) -> None:
    """Print the table and the failures, and write both to `sweep.json` and `sweep.md` in the sweep's folder."""
    arms, failed = arms_of(sweep, records), [record for record in records if record.state != "done"]
    header, rows = _cells(sweep, arms)
    console.print(f"\n{sweep.name}: {sweep.metrics[0]}; spread: sample standard deviation over seeds")
    table = Table()
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < len(_arm_keys(sweep)) else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for record in failed:
        log = sweep.folder / record.name / "job.log"
        console.print(f"{record.state}: {record.name}: {record.reason}\n  log: {log}", markup=False)
    if failed:
        console.print("The same command again runs these, and no others.")
    atomic_write_json(sweep.folder / "sweep.json", _as_json(sweep, arms, records))
    atomic_write_text(sweep.folder / "sweep.md", _markdown(sweep, header, rows, failed))
    console.print(f"written to {sweep.folder / 'sweep.json'} and sweep.md")


def _arm_keys(sweep: Sweep) -> list[str]:
    return [key for key in sweep.swept if key != SEED]


def _cells(sweep: Sweep, arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    seeds = sorted({seed for arm in arms for seed in arm.by_seed}, key=lambda seed: (len(seed), seed))
    first, *others = sweep.metrics
    header = [*_arm_keys(sweep), *(f"seed {seed}" if seed else "result" for seed in seeds)]
    rows = [[*arm.values, *(_cell(arm.by_seed.get(seed), first) for seed in seeds)] for arm in arms]
    means = [("mean ± spread", first)] if len(seeds) > 1 else []
    for title, metric in (*means, *zip(others, others, strict=True)):
        header.append(title)
        rows = [[*row, _mean_cell(arm.figures(metric))] for row, arm in zip(rows, arms, strict=True)]
    return header, rows


def _cell(record: JobRecord | None, metric: str) -> str:
    if record is None:
        return ""
    return _number(record.metrics.get(metric)) if record.state == "done" else record.state


def _mean_cell(figures: Figures) -> str:
    return _number(figures.mean) + ("" if figures.spread is None else f" ± {_number(figures.spread)}")


def _number(value: float | None) -> str:
    return "no metric" if value is None else f"{value:.4f}"


def _as_json(sweep: Sweep, arms: Sequence[Arm], records: Sequence[JobRecord]) -> dict[str, Any]:
    keys = _arm_keys(sweep)
    return {
        "sweep": sweep.name,
        "spread": "sample standard deviation over seeds",
        "arms": [
            {"values": dict(zip(keys, arm.values, strict=True)),
             "metrics": {name: asdict(arm.figures(name)) for name in sweep.metrics}}
            for arm in arms
        ],
        "jobs": [{key: value for key, value in asdict(record).items() if key != "invocation"} for record in records],
    }  # fmt: skip


def _markdown(sweep: Sweep, header: Sequence[str], rows: Sequence[Sequence[str]], failed: Sequence[JobRecord]) -> str:
    lines = [f"# {sweep.name}", "", f"`{sweep.metrics[0]}`; spread: sample standard deviation over seeds.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    lines += ["", *(f"- {record.state}: `{record.name}`: {record.reason}" for record in failed)]
    return "\n".join(lines).rstrip() + "\n"
