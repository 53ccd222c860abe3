"""What one should know of stored rows before a run: what of them is left out, not used, or replaced by an erasing.

source chat, 1,000 of 52,002 rows looked at: 37 end with the user: that turn is left out
source chat, 1,000 of 52,002 rows looked at: 1,000 have columns that are not used: id, topic
source chat, 1,000 of 52,002 rows looked at: 812 have a system message of their own, which ...
"""

from collections import Counter
from dataclasses import dataclass, field

from orca2.data.validation_rows import leaves
from orca2.erasing import Erasing
from orca2.records import UNLABELLED, Example
from orca2.rows.source import MapSource, NotingSource, Source, rows_over
from orca2.strategies import StrategyChoice
from orca2.thinking import DROP, Thinking

LOOKED_AT = 1_000
"""Rows of a source, spread over all of it; a second of work."""
_SHOWN = 12
"""Names of columns or keys in one line."""


@dataclass
class _Counts:
    rows: Counter[str] = field(default_factory=Counter)
    """What was noted -> rows."""
    names: dict[str, set[str]] = field(default_factory=dict)
    """What was noted -> names of columns or keys."""


def look(source: Source, choice: StrategyChoice, erasing: Erasing, thinking: Thinking = DROP) -> list[str]:
    """A line for each thing that is to be known; none for a stream, whose rows would be fetched twice."""
    maps = (leaf for _, leaf in leaves(source) if isinstance(leaf, MapSource))
    return [line for leaf in maps for line in _look_at(leaf, choice, erasing, thinking)]


def _look_at(source: MapSource, choice: StrategyChoice, erasing: Erasing, thinking: Thinking) -> list[str]:
    rows = rows_over(source.size, 0, LOOKED_AT)
    counts = _counted(source, rows, choice, erasing, thinking)
    looked = f"{'all ' if len(rows) == source.size else f'{len(rows):,} of '}{source.size:,} rows looked at"
    lines = []
    for what, count in sorted(counts.rows.items()):
        names = sorted(counts.names.get(what, ()))
        more = ", ..." if len(names) > _SHOWN else ""
        named = f": {', '.join(names[:_SHOWN])}{more}" if names else ""
        lines.append(f"source {source.name}, {looked}: {count:,} {what}{named}")
    return lines


def _counted(
    source: MapSource, rows: list[int], choice: StrategyChoice, erasing: Erasing, thinking: Thinking
) -> _Counts:
    counts = _Counts()
    for row in rows:
        example = source.read(row, choice)
        if not isinstance(example, Example):
            continue
        # The instruction of a strategy is meant to be replaced; a message that came with the row may not be.
        if example.strategy == UNLABELLED and example.system.strip() and erasing.system(example, 0) != example.system:
            replaced = f"which erasing={erasing.name} replaces; erasing=keep trains under it"
            counts.rows[f"have a system message of their own, {replaced}"] += 1
        if example.reasoning and thinking.share == 0:
            counts.rows["have a reasoning trace, which thinking=drop leaves out; thinking=keep trains on it"] += 1
        elif not example.reasoning and thinking.share > 0:
            counts.rows[f"have no reasoning trace, so thinking={thinking.name} trains on their answer alone"] += 1
        notes = source.notes(row) if isinstance(source, NotingSource) else ()
        counts.rows.update({what for what, _ in notes})
        for what, name in set(notes):
            if name:
                counts.names.setdefault(what, set()).add(name)
    return counts
