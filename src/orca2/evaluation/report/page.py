"""The report as one HTML file: figures, chart, and the samples with filters. Nothing is fetched from anywhere.

Texts of models and data sets are escaped. The page is readable without its script, which only filters.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

from orca2.evaluation.report.load import Run
from orca2.evaluation.report.summary import main_metric
from orca2.evaluation.report.tables import Table
from orca2.evaluation.results import by_cell
from orca2.evaluation.sample_records import AnsweredTurn, SampleRecord
from orca2.evaluation.verdicts import JudgeVerdict
from orca2.hashing import hash64
from orca2.pages import content_policy

PROMPT_CHARACTERS = 20_000
"""Characters shown of a prompt or an answer; a meeting's transcript has 60,000. The records hold all of it."""
FILTERS = ("run", "benchmark", "task", "message", "result", "format", "end")


def page(title: str, notes: Sequence[str], tables: Sequence[Table], chart: str, runs: Sequence[Run], each: int) -> str:
    """The whole document, with at most `each` samples of every benchmark, message and run."""
    chosen = [(run, record) for run in runs for record in _chosen(run, each)]
    total = sum(len(run.records) for run in runs)
    verdicts = {run.name: _by_key(run.verdicts) for run in runs}
    cards = "\n".join(_card(run.name, record, verdicts[run.name].get(record.key, ())) for run, record in chosen)
    drawn = "" if len(chosen) == total else f" (drawn from {total:,}, at most {each:,} of each benchmark and message)"
    style, script = _asset("page.css"), _asset("page.js")
    policy = content_policy([script], [style, *re.findall(r"<style>(.*?)</style>", chart, re.DOTALL)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
<nav><a href="#samples">Samples</a>{"".join(map(_link, tables))}</nav>
<figure>{chart}</figure>
{"".join(map(_table, tables))}
<h2 id="samples">Samples</h2>
<p>{len(chosen):,} samples{drawn}. Open one to read its prompt, its answer and what was read out of it.</p>
<form id="filters">{_filters(chosen)}<input type="search" id="words" placeholder="text in prompt or answer">
<output id="shown"></output></form>
{cards}
</main>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _chosen(run: Run, each: int) -> Iterable[SampleRecord]:
    for cell in by_cell(run.records).values():
        # The same samples under every message and in every run, so that they can be compared.
        drawn = sorted(cell, key=lambda record: hash64(record.sample))[:each]
        ids = {record.sample for record in drawn}
        yield from (record for record in cell if record.sample in ids)


def _by_key(verdicts: Sequence[JudgeVerdict]) -> dict[str, list[JudgeVerdict]]:
    found: dict[str, list[JudgeVerdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.key, []).append(verdict)
    return found


# Figures --------------------------------------------------------------------------------------------------


def _anchor(table: Table) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in table.title.lower())


def _link(table: Table) -> str:
    return f'<a href="#{_anchor(table)}">{escape(table.title.partition(",")[0])}</a>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    folded = len(table.rows) > 40
    body = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    body = f"<details><summary>{len(table.rows):,} rows</summary>{body}</details>" if folded else body
    note = f'<p class="about">{_coded(table.note)}</p>' if table.note else ""
    return f'<section><h2 id="{_anchor(table)}">{escape(table.title)}</h2>{note}{body}</section>'


def _coded(note: str) -> str:
    """A note of ours, in which `names` stand in backticks."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(note))


def _cell(text: str) -> str:
    ours = text.startswith("**") and text.endswith("**")
    number = text[:1].isdigit() or text[:1] in "+−–<"
    kind = ' class="number"' if number else ' class="ours"' if ours else ""
    return f"<td{kind}>{escape(text.strip('*') if ours else text)}</td>"


# Samples --------------------------------------------------------------------------------------------------


def _facts(run: str, record: SampleRecord) -> Mapping[str, str]:
    """What a sample can be filtered by."""
    metric = main_metric(record)
    value = record.scores.get(metric)
    result = "not scored" if value is None else "right" if value == 1 else "wrong" if value == 0 else "in part"
    return {
        "run": run,
        "benchmark": record.benchmark,
        "task": record.task,
        "message": record.message,
        "result": result,
        "format": "ok" if record.extraction.ok else "not ok",
        "end": "limit" if record.truncated else "finished",
    }


def _filters(chosen: Sequence[tuple[Run, SampleRecord]]) -> str:
    counts: dict[str, Counter[str]] = {name: Counter() for name in FILTERS}
    for run, record in chosen:
        for name, value in _facts(run.name, record).items():
            counts[name][value] += 1
    parts = []
    for name, values in counts.items():
        if len(values) < 2:
            continue
        options = "".join(
            f'<option value="{escape(value, quote=True)}">{escape(value)} ({count:,})</option>'
            for value, count in values.items()
        )
        parts.append(f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>')
    return "".join(parts)


def _card(run: str, record: SampleRecord, verdicts: Sequence[JudgeVerdict]) -> str:
    facts = _facts(run, record)
    data = " ".join(f'data-{name}="{escape(value, quote=True)}"' for name, value in facts.items())
    scores = ", ".join(f"{name} {value:.3g}" for name, value in record.scores.items())
    read = ", ".join(record.extraction.value) if record.extraction.ok else f"nothing ({record.extraction.rule})"
    # A summary's answer and its references are whole texts: they stand below, not in a line.
    gold = "" if record.kind in ("text", "chat") else " or ".join("; ".join(answer) for answer in record.gold)
    read = "the whole text" if record.kind in ("text", "chat") and record.extraction.ok else read
    badge = f'<b class="{facts["result"].replace(" ", "-")}">{facts["result"]}</b>'
    limit = '<b class="limit">ran into its limit</b>' if record.truncated else ""
    head = f"{badge}{limit}<code>{escape(record.sample)}</code> <i>{escape(record.message)}</i>"
    head += f"<span>read <q>{escape(read[:80])}</q>{f' · right <q>{escape(gold[:80])}</q>' if gold else ''}</span>"
    turns = "".join(_turn(turn, record, number == len(record.turns) - 1) for number, turn in enumerate(record.turns))
    listed = [f"scores: {scores or 'none'}", f"rule: {record.extraction.rule}", f"task: {record.task}"]
    listed += map(_said, verdicts)
    references = "".join(
        f"<h4>reference</h4><pre>{escape('; '.join(answer))}</pre>" for answer in record.gold if not gold
    )
    return (
        f'<details class="card" {data}><summary>{head}</summary><p class="facts">{escape(" · ".join(listed))}</p>'
        f"{turns}{references}</details>"
    )


def _said(verdict: JudgeVerdict) -> str:
    value = f"no verdict ({verdict.problem})" if verdict.value is None else f"{verdict.value:g}"
    return f"{verdict.rubric} by {verdict.judge}, turn {verdict.turn + 1}, run {verdict.judge_run + 1}: {value}"


def _turn(turn: AnsweredTurn, record: SampleRecord, last: bool) -> str:
    facts = f"{turn.answer_tokens:,} tokens, {turn.finish_reason}, {turn.seconds:.1f} s"
    cut = f", {turn.truncated_tokens:,} prompt tokens cut" if turn.truncated_tokens else ""
    span = record.extraction.span if last and record.kind not in ("text", "chat") else None
    trace = f"<h4>reasoning</h4><pre>{escape(_shortened(turn.reasoning))}</pre>" if turn.reasoning else ""
    return (
        f"<h4>prompt</h4><pre>{escape(_shortened(turn.prompt))}</pre>{trace}"
        f"<h4>answer <small>{escape(facts + cut)}</small></h4><pre>{_marked(turn.output, span)}</pre>"
    )


def _marked(text: str, span: tuple[int, int] | None) -> str:
    """The answer, with what was read out of it marked."""
    if not text:
        return "<em>(empty)</em>"
    if span is None or span[1] > PROMPT_CHARACTERS:
        return escape(_shortened(text))
    start, end = span
    return f"{escape(text[:start])}<mark>{escape(text[start:end])}</mark>{escape(_shortened(text[end:]))}"


def _shortened(text: str) -> str:
    half = PROMPT_CHARACTERS // 2
    if len(text) <= PROMPT_CHARACTERS:
        return text
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters are not shown here …]\n{text[-half:]}"
