"""One evaluation, from plain objects to a finished folder.

    student found, rows read, folder opened -> weights loaded -> asked -> merged, summed up

    <out_dir>/  config.yaml  manifest.json  samples.jsonl  rejected.jsonl  results.json  DONE
                report.md  report.html  report.json  report.svg
                student_cache.sqlite  spending/<account>.json    of a model that is asked
                shards/<rank>.jsonl    while it runs: what each process has answered

Mistakes in the configuration or the data are found before weights load. The same job again goes on where it
stopped, with any batch size and number of processes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orca2.asking.budget import Budget
from orca2.asking.run_accounts import Share
from orca2.asking.student_specs import AskedSpec, with_share
from orca2.console import open_console
from orca2.errors import ConfigError
from orca2.evaluation.benchmark import Benchmark, BenchmarkGroup, flatten
from orca2.evaluation.messages import SystemMessages
from orca2.evaluation.report.load import run_name
from orca2.evaluation.report.write import HTML, MARKDOWN
from orca2.evaluation.results import result_rows
from orca2.evaluation.results_folder import finish, is_whole, open_for, write_rejected
from orca2.evaluation.runner import SAMPLES, SHARDS, answer_missing, expand, stored_records
from orca2.evaluation.sample_plan import SamplePlan, make_plan
from orca2.generation import BackendSpec, Format, StudentFiles
from orca2.processes.handshake import (
    answer_call,
    check_starter,
    everyone_answered,
    open_call,
    other_processes,
    wait_until,
)
from orca2.processes.ranks import ALONE, Ranks, launched
from orca2.progress import answering
from orca2.runs import RunDirectory, signature, without_secrets

CACHE = "student_cache.sqlite"
"""In the folder of results."""
PATIENCE_S = 1800.0
"""Seconds without any new record after which other processes count as lost; ours: loading 13B takes minutes."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What to ask, of whom, and how.

    Raises:
        ConfigError: `limit`, `processes` or a cap is not positive, or a cap is for a backend that is not paid.
    """

    student: str | None
    benchmark: Benchmark | BenchmarkGroup
    backend: BackendSpec
    messages: SystemMessages
    format: Format
    data_dir: str | None
    """Folder of the benchmarks' official files; None: from the hub."""
    limit: int | None
    seed: int
    """Draws the samples where there is a limit."""
    processes: int
    allow_missing: bool
    cache: str | None
    """Every answer that was paid for; None: in the folder of results."""
    max_usd: float | None
    max_tokens: int | None
    max_requests: int | None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit = {self.limit}: give 1 or more samples of each benchmark, or null for all")
        if self.processes < 1:
            raise ConfigError(f"processes = {self.processes}: give 1 or more")
        given = [key for key in ("cache", "max_usd", "max_tokens", "max_requests") if getattr(self, key) is not None]
        if given and not isinstance(self.backend, AskedSpec):
            raise ConfigError(
                f"{', '.join(given)}: for models that are asked, such as backend=openai; backend={self.backend.name} "
                "answers here, and its samples alone are kept"
            )
        _ = self.budget

    def plan(self) -> SamplePlan:
        data_dir = None if self.data_dir is None else Path(self.data_dir)
        return make_plan(flatten(self.benchmark), data_dir, self.limit, self.seed, self.allow_missing)

    @property
    def budget(self) -> Budget:
        return Budget(max_usd=self.max_usd, max_tokens=self.max_tokens, max_requests=self.max_requests)

    def backend_of(self, rank: Ranks, folder: Path) -> BackendSpec:
        """The backend; one that asks a model gets this rank's share of the caps, and the cache of its machine."""
        if not isinstance(self.backend, AskedSpec):
            return self.backend
        # sqlite locks on one machine only.
        name = CACHE if rank.node == 0 else f"{Path(CACHE).stem}-{rank.node}{Path(CACHE).suffix}"
        share = Share(
            owner=str(folder.resolve()),
            folder=folder,
            cache=folder / name if self.cache is None else Path(self.cache),
            budget=self.budget,
            rank=rank.rank,
            world=rank.world,
        )
        return with_share(self.backend, share)

    def folder(self, student: StudentFiles) -> Path:
        """The folder of results if the user names none: inside the run's own directory if there is one."""
        run = None if self.student is None else Path(self.student)
        if run is not None and (run / "manifest.json").is_file():
            return run / "evaluations" / self.benchmark.name
        return Path("runs", "evaluations", student.name, self.benchmark.name)


def run_evaluation(
    job: EvaluationJob,
    out_dir: Path | None,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    command: Sequence[str],
    environment: Mapping[str, str],
    console: Console,
) -> dict[str, float] | None:
    """Do what is not done yet; the flat figures of `results.json`, or None in a process that is not the first.

    `config` is the storable config, `command` starts another process of the same job.
    Raises the errors of `orca2.errors` for what the user can mend; earlier answers are kept.
    """
    rank, plan = launched(environment) or ALONE, job.plan()  # before a student is fetched
    student = job.backend.find(job.student)
    messages = job.messages.of(student.own_messages)
    run = RunDirectory(out_dir or job.folder(student), key="out_dir")
    config = {**config, "student_fingerprint": student.fingerprint}
    if rank.rank > 0:
        _help(job, student, messages, plan, run, config, rank, environment)
        return None
    with run.locked():
        if open_for(plan, run, config, overrides) == "done":
            console.print(f"{run.path} is done; its results:")
        else:
            _show_plan(plan, messages, job, console)
            write_rejected(plan, run.path)
            word = open_call(run.path / SHARDS)
            with other_processes(command, rank, job.processes) as (rank, check):
                identity = _answer(job, student, messages, plan, run, rank, check, console)
                wait_until(
                    lambda: everyone_answered(run.path / SHARDS, word, rank.world),
                    lambda: _sizes(run),
                    "the other processes",
                    PATIENCE_S,
                    check,
                )
                finish(plan, expand(plan, messages, identity), run.path, run_name(run.path))
                if isinstance(asked := job.backend_of(rank, run.path), AskedSpec) and asked.share is not None:
                    spent = asked.share.taken().told(price_known=asked.model.price is not None)
                    console.print(f"spent     {spent}")
        results: dict[str, Any] = json.loads(run.results.read_text(encoding="utf-8"))
        flat = {key: value for key, value in results.items() if isinstance(value, (int, float))}
        console.print(result_table(flat))
        console.print(f"results   {run.results}\nreport    {run.path / MARKDOWN}")
        console.print(f"samples   {run.path / SAMPLES}\n          {run.path / HTML}")
        return flat


def _help(
    job: EvaluationJob,
    student: StudentFiles,
    messages: Mapping[str, str],
    plan: SamplePlan,
    run: RunDirectory,
    config: Mapping[str, Any],
    rank: Ranks,
    environment: Mapping[str, str],
) -> None:
    """The work of any process but the first: its share, or nothing if the evaluation is done."""

    def check() -> None:
        check_starter(environment)

    first = f"the first process to open {run.path}"
    wait_until(lambda: _is_open(run, config), lambda: None, first, PATIENCE_S, check)
    if is_whole(plan, run):
        return
    _answer(job, student, messages, plan, run, rank, check, open_console(quiet=True))
    over = answer_call(run.path / SHARDS, rank.rank, lambda: is_whole(plan, run))
    wait_until(over, lambda: _sizes(run), "the first process to finish", PATIENCE_S, check)


def _answer(
    job: EvaluationJob,
    student: StudentFiles,
    messages: Mapping[str, str],
    plan: SamplePlan,
    run: RunDirectory,
    rank: Ranks,
    check: Callable[[], None],
    console: Console,
) -> Mapping[str, str]:
    """Ask this rank's share; returns the identity of the backend. `check` is called after each sample."""
    with job.backend_of(rank, run.path).open(student, job.format, rank.local_rank) as backend:
        asked = expand(plan, messages, backend.identity)
        known, wrong = stored_records(run.path)
        for line in wrong:
            console.print(f"not believed, asked again: {line}")
        mine = asked[rank.rank :: rank.world]
        done = sum(one.key in known for one in mine)
        if done:
            console.print(f"resuming: {done:,} of {len(mine):,} samples are answered")
        with answering(console, len(mine), done) as show:

            def on_done() -> None:
                check()
                show()

            answer_missing(asked, known, backend, run.path, rank, on_done)
    return backend.identity


def _sizes(run: RunDirectory) -> list[int]:
    """Bytes of the shards: they grow while any process answers."""
    try:
        return [path.stat().st_size for path in (run.path / SHARDS).glob("*.jsonl")]
    except FileNotFoundError:  # the first process is merging them
        return []


def _is_open(run: RunDirectory, config: Mapping[str, Any]) -> bool:
    wanted = signature(without_secrets(config))
    try:
        return bool(json.loads(run.manifest.read_text(encoding="utf-8"))["config_signature"] == wanted)
    except (OSError, ValueError, KeyError):
        return False


def _show_plan(plan: SamplePlan, messages: Mapping[str, str], job: EvaluationJob, console: Console) -> None:
    for name, planned in plan.benchmarks.items():
        drawn = "" if job.limit is None else f", {len(planned.samples):,} drawn by seed {job.seed}"
        console.print(
            f"{name}: {planned.rows:,} samples{drawn}; {len(planned.rejected)} rows cannot be asked, "
            f"{len(planned.absent)} tasks have no file"
        )
    for name, reason in plan.absent.items():
        console.print(f"{name}: left out: {reason}")
    console.print(f"system messages: {', '.join(messages)}; backend {job.backend.name}")


def result_table(flat: Mapping[str, float]) -> Table:
    """The figures for people. Where a benchmark has no accuracy, a judge scores it later."""
    table = Table(title="zero-shot, greedy")
    for column in ("benchmark", "system message", "n", "accuracy", "format-OK", "other", "tokens", "truncated", "cut"):
        table.add_column(column, justify="left" if column in ("benchmark", "system message", "other") else "right")
    usual = ("n", "accuracy", "format_ok", "answer_tokens", "truncated", "cut")
    for benchmark, message, metrics in result_rows(flat):
        others = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items() if name not in usual)
        table.add_row(
            benchmark,
            message,
            f"{metrics['n']:,.0f}",
            f"{metrics['accuracy']:.2%}" if "accuracy" in metrics else "judged",
            f"{metrics['format_ok']:.2%}",
            others,
            f"{metrics['answer_tokens']:.0f}",
            f"{metrics['truncated']:.1%}",
            f"{metrics['cut']:,.0f}",
        )
    return table
