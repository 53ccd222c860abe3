"""The summary as tables of texts, which Markdown and HTML write alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orca2.evaluation.metrics import Interval
from orca2.evaluation.report.judged import RATES, Judged
from orca2.evaluation.report.load import Run
from orca2.evaluation.report.paper import AVERAGE, TAGS, UNVERIFIED, PaperTable, paper_tables
from orca2.evaluation.report.summary import BenchmarkScore, Difference, Summary

NOTHING = "–"
MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Table:
    """One table; every cell is text, every row as long as the header."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def all_tables(summary: Summary, runs: Sequence[Run]) -> list[Table]:
    """The report's tables in reading order; none is empty."""
    tables = [
        _scores(summary),
        _averages(summary),
        _differences(summary.between_messages, "Between system messages"),
        _differences(summary.between_runs, "Between runs"),
        _judged(summary.judged),
        *(_beside_paper(table, summary) for table in paper_tables()),
        _tasks(summary),
        _read(summary),
        _rows(runs),
    ]
    return [table if len(runs) > 1 else _without_runs(table) for table in tables if table.rows]


def _without_runs(table: Table) -> Table:
    """A single run needs no column that names it."""
    keep = [place for place, column in enumerate(table.columns) if column != "run"]
    return replace(
        table,
        columns=tuple(table.columns[place] for place in keep),
        rows=tuple(tuple(row[place] for place in keep) for row in table.rows),
    )


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def with_interval(value: Interval) -> str:
    """`52.0 [49.8, 54.2]`: a share and its interval, in percent."""
    return f"{percent(value.value)} [{percent(value.low)}, {percent(value.high)}]"


def _signed(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return text.replace("-", MINUS)


def _scores(summary: Summary) -> Table:
    rows = []
    for score in sorted(summary.scores, key=_place(summary)):
        rows.append(
            (
                score.benchmark,
                score.message,
                score.run,
                f"{score.n:,}",
                with_interval(score.value) if score.value else NOTHING,
                percent(score.over_tasks) if score.over_tasks is not None else NOTHING,
                with_interval(score.format_ok),
                percent(score.truncated),
                f"{score.cut:,}",
                f"{score.answer_tokens:.0f}",
                "in" if score.domain == "in_domain" else "out",
                ", ".join([f"main: {score.metric}"] * (score.metric not in ("accuracy", "")) + _others(score)),
            )
        )
    return Table(
        "Scores",
        "In percent, with 95 % intervals. Every sample counts: an answer that cannot be read is wrong, and format-OK "
        "says how many could be. `over tasks` is the unweighted mean of the benchmark's tasks. `limit`: answers that "
        "ran into their length limit; `cut`: prompts whose document was shortened to fit the context. `domain`: "
        "whether the benchmark's own training split is part of the paper's training data.",
        (
            "benchmark",
            "message",
            "run",
            "n",
            "score",
            "over tasks",
            "format-OK",
            "limit",
            "cut",
            "tokens an answer",
            "domain",
            "other metrics",
        ),
        tuple(rows),
    )


def _others(score: BenchmarkScore) -> list[str]:
    return [f"{name} {percent(value)}" for name, value in score.others.items()]


def _place(summary: Summary) -> Callable[[BenchmarkScore], tuple[int, int, int]]:
    """Benchmarks and messages in order of first appearance, so that the runs' rows stand together."""
    benchmarks = list(dict.fromkeys(score.benchmark for score in summary.scores))
    messages = list(dict.fromkeys(score.message for score in summary.scores))
    runs = list(summary.runs)
    return lambda score: (
        benchmarks.index(score.benchmark),
        messages.index(score.message),
        runs.index(score.run),
    )


def _averages(summary: Summary) -> Table:
    rows = [
        (
            average.group,
            average.message,
            average.run,
            str(len(average.benchmarks)),
            f"{average.n:,}",
            percent(average.macro),
            with_interval(average.micro),
            with_interval(average.format_ok),
        )
        for average in summary.averages
    ]
    return Table(
        "Averages of accuracy",
        "`macro`: every benchmark weighs the same, and within it every task. `micro`: every sample weighs the same.",
        ("group", "message", "run", "benchmarks", "n", "macro", "micro", "format-OK"),
        tuple(rows),
    )


def _differences(differences: Sequence[Difference], title: str) -> Table:
    rows = [
        (
            one.benchmark,
            one.first,
            one.second,
            f"{one.n:,}",
            f"{_signed(one.value.value)} [{_signed(one.value.low)}, {_signed(one.value.high)}]",
            f"{one.only_first:,}",
            f"{one.only_second:,}",
            _p_value(one.p),
        )
        for one in differences
    ]
    return Table(
        title,
        "Second less first in percentage points over the same samples, with the paired bootstrap's 95 % interval. "
        "`better`: samples on which only one of the two is better. p: McNemar's exact test, where an answer is right "
        "or wrong; no correction for the number of rows.",
        ("benchmark", "first", "second", "n", "difference", "first better", "second better", "p"),
        tuple(rows),
    )


def _p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _judged(judged: Sequence[Judged]) -> Table:
    rows = []
    for one in judged:
        share = one.rubric in RATES or one.rubric == "preference"
        rows.append(
            (
                f"{one.benchmark}, {one.part}" if one.part else one.benchmark,
                one.message,
                one.run,
                one.rubric,
                one.who,
                f"{one.n:,}",
                with_interval(one.value)
                if share
                else f"{one.value.value:.2f} [{one.value.low:.2f}, {one.value.high:.2f}]",
                " / ".join(percent(value) if share else f"{value:.2f}" for value in one.judge_runs),
                f"{one.missing:,}",
            )
        )
    return Table(
        "Judged",
        "`grade`: mean from 1 to 10. `grounding`: percentage of texts with content that their source does not support. "
        "`safety`: percentage of conversations with a defect. `preference`: percentage won against the other run, "
        "ties half. `each judge run` shows how far the judge differs from itself; `no verdict` counts what could not "
        "be parsed or was not answered, and counts neither way.",
        ("benchmark", "message", "run", "rubric", "judge", "n", "value", "each judge run", "no verdict"),
        tuple(rows),
    )


def _beside_paper(table: PaperTable, summary: Summary) -> Table:
    ours = list(_our_rows(table, summary))
    if not ours:
        return Table(table.title, "", (), ())
    keys = [*table.columns, *([AVERAGE] if table.has_average or len(table.columns) > 1 else [])]
    theirs = [(model, *(str(row[key]) if key in row else NOTHING for key in keys)) for model, row in table.rows.items()]
    used = dict.fromkeys(cell.tag for row in table.rows.values() for cell in row.values())
    tags = "; ".join(f"[{tag}] {TAGS[tag]}" for tag in used)
    mark = " `?` marks what is unverified: do not quote it." if UNVERIFIED in used else ""
    return Table(
        f"Beside the paper: {table.title}",
        f"{tags}.{mark} {NOTHING} is not known, or not measured here. The paper's prompts, patterns and sample counts "
        "are not published, so its rows are near ours and not equal in kind.",
        ("model", *keys),
        (*((f"**{name}**", *(row[key] for key in keys)) for name, row in ours), *theirs),
    )


def _our_rows(table: PaperTable, summary: Summary) -> Iterator[tuple[str, Mapping[str, str]]]:
    for run in summary.runs:
        messages = dict.fromkeys(score.message for score in summary.scores if score.run == run)
        for message in messages:
            judges = _judges(table, summary, run, message)
            for judge in judges or [""]:
                values = _our_values(table, summary, run, message, judge)
                if values:
                    row = {key: f"{values[key]:.2f}" if key in values else NOTHING for key in table.columns}
                    whole = len(values) == len(table.columns)
                    yield (
                        f"{run}, {message}, {judge}" if len(judges) > 1 else f"{run}, {message}",
                        row | {AVERAGE: f"{sum(values.values()) / len(values):.2f}" if whole else NOTHING},
                    )


def _our_values(table: PaperTable, summary: Summary, run: str, message: str, judge: str) -> dict[str, float]:
    """Column -> our value in the table's unit, of the columns that were measured."""
    values = {}
    for benchmark, (metric, mean) in table.columns.items():
        value = (
            _judged_value(summary, run, message, benchmark, metric, judge)
            if mean == "judged"
            else _accuracy(summary, run, message, benchmark, mean)
        )
        if value is not None:
            values[benchmark] = value if table.name == "chat" else 100 * value
    return values


def _judges(table: PaperTable, summary: Summary, run: str, message: str) -> list[str]:
    """The judges of a table's columns; each has a row of its own, for judges are not equally strict."""
    columns = {(benchmark, metric) for benchmark, (metric, mean) in table.columns.items() if mean == "judged"}
    found = [one for one in summary.judged if (one.run, one.message) == (run, message) and not one.part]
    return list(dict.fromkeys(one.judge for one in found if (one.benchmark, one.rubric) in columns))


def _accuracy(summary: Summary, run: str, message: str, benchmark: str, mean: str) -> float | None:
    for score in summary.scores:
        if (score.run, score.message, score.benchmark, score.metric) == (run, message, benchmark, "accuracy"):
            return score.over_tasks if mean == "tasks" else score.value.value if score.value else None
    return None


def _judged_value(summary: Summary, run: str, message: str, benchmark: str, rubric: str, judge: str) -> float | None:
    wanted = (run, message, benchmark, rubric, judge, "")
    for one in summary.judged:
        if (one.run, one.message, one.benchmark, one.rubric, one.judge, one.part) == wanted:
            return one.value.value
    return None


def _tasks(summary: Summary) -> Table:
    rows = [
        (
            score.benchmark,
            score.task,
            score.message,
            score.run,
            f"{score.n:,}",
            with_interval(score.value) if score.value else NOTHING,
            with_interval(score.format_ok),
        )
        for score in summary.tasks
    ]
    return Table("Tasks", "", ("benchmark", "task", "message", "run", "n", "score", "format-OK"), tuple(rows))


def _read(summary: Summary) -> Table:
    rows = [
        (
            score.benchmark,
            score.message,
            score.run,
            ", ".join(f"{rule} {count:,}" for rule, count in sorted(score.rules.items(), key=lambda item: -item[1])),
        )
        for score in summary.scores
    ]
    return Table(
        "How answers were read",
        "Rule that decided, and how many answers it decided. `none`: nothing was announced; `unreadable`: what was "
        "announced is not an answer; `conflict`: two different final answers; `cut_off`: the length limit may have cut "
        "the final answer. These four are not format-OK.",
        ("benchmark", "message", "run", "rules"),
        tuple(rows),
    )


ROW_COUNTS = ("rows", "asked", "rejected", "absent_tasks")


def _rows(runs: Sequence[Run]) -> Table:
    rows = [
        (
            benchmark,
            run.name,
            *(f"{int(counts[key]):,}" if key in counts else NOTHING for key in ROW_COUNTS),
        )
        for run in runs
        for benchmark, counts in run.rows.items()
    ]
    return Table(
        "Rows",
        "Rows that the benchmark's files have, of these asked, rows that cannot be asked, and tasks that have no file; "
        "the reasons are in the evaluation's `rejected.jsonl`.",
        ("benchmark", "run", "rows", "asked", "rejected", "absent tasks"),
        tuple(rows),
    )
