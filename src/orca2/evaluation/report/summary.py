"""The figures of one or several evaluations. Pure functions of records and verdicts.

Score        one benchmark, or one of its tasks, under one message
Average      several benchmarks under one message, macro and micro
Difference   two messages of one run, or two runs under one message, sample by sample
Judged       what a judge's verdicts on one benchmark under one message amount to
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from orca2.evaluation.benchmark import Domain
from orca2.evaluation.metrics import Interval, mcnemar, paired_bootstrap, wilson
from orca2.evaluation.report.judged import Judged, judged_of, unjudged
from orca2.evaluation.report.load import Run
from orca2.evaluation.report.paper import GROUPS
from orca2.evaluation.results import by_cell, cell_metrics
from orca2.evaluation.sample_records import SampleRecord

ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkScore:
    """What the answers to a benchmark, or to one of its tasks, amount to under one system message."""

    run: str
    benchmark: str
    version: int
    domain: Domain
    message: str
    task: str
    """Empty: the whole benchmark."""
    n: int
    """Samples, the denominator of every share here: what cannot be read is wrong."""
    metric: str
    """The main one; empty where only a judge scores."""
    value: Interval | None
    """Mean over samples: Wilson's interval for shares, else the bootstrap's; each at 95 %."""
    over_tasks: float | None
    """Unweighted mean of the tasks' means."""
    others: Mapping[str, float]
    """Means of the other metrics."""
    format_ok: Interval
    truncated: float
    """Share of answers that ran into their limit."""
    cut: int
    """Prompts that lost a part of their document."""
    answer_tokens: float
    """Mean over samples of the tokens of all their answers."""
    rules: Mapping[str, int]
    """Extraction rule -> how many answers it decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """Accuracy over several benchmarks under one message."""

    run: str
    message: str
    group: str
    benchmarks: tuple[str, ...]
    n: int
    macro: float
    """Unweighted mean over benchmarks, each the unweighted mean over its tasks."""
    micro: Interval
    """Mean over all samples."""
    format_ok: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Second less first over the samples that both have."""

    benchmark: str
    metric: str
    first: str
    second: str
    n: int
    value: Interval
    """Mean difference with the paired bootstrap's 95 % interval."""
    p: float | None
    """McNemar's exact two-sided p-value; None where the metric is not right or wrong."""
    only_first: int
    only_second: int
    """Samples that only one of the two got right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything that a report says in figures."""

    runs: tuple[str, ...]
    scores: tuple[BenchmarkScore, ...]
    """Scores of whole benchmarks."""
    tasks: tuple[BenchmarkScore, ...]
    averages: tuple[Average, ...]
    between_messages: tuple[Difference, ...]
    between_runs: tuple[Difference, ...]
    judged: tuple[Judged, ...]
    notes: tuple[str, ...] = field(default=())
    """What a reader must know before comparing figures."""


def summarise(runs: Sequence[Run]) -> Summary:
    """The summary of one or several runs, in the order of their records."""
    scores, tasks, averages, between = [], [], [], []
    for run in runs:
        cells = by_cell(run.records)
        own = [_score(run.name, cell) for cell in cells.values()]
        scores += own
        for cell in cells.values():
            parts = _by_task(cell)
            tasks += [_score(run.name, part, task) for task, part in parts.items() if len(parts) > 1]
        averages += _averages(run.name, own, cells)
        between += _between_messages(cells)
    return Summary(
        runs=tuple(run.name for run in runs),
        scores=tuple(scores),
        tasks=tuple(tasks),
        averages=tuple(averages),
        between_messages=tuple(between),
        between_runs=tuple(_between_runs(runs)),
        judged=tuple(one for run in runs for one in judged_of(run)),
        notes=tuple(_notes(runs)),
    )


def _by_task(records: Sequence[SampleRecord]) -> dict[str, list[SampleRecord]]:
    parts: dict[str, list[SampleRecord]] = {}
    for record in records:
        parts.setdefault(record.task, []).append(record)
    return parts


def _score(run: str, records: Sequence[SampleRecord], task: str = "") -> BenchmarkScore:
    first, n = records[0], len(records)
    metric, figures = main_metric(first), cell_metrics(records)
    values = [record.scores[metric] for record in records] if metric else []
    by_task = [_mean([one.scores[metric] for one in part]) for part in _by_task(records).values()] if metric else []
    return BenchmarkScore(
        run=run,
        benchmark=first.benchmark,
        version=first.version,
        domain=first.domain,
        message=first.message,
        task=task,
        n=n,
        metric=metric,
        value=mean_interval(values) if values else None,
        over_tasks=_mean(by_task) if by_task else None,
        others={name: figures[name] for name in first.scores if name != metric},
        format_ok=wilson(sum(record.extraction.ok for record in records), n),
        truncated=figures["truncated"],
        cut=int(figures["cut"]),
        answer_tokens=figures["answer_tokens"],
        rules=dict(Counter(record.extraction.rule for record in records)),
    )


def main_metric(record: SampleRecord) -> str:
    """The first of the record's metrics; empty where it has none."""
    return next(iter(record.scores), "")


def mean_interval(values: Sequence[float]) -> Interval:
    """A mean at 95 %: Wilson's interval where every value is 0 or 1, else the bootstrap's."""
    if set(values) <= {0.0, 1.0}:
        return wilson(round(sum(values)), len(values))
    return paired_bootstrap([0.0] * len(values), values)


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


# Averages -------------------------------------------------------------------------------------------------


def _averages(
    run: str, scores: Sequence[BenchmarkScore], cells: Mapping[tuple[str, str], Sequence[SampleRecord]]
) -> list[Average]:
    averages = []
    for message in dict.fromkeys(score.message for score in scores):
        accurate = {score.benchmark: score for score in scores if score.message == message and score.metric == ACCURACY}
        groups = {
            **{group: names for group, names in GROUPS.items() if set(names) <= set(accurate)},
            "in-domain": [name for name, score in accurate.items() if score.domain == "in_domain"],
            "out-of-domain": [name for name, score in accurate.items() if score.domain == "out_of_domain"],
            "all": list(accurate),
        }
        for group, names in groups.items():
            # The average of one benchmark is its score, and says nothing new unless it is one side of the split.
            if len(names) > 1 or (names and group != "all"):
                records = [record for name in names for record in cells[name, message]]
                averages.append(_average(run, message, group, [accurate[name] for name in names], records))
    return averages


def _average(
    run: str, message: str, group: str, scores: Sequence[BenchmarkScore], records: Sequence[SampleRecord]
) -> Average:
    return Average(
        run=run,
        message=message,
        group=group,
        benchmarks=tuple(score.benchmark for score in scores),
        n=len(records),
        macro=_mean([score.over_tasks for score in scores if score.over_tasks is not None]),
        micro=mean_interval([record.scores[ACCURACY] for record in records]),
        format_ok=wilson(sum(record.extraction.ok for record in records), len(records)),
    )


# Differences ----------------------------------------------------------------------------------------------


def _between_messages(cells: Mapping[tuple[str, str], Sequence[SampleRecord]]) -> list[Difference]:
    """Every message against the first one of its benchmark, which is the empty one where that was asked."""
    found = []
    for benchmark in dict.fromkeys(benchmark for benchmark, _ in cells):
        messages = [message for name, message in cells if name == benchmark]
        base = "empty" if "empty" in messages else messages[0]
        for message in messages:
            if message != base:
                found += difference(cells[benchmark, base], cells[benchmark, message], base, message)
    return found


def _between_runs(runs: Sequence[Run]) -> list[Difference]:
    """Every run against the first one, cell by cell."""
    found = []
    base = by_cell(runs[0].records) if runs else {}
    for run in runs[1:]:
        for (benchmark, message), cell in by_cell(run.records).items():
            other = base.get((benchmark, message))
            if other and other[0].version == cell[0].version:
                names = (f"{runs[0].name}, {message}", f"{run.name}, {message}")
                found += difference(other, cell, *names)
    return found


def difference(
    first: Sequence[SampleRecord], second: Sequence[SampleRecord], first_name: str, second_name: str
) -> list[Difference]:
    """The difference in the main metric, over samples that both have; nothing where they share none."""
    metric = main_metric(first[0])
    before = {record.sample: record for record in first}
    shared = [(before[record.sample], record) for record in second if record.sample in before]
    if not metric or not shared:
        return []
    pairs = [(one.scores[metric], other.scores[metric]) for one, other in shared]
    binary = {value for pair in pairs for value in pair} <= {0.0, 1.0}
    only_first, only_second = sum(a > b for a, b in pairs), sum(b > a for a, b in pairs)
    return [
        Difference(
            benchmark=first[0].benchmark,
            metric=metric,
            first=first_name,
            second=second_name,
            n=len(pairs),
            value=paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs]),
            p=mcnemar(only_first, only_second) if binary else None,
            only_first=only_first,
            only_second=only_second,
        )
    ]


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = [f"{run.name}: {problem}" for run in runs for problem in (*run.problems, *unjudged(run))]
    versions: dict[str, dict[int, list[str]]] = {}
    for run in runs:
        for benchmark, version in dict.fromkeys((record.benchmark, record.version) for record in run.records):
            versions.setdefault(benchmark, {}).setdefault(version, []).append(run.name)
    for benchmark, by_version in versions.items():
        if len(by_version) > 1:
            listed = "; ".join(f"version {version}: {', '.join(names)}" for version, names in by_version.items())
            notes.append(f"{benchmark}: the runs cannot be compared, for they asked different versions ({listed})")
    for benchmark in versions:
        counts = {run.name: _samples_of(run, benchmark) for run in runs}
        counts = {name: samples for name, samples in counts.items() if samples}
        if len(set(map(frozenset, counts.values()))) > 1:
            listed = ", ".join(f"{name} {len(samples):,}" for name, samples in counts.items())
            notes.append(
                f"{benchmark}: the runs asked different samples ({listed}); only differences pair the shared ones"
            )
    return notes


def _samples_of(run: Run, benchmark: str) -> set[str]:
    return {record.sample for record in run.records if record.benchmark == benchmark}
