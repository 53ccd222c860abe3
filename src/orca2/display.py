"""What people look at on a terminal: an example at every step, the table of scores, the loss curve."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from orca2.erasing import Erasing
from orca2.evaluation.held_out import MEAN, TaskScore
from orca2.leaks import leaked_ngrams
from orca2.records import Example, MicroBatch, Tokens
from orca2.rendering.renderer import Renderer
from orca2.terminal import visible
from orca2.thinking import DROP, Thinking

LABEL_STYLE = "bold green"
PROMPT_STYLE = "dim"


def example_panels(
    example: Example, erasing: Erasing, renderer: Renderer, epoch: int = 0, thinking: Thinking = DROP
) -> RenderableType:
    """One example as the teacher saw it, as the student sees it, and as tokens with the loss mask in colour."""
    system = erasing.system(example, epoch)
    trace = thinking.trace(example)
    tokens = renderer.example(system, example.user, example.answer, example.history, trace=trace)
    leaks = leaked_ngrams(example)
    note = Text(f"\nquotes the erased instruction: {', '.join(map(repr, leaks))}", style="red") if leaks else Text()
    # Text, not markup: an id or a task may hold brackets.
    heading = visible(f"{example.id}   task {example.task}   strategy {example.strategy}   teacher {example.teacher}")
    return Group(
        Panel(_prompt(example.system, example.user), title=Text(f"teacher's prompt · {heading}"), title_align="left"),
        Panel(
            _prompt(system, example.user),
            title=f"student's prompt · erasing {erasing.name}",
            title_align="left",
        ),
        *([] if not example.reasoning else [_trace_panel(example, thinking, kept=trace is not None)]),
        Panel(Text(visible(example.answer)) + note, title="answer, the same for both", title_align="left"),
        Panel(
            token_text(tokens, renderer),
            title=f"tokens · {len(tokens.ids)}, of which {sum(tokens.loss_mask)} carry loss (green)",
            title_align="left",
        ),
    )


def _trace_panel(example: Example, thinking: Thinking, kept: bool) -> Panel:
    what = "the student learns it" if kept else "the student does not learn it"
    title = f"teacher's reasoning trace · thinking {thinking.name}: {what}"
    return Panel(Text(visible(example.reasoning)), title=title, title_align="left")


def _prompt(system: str, user: str) -> Text:
    shown = visible(system) or "(empty)"
    return Text.assemble(("system  ", "cyan"), shown, "\n", ("user    ", "cyan"), visible(user))


def token_text(tokens: Tokens, renderer: Renderer) -> Text:
    """The tokens with a bar between them; those that carry loss in colour."""
    text = Text()
    for piece, carries_loss in zip(renderer.pieces(tokens.ids), tokens.loss_mask, strict=True):
        text.append(visible(piece).replace("\n", "⏎\n"), style=LABEL_STYLE if carries_loss else PROMPT_STYLE)
        text.append("" if piece.endswith("\n") else "·", style="bright_black")
    return text


def pack_table(micro: MicroBatch, highlight: str) -> Table:
    """The documents of a row, in order; `highlight` is the id of the example that was looked at."""
    total = sum(micro.lengths)
    table = Table(
        title=f"the row it lands in · {total} tokens, {len(micro.examples)} examples isolated from each other"
    )
    for column in ("example", "task", "strategy", "tokens", "label tokens"):
        table.add_column(column, justify="right" if "tokens" in column else "left")
    for example in micro.examples:
        table.add_row(
            Text(visible(example.id)),
            Text(visible(example.task)),
            Text(visible(example.strategy)),
            str(example.useful_tokens),
            str(example.label_tokens),
            style="bold" if example.id == highlight else "",
        )
    padding = total - sum(example.useful_tokens for example in micro.examples)
    table.add_row("padding", "", "", str(padding), "0", style=PROMPT_STYLE)
    return table


def score_table(scores_by_message: Mapping[str, Sequence[TaskScore]]) -> Table:
    """Per task and system message: accuracy, format-OK, answer length, and the strategies that the student used."""
    table = Table(title="held-out questions, answered greedily")
    table.add_column("task")
    for message in scores_by_message:
        table.add_column(f"{message}: accuracy", justify="right")
        table.add_column("format-OK", justify="right")
        table.add_column("tokens", justify="right")
    table.add_column("strategies used")
    for rows in zip(*scores_by_message.values(), strict=True):
        cells = [f"{row.accuracy:.0%} {row.format_ok:.0%} {row.answer_tokens:.0f}".split() for row in rows]
        used = sorted(rows[0].strategies.items(), key=lambda item: -item[1])
        table.add_row(
            rows[0].task,
            *(cell for triple in cells for cell in triple),
            "" if rows[0].task == MEAN else ", ".join(f"{name} {count}" for name, count in used),
            style="bold" if rows[0].task == MEAN else "",
        )
    return table


def loss_curve(metrics_csv: Path, width: int = 72, height: int = 12) -> str:
    """The training loss over the optimizer steps, drawn with characters; empty if fewer than two were logged."""
    with metrics_csv.open(newline="") as file:
        losses = [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file) if row["train/loss"]]
    if len(losses) < 2:
        return ""
    count = min(width, len(losses))
    columns = [losses[round(i * (len(losses) - 1) / (count - 1))] for i in range(count)]
    logs = [math.log(max(loss, 1e-6)) for _, loss in columns]
    top, bottom = max(logs), min(logs)
    level_of = [round((value - bottom) / ((top - bottom) or 1.0) * (height - 1)) for value in logs]
    lines = ["train/loss, nats per label token (log scale)"]
    for level in range(height - 1, -1, -1):
        value = math.exp(bottom + (top - bottom) * level / (height - 1))
        lines.append(f"{value:8.3f} ┤" + "".join("•" if at == level else " " for at in level_of).rstrip())
    lines.append(f"{'':8} └{'─' * len(columns)}")
    lines.append(f"{'':10}step {columns[0][0]:<{max(1, len(columns) - 14)}} step {columns[-1][0]}")
    return "\n".join(lines)
