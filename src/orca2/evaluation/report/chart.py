"""A bar chart with intervals as SVG: no library, no script, readable in a browser and in a Markdown viewer.

gsm8k   empty     ████████████├──┤        52.0
        cautious  ██████████████├──┤      58.1
"""

from collections.abc import Sequence
from html import escape

from orca2.evaluation.report.summary import BenchmarkScore

WIDTH, LABELS, BAR, GAP, HEAD = 760, 270, 16, 10, 28
"""Pixels: of the picture, of the names at its left, of a bar's height, between benchmarks, of the axis."""
COLOURS = ("#2f6f9f", "#d98736", "#5a8f4e", "#8a63a8", "#b0544f", "#6b7280")
"""One for each series; told apart also in greys and by most colour-blind readers."""


def bar_chart(scores: Sequence[BenchmarkScore], several_runs: bool) -> str:
    """The main metric of every score, in percent; empty where none has one."""
    shown = [score for score in scores if score.value]
    if not shown:
        return ""
    series = list(dict.fromkeys(_series(score, several_runs) for score in shown))
    benchmarks = list(dict.fromkeys(score.benchmark for score in shown))
    body, y = [], HEAD
    for benchmark in benchmarks:
        own = [score for score in shown if score.benchmark == benchmark]
        metric = own[0].metric
        body.append(_text(4, y + BAR - 4, benchmark if metric == "accuracy" else f"{benchmark} ({metric})", "name"))
        for score in sorted(own, key=lambda score: series.index(_series(score, several_runs))):
            name = _series(score, several_runs)
            body += _bar(score, name, y, COLOURS[series.index(name) % len(COLOURS)])
            y += BAR + 2
        y += GAP
    height = y + 4
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2937}.name{font-weight:600}.grid{stroke:#d1d5db}"
        ".whisker{stroke:#111827;stroke-width:1.5}.axis,.series{fill:#4b5563}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Scores with 95 % intervals"><style>{style}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>{_grid(height)}{"".join(body)}</svg>'
    )


def _series(score: BenchmarkScore, several_runs: bool) -> str:
    return f"{score.run}, {score.message}" if several_runs else score.message


def _x(share: float) -> float:
    return LABELS + share * (WIDTH - LABELS - 50)


def _grid(height: int) -> str:
    lines = []
    for tick in range(0, 101, 20):
        x = _x(tick / 100)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD - 6}" y2="{height - 4}"/>')
        lines.append(_text(x - 8, HEAD - 12, str(tick), "axis"))
    return "".join(lines)


def _bar(score: BenchmarkScore, name: str, y: int, colour: str) -> list[str]:
    value = score.value
    assert value is not None
    middle = y + BAR / 2
    whisker = (
        f'<line class="whisker" x1="{_x(value.low):.1f}" x2="{_x(value.high):.1f}" y1="{middle}" y2="{middle}"/>'
    ) + "".join(
        f'<line class="whisker" x1="{_x(end):.1f}" x2="{_x(end):.1f}" y1="{middle - 3}" y2="{middle + 3}"/>'
        for end in (value.low, value.high)
    )
    low, mean, high = (f"{100 * share:.1f}" for share in (value.low, value.value, value.high))
    title = f"{score.benchmark}, {name}: {score.metric} {mean} [{low}, {high}], n = {score.n:,}"
    return [
        f"<g><title>{escape(title)}</title>",
        f'<rect x="{LABELS}" y="{y}" width="{max(1.0, _x(value.value) - LABELS):.1f}" height="{BAR}" fill="{colour}"/>',
        whisker,
        _text(LABELS - 8, y + BAR - 4, name, "series", end=True),
        _text(_x(value.high) + 6, y + BAR - 4, mean, "axis"),
        "</g>",
    ]


def _text(x: float, y: float, text: str, kind: str, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    short = text if len(text) <= 26 else text[:25] + "…"
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{anchor}>{escape(short)}</text>'
