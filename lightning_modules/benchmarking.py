"""A benchmark at the end of a run: what `evaluate.py` does, on the student in memory, in the run's own processes.

rows read before weights load ──▶ fit ──▶ <run>/evaluations/train-<benchmark>/  samples, report ──▶ results.json, W&B

The folder is not that of `evaluate.py`, whose records hold another config and other messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from orca2.evaluation.benchmark import Benchmark, BenchmarkGroup, flatten
from orca2.evaluation.report.write import HTML
from orca2.evaluation.results_folder import finish, write_rejected
from orca2.evaluation.runner import answer_missing, expand, stored_records
from orca2.evaluation.sample_plan import SamplePlan, make_plan
from orca2.generation.hf import HFGenerator
from orca2.generation.tokens import TokenBackend
from orca2.modelling.sharding import gathered
from orca2.modelling.student_model import StudentForLoss
from orca2.processes.ranks import everyone, from_first, here
from orca2.progress import answering
from orca2.rendering.renderer import Renderer

SEED = 0
"""Draws the samples where there is a limit: that of `conf/evaluate.yaml`, so that both ask the same."""


@dataclass(frozen=True, kw_only=True)
class PlannedBenchmark:
    """A benchmark whose rows are read."""

    name: str
    plan: SamplePlan


def plan_benchmark(
    benchmark: Benchmark | BenchmarkGroup | None, data_dir: str | None, limit: int | None
) -> PlannedBenchmark | None:
    """Read the rows; None where no benchmark is wanted. Raises DataError and ConfigError, see `make_plan`."""
    if benchmark is None:
        return None
    folder = None if data_dir is None else Path(data_dir)
    return PlannedBenchmark(name=benchmark.name, plan=make_plan(flatten(benchmark), folder, limit, SEED, False))


def ask_benchmark(
    planned: PlannedBenchmark | None,
    student: StudentForLoss,
    renderer: Renderer,
    messages: Mapping[str, str],
    max_len: int,
    run_path: Path,
    name: str,
    signature: str,
    console: Console,
) -> dict[str, float]:
    """The flat figures, on every rank; each asks its share. A run that was killed here goes on where it was.

    `signature` is that of the run's config: other weights never share records.
    """
    if planned is None:
        return {}
    folder, ranks = run_path / "evaluations" / f"train-{planned.name}", here()
    from_first(lambda: write_rejected(planned.plan, folder))
    generator = HFGenerator(student.model, renderer.pad_id, [renderer.end_id], max_len)
    backend = TokenBackend(renderer, generator.stream, max_len, {"backend": "train", "run": signature})
    asked = expand(planned.plan, messages, backend.identity)
    known = everyone(sorted(stored_records(folder)[0]))[0]  # as the first rank sees them, before any writes
    mine = asked[ranks.rank :: ranks.world]
    done = sum(one.key in set(known) for one in mine)
    console.print(f"benchmark {planned.name}: {len(asked):,} answers")
    with gathered(student), answering(console, len(mine), done) as on_done:
        answer_missing(asked, known, backend, folder, ranks, on_done)
    everyone(None)  # all shares are written

    figures = from_first(lambda: finish(planned.plan, asked, folder, name))
    console.print(f"benchmark {planned.name}: {folder / HTML}")
    return figures
