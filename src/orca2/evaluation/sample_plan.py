"""What an evaluation asks: every sample of every benchmark, or a seeded few, and the rows that cannot be asked."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orca2.errors import ConfigError, DataError
from orca2.evaluation.benchmark import Benchmark, Sample
from orca2.evaluation.metrics import missing_packages
from orca2.hashing import hash64
from orca2.records import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSamples:
    """One benchmark with its samples, in file order."""

    benchmark: Benchmark
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...]
    rows: int
    """Samples in the files, before any limit."""
    absent: tuple[Rejected, ...] = ()
    """Tasks without a file; they are not rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """All that will be asked, under each system message."""

    benchmarks: Mapping[str, BenchmarkSamples]
    absent: Mapping[str, str]
    """Benchmark -> why nothing of it is asked; only where the caller allowed that."""


def make_plan(
    benchmarks: Mapping[str, Benchmark],
    data_dir: Path | None,
    limit: int | None,
    seed: int,
    allow_missing: bool,
) -> SamplePlan:
    """Read every benchmark. `limit`: at most so many samples of each, drawn by `seed`; None: all.

    Raises:
        ConfigError: `data_dir` is not a folder, or a package that computes a benchmark's score is not installed.
        DataError: benchmarks whose files are absent or unreadable, all of them listed, unless `allow_missing`; or
            nothing is left to ask.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise ConfigError(
            f"data_dir = {str(data_dir)!r} is not a folder; give the one that holds the benchmarks' files"
        )
    unscored = {name: missing for name, one in benchmarks.items() if (missing := missing_packages(one.metrics))}
    if unscored:
        packages = ", ".join(dict.fromkeys(package for missing in unscored.values() for package in missing))
        raise ConfigError(
            f"{', '.join(unscored)}: the score needs {packages}, not installed here: "
            "pip install 'orca2-lightning[eval-text]'"
        )
    planned, absent = {}, {}
    for name, benchmark in benchmarks.items():
        try:
            planned[name] = _read(benchmark, data_dir, limit, seed)
        except DataError as error:
            absent[name] = str(error)
    if not planned or (absent and not allow_missing):
        hint = "\nallow_missing=true measures the others without them" if planned else ""
        raise DataError("\n".join(absent.values()) + hint)
    return SamplePlan(benchmarks=planned, absent=absent)


def _read(benchmark: Benchmark, data_dir: Path | None, limit: int | None, seed: int) -> BenchmarkSamples:
    rows = list(benchmark.samples(data_dir))
    samples = [row for row in rows if isinstance(row, Sample)]
    rejected = tuple(row for row in rows if isinstance(row, Rejected) and row.kind != "absent")
    absent = tuple(row for row in rows if isinstance(row, Rejected) and row.kind == "absent")
    if not samples:
        reasons = "; ".join(f"{row.row}: {row.reason}" for row in (*rejected, *absent)[:3])
        raise DataError(f"benchmark {benchmark.name!r}: none of its {len(rejected)} rows can be asked ({reasons})")
    return BenchmarkSamples(
        benchmark=benchmark,
        samples=draw(samples, limit, seed),
        rejected=rejected,
        rows=len(samples),
        absent=absent,
    )


def draw(samples: list[Sample], limit: int | None, seed: int) -> tuple[Sample, ...]:
    """At most `limit` samples in their order; a smaller limit draws a part of what a larger one draws."""
    if limit is None or limit >= len(samples):
        return tuple(samples)
    chosen = heapq.nsmallest(limit, samples, key=lambda sample: hash64(f"{seed}/{sample.id}"))
    ids = {sample.id for sample in chosen}
    return tuple(sample for sample in samples if sample.id in ids)
