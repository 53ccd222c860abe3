"""The stages of a curriculum in their order: what is done is left alone, what is not is trained, a table closes.

Each stage is a whole run (`lightning_modules.job`) in its own directory; this part only walks them and writes the
results of the whole.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.table import Table

from orca2.files import atomic_write_json
from orca2.processes.ranks import from_first
from orca2.runs import RunDirectory

COLUMNS = {
    "rows": "data/kept",
    "useful tokens": "data/useful_tokens",
    "accuracy": "held_out/cautious/accuracy",
    "format-OK": "held_out/cautious/format_ok",
}
"""Columns of the closing table, each with its entry in a stage's `results.json`."""


def run_stages(
    run: RunDirectory,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    stages: Mapping[str, RunDirectory],
    train_stage: Callable[[str], Mapping[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Train every stage that is not done with `train_stage(key)`; returns the metrics of the whole.

    These are the last stage's, and those of stage `s` as `stage/s/<metric>`. Every rank calls it; the first one
    locks and writes. Raises CheckpointError if `run` holds another curriculum, and what `train_stage` raises.
    """
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(run.locked()))
        from_first(lambda: run.open_or_resume(config, overrides))
        for number, (key, stage) in enumerate(stages.items(), start=1):
            done = from_first(lambda stage=stage: stage.is_done)  # type: ignore[misc]
            console.rule(f"stage {number} of {len(stages)}: {key}{', done before' if done else ''}")
            if not done:
                train_stage(key)
        return from_first(lambda: _close(run, stages, console))


def _close(run: RunDirectory, stages: Mapping[str, RunDirectory], console: Console) -> dict[str, Any]:
    results = {key: json.loads(stage.results.read_text(encoding="utf-8")) for key, stage in stages.items()}
    last = list(stages)[-1]
    samples = stages[last].path.relative_to(run.path) / results[last].pop("samples")
    metrics: dict[str, Any] = results[last] | {
        f"stage/{key}/{name}": value for key, own in results.items() for name, value in own.items() if name != "samples"
    }
    table = Table(title="stages")
    for number, name in enumerate(("stage", *COLUMNS, "run directory")):
        table.add_column(name, justify="right" if 0 < number <= len(COLUMNS) else "left", overflow="fold")
    for key, own in results.items():
        table.add_row(key, *(_cell(own.get(name)) for name in COLUMNS.values()), str(stages[key].path))
    console.print(table)
    atomic_write_json(run.results, {**metrics, "samples": str(samples)})
    run.mark_done()
    console.print(f"student   {stages[last].student}\nresults   {run.results}")
    return metrics


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
