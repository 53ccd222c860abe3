"""A plan as tables for the terminal."""

from rich.console import Console
from rich.table import Table

from orca2.errors import ConfigError
from orca2.planning.plan import Plan
from orca2.planning.work import PAPER_GPUS, PAPER_HOURS, StageWork, total

GIB = 2**30


def show_plan(plan: Plan, console: Console) -> None:
    """Print it. Raises ConfigError, with the changes that would help, where a run cannot fit."""
    request, machine = plan.request, plan.machine
    trained = request.shape.trained(request.lora)
    console.print(
        f"{request.shape.parameters:,} parameters, {trained:,} trained; {machine.ranks} x {machine.device}"
        f"{f' on {machine.nodes} nodes' if machine.nodes > 1 else ''}; {_layout(plan)}"
    )
    console.print(_memory_table(plan))
    console.print(
        "peak = weights + optimizer + buffers + the larger of two moments of the backward pass: "
        "activations + logits at its start, gradients at its end"
    )
    console.print(_work_table(plan))
    console.print(f"checkpoint {_size(plan.checkpoint)}, exported student {_size(plan.student)}")
    for work in plan.stages:
        console.print(f"{work.name}: {work.origin}")
    if machine.operations_per_second is not None:
        console.print(
            f"hours at {machine.operations_per_second / 1e12:,.0f} TFLOP/s of model arithmetic a GPU; the paper's "
            f"stages took {', '.join(map(str, PAPER_HOURS.values()))} hours for 13B on {PAPER_GPUS} A100 of 80 GB"
        )
    if machine.usable is None:
        console.print("the memory of the device is not known: give one, such as gpu=a100_80")
    elif plan.fits:
        console.print(f"fits: {_size(plan.memory.peak)} of {_size(machine.usable)} usable")
    else:
        _refuse(plan, machine.usable)


def _refuse(plan: Plan, usable: int) -> None:
    ways = "".join(f"\n  - {change}" for change in plan.remedies) or "\n  - a smaller model or shorter packs"
    raise ConfigError(
        f"this run cannot fit: the peak of a rank is {_size(plan.memory.peak)}, and {plan.machine.device} has "
        f"{_size(usable)} usable. It would fit with one of{ways}"
    )


def _layout(plan: Plan) -> str:
    request = plan.request
    weights = {"one": "one device", "ddp": "whole weights on each (ddp)", "fsdp": f"weights cut over {request.shards}"}
    precision = request.compute if request.compute == request.master else f"{request.compute} with fp32 masters"
    return f"{weights[request.parallelism]}, {precision}, activation checkpointing {request.checkpointing}"


def _memory_table(plan: Plan) -> Table:
    table = Table("memory of one rank", "", title_justify="left")
    table.columns[1].justify = "right"
    for name in ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "peak"):
        table.add_row(name, _size(getattr(plan.memory, name)), end_section=name == "buffers")
    return table


def _work_table(plan: Plan) -> Table:
    table = Table(
        "stage", "examples", "useful tokens", "steps", "FLOP", f"hours on {plan.machine.ranks}", "paper's hours"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for work in plan.stages:
        table.add_row(work.name, *_cells(work), end_section=work is plan.stages[-1])
    if len(plan.stages) > 1:
        table.add_row("all", *_cells(total(plan.stages)))
    return table


def _cells(work: StageWork) -> tuple[str, ...]:
    return (
        f"{work.rows:,}",
        f"{work.tokens:,}",
        f"{work.steps:,}",
        f"{work.operations:.2e}",
        _hours(work.hours),
        _hours(work.paper_hours),
    )


def _hours(hours: float | None) -> str:
    return "" if hours is None else f"{hours:,.1f}" if hours >= 0.1 else f"{hours:.3f}"


def _size(count: int) -> str:
    """Bytes in GiB, or in MiB where they are few."""
    return f"{count / GIB:,.2f} GiB" if count >= GIB else f"{count / 2**20:,.1f} MiB"
