"""What a sweep found: one row for each arm, its seeds side by side, and the list of what failed.

erasing   seed 17   seed 18   mean ± spread
cautious    91.0%     97.0%    94.0% ± 4.2%
keep        failed    40.0%           40.0%
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from orca2.runs import atomic_write_json, atomic_write_text
from orca2.sweeps import SEED, JobRecord, Sweep


@dataclass(frozen=True)
class Arm:
    """Jobs that differ in nothing but their seed."""

    values: tuple[str, ...]
    by_seed: dict[str, JobRecord]

    @property
    def metrics(self) -> list[float]:
        """Of the jobs that are done and have one."""
        return [record.metric for record in self.by_seed.values() if record.metric is not None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.metrics) if self.metrics else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; of a single one nothing can be said."""
        return statistics.stdev(self.metrics) if len(self.metrics) > 1 else None


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
    console.print(f"\n{sweep.name}: {sweep.metric}; spread: sample standard deviation over seeds", highlight=False)
    table = Table()
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < len(_arm_keys(sweep)) else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for record in failed:
        log = sweep.folder / record.name / "job.log"
        console.print(f"{record.state}: {record.name}: {record.reason}\n  log: {log}", highlight=False, markup=False)
    if failed:
        console.print("The same command again runs these, and no others.", highlight=False)
    atomic_write_json(sweep.folder / "sweep.json", _as_json(sweep, arms, records))
    atomic_write_text(sweep.folder / "sweep.md", _markdown(sweep, header, rows, failed))
    console.print(f"written to {sweep.folder / 'sweep.json'} and sweep.md", highlight=False)


def _arm_keys(sweep: Sweep) -> list[str]:
    return [key for key in sweep.swept if key != SEED]


def _cells(sweep: Sweep, arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    seeds = sorted({seed for arm in arms for seed in arm.by_seed}, key=lambda seed: (len(seed), seed))
    header = [*_arm_keys(sweep), *(f"seed {seed}" if seed else "result" for seed in seeds)]
    rows = [[*arm.values, *(_cell(arm.by_seed.get(seed)) for seed in seeds)] for arm in arms]
    if len(seeds) > 1:
        header.append("mean ± spread")
        rows = [[*row, _mean_cell(arm)] for row, arm in zip(rows, arms, strict=True)]
    return header, rows


def _cell(record: JobRecord | None) -> str:
    if record is None:
        return ""
    return _number(record.metric) if record.state == "done" else record.state


def _mean_cell(arm: Arm) -> str:
    return _number(arm.mean) + ("" if arm.spread is None else f" ± {_number(arm.spread)}")


def _number(value: float | None) -> str:
    return "no metric" if value is None else f"{value:.4f}"


def _as_json(sweep: Sweep, arms: Sequence[Arm], records: Sequence[JobRecord]) -> dict[str, Any]:
    keys = _arm_keys(sweep)
    return {
        "sweep": sweep.name,
        "metric": sweep.metric,
        "spread": "sample standard deviation over seeds",
        "arms": [
            {"values": dict(zip(keys, arm.values, strict=True)), "mean": arm.mean, "spread": arm.spread,
             "n": len(arm.metrics)}
            for arm in arms
        ],
        "jobs": [{key: value for key, value in asdict(record).items() if key != "invocation"} for record in records],
    }  # fmt: skip


def _markdown(sweep: Sweep, header: Sequence[str], rows: Sequence[Sequence[str]], failed: Sequence[JobRecord]) -> str:
    lines = [f"# {sweep.name}", "", f"`{sweep.metric}`; spread: sample standard deviation over seeds.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    lines += ["", *(f"- {record.state}: `{record.name}`: {record.reason}" for record in failed)]
    return "\n".join(lines).rstrip() + "\n"
