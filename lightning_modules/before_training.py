"""What is said of the data before weights load, and of the rows that did not train at the end.

source mine: 60 rows kept, 0 left out by strategy mixed
97 % of the rows do not train (58 of 60): 58 too long for a pack of 256 tokens (the longest has 611): packing.length=611
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from datamodules.erased_prompts import ErasedPromptDataModule
from orca2.data.looking import look
from orca2.data.rendered_rows import RowRenderer
from orca2.leaks import LeakReport
from orca2.records import Example, Rejected
from orca2.rows.source import MapSource, Source, rows_over
from orca2.strategies import StrategyChoice
from orca2.terminal import visible

LEAK_CHECKED_ROWS = 1_000
"""Rows, spread over all; a second of work, enough to see a habit of the teacher."""
RENDERED_ROWS = 200
"""Rows, spread over all, whose lengths are looked at before the run: ours, a tenth of a second of work."""
BOLD_SHARE = 0.2
"""Share of rows that do not train above which a line says so in bold; ours."""


def tell_of_data(data: ErasedPromptDataModule, every_steps: int, max_len: int, console: Console) -> None:
    """Print what is kept and left out, what a look at the rows shows, what validates, and the leaks.

    `every_steps`: between two validations; `max_len`: tokens that the model has positions for.
    """
    source, choice = data.source, data.strategy
    looked, longest = look_at_lengths(source, choice, data.render)
    tell_of_left_out(looked, choice.name, data.packing.length, max_len, console, longest=longest)
    if data.survey is not None:
        left_out = sum(data.survey.left_out.values())
        console.print(
            f"source {source.name}: {data.survey.kept:,} rows kept, {left_out:,} left out by strategy {choice.name}"
        )
    for line in look(source, choice, data.render.erasing, data.render.thinking):
        console.print(line)
    if data.validation is not None and data.validation.taken:
        console.print(
            f"validation: {data.validation.taken:,} rows held out, of which {len(data.validation.rendered):,} can be "
            f"measured; before the first step, every {every_steps:,} and after the last"
        )
    report = leak_check(source, choice)
    if report.checked:
        of = f", spread over {source.size:,} rows," if source.size and source.size > LEAK_CHECKED_ROWS else ""
        console.print(
            f"leak check: {report.leaked} of {report.checked:,} answers{of} quote the teacher's instruction"
            + "".join(f"\n  {identity}: {quote!r}" for identity, quote in report.examples.items())
        )


def look_at_lengths(source: Source, choice: StrategyChoice, render: RowRenderer) -> tuple[Counter[str], int]:
    """What would become of `RENDERED_ROWS` rows: `rows`, and each kind of `Rejected`; and the tokens of the longest.

    Nothing of a stream, whose rows would be fetched twice.
    """
    counts, longest = Counter[str](), 0
    if not isinstance(source, MapSource):
        return counts, longest
    whole = replace(render, length=2**31)
    for row in rows_over(source.size, 0, RENDERED_ROWS):
        item = whole(source.read(row, choice), 0)
        counts["rows"] += 1
        if isinstance(item, Rejected):
            counts[item.kind] += 1
        else:
            longest = max(longest, len(item.ids))
            counts["too_long"] += len(item.ids) > render.length
    return counts, longest


def tell_of_left_out(
    counts: Mapping[str, int],
    strategy: str,
    length: int,
    max_len: int,
    console: Console,
    longest: int | None = None,
    rejected: Path | None = None,
) -> None:
    """A bold line, with what helps, where more than `BOLD_SHARE` of the rows do not train.

    `counts`: `rows` and the kinds of `Rejected`; `longest`: tokens of the longest row, before the run; `rejected`: the
    list of rows, after it.
    """
    rows = counts.get("rows", 0) - counts.get("held_out", 0)
    lost = {kind: counts.get(kind, 0) for kind in ("too_long", "left_out", "broken")}
    if not rows or sum(lost.values()) <= BOLD_SHARE * rows:
        return
    parts = []
    if lost["too_long"]:
        reach = f"packing.length={longest}" if longest is not None else f"a packing.length above {length}"
        model = f", with a model.max_len as high (now {max_len})" if longest is None or longest > max_len else ""
        shown = "" if longest is None else f" (the longest has {longest})"
        parts.append(f"{lost['too_long']:,} too long for a pack of {length} tokens{shown}: {reach} takes them{model}")
    if lost["left_out"]:
        parts.append(f"{lost['left_out']:,} left out by strategy {strategy}: strategy=any takes every stored row")
    if lost["broken"]:
        where = "rejected.jsonl of the run" if rejected is None else str(rejected)
        parts.append(f"{lost['broken']:,} cannot be read: their reasons are in {where}")
    verb, of = ("do", f"{rows:,} looked at") if rejected is None else ("did", f"{rows:,}")
    share = f"{sum(lost.values()) / rows:.0%} of the rows {verb} not train ({sum(lost.values()):,} of {of})"
    console.print(Text(visible(f"{share}: {'; '.join(parts)}"), style="bold"), soft_wrap=True)


def leak_check(source: Source, choice: StrategyChoice) -> LeakReport:
    """Answers of `LEAK_CHECKED_ROWS` rows, spread over all, that quote the instruction which erasing takes away.

    A student that learns such answers learns to speak of an instruction that nobody gave it. Streams are not
    checked: reading ahead would fetch their rows twice.
    """
    report = LeakReport(keep=5)
    if isinstance(source, MapSource):
        for row in rows_over(source.size, 0, LEAK_CHECKED_ROWS):
            example = source.read(row, choice)
            if isinstance(example, Example):
                report.add(example)
    return report
