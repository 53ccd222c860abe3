"""The keys that each root config may have, one dataclass for each file `conf/<root>.yaml`.

The YAML holds the values, this file names and types, so that an unknown key is refused.
Nodes of groups are Any: their own `_target_` names the class, and its signature is what they are held to.
"""

from dataclasses import Field, dataclass, field
from typing import Any

from orca2.settings.targets import mismatches

MISSING: Any = "???"
"""OmegaConf's sign for a value that a config must give."""


def _at_least(minimum: int) -> Any:
    return field(default=MISSING, metadata={"at_least": minimum})


@dataclass
class TrainConfig:
    """Keys of `conf/train.yaml`."""

    name: str = MISSING
    run_dir: str = MISSING
    seed: int = field(default=MISSING, metadata={"at_least": 0, "at_most": 2**32 - 1})  # numpy takes no more bits
    model: Any = MISSING
    lora: Any = MISSING
    strategy: Any = MISSING
    erasing: Any = MISSING
    thinking: Any = MISSING
    format: Any = MISSING
    source: Any = MISSING
    packing: Any = MISSING
    optimizer: Any = MISSING
    trainer: Any = MISSING
    gpu: Any = MISSING
    planning: Any = MISSING
    logger: Any = MISSING
    held_out: Any = MISSING
    validation: Any = MISSING
    plan: bool = MISSING
    curriculum: Any = None
    only_stage: str | None = None
    optimizer_from: str | None = None
    epochs: int = _at_least(1)
    tokens: int | None = field(default=None, metadata={"at_least": 1})
    packs_per_step: int = _at_least(1)
    packs_per_micro_batch: int = _at_least(1)
    workers: int = _at_least(0)
    checkpoint_every_steps: int = _at_least(1)
    log_every_steps: int = _at_least(1)
    loss_on_history: bool = MISSING
    benchmark: Any = None
    data_dir: str | None = None
    benchmark_limit: int | None = field(default=None, metadata={"at_least": 1})


@dataclass
class ShowConfig:
    """Keys of `conf/show.yaml`."""

    seed: int = _at_least(0)
    model: Any = MISSING
    strategy: Any = MISSING
    erasing: Any = MISSING
    thinking: Any = MISSING
    format: Any = MISSING
    source: Any = MISSING
    packing: Any = MISSING
    examples: int = _at_least(1)


@dataclass
class EvaluateConfig:
    """Keys of `conf/evaluate.yaml`."""

    student: str | None = MISSING
    benchmark: Any = MISSING
    backend: Any = MISSING
    messages: Any = MISSING
    format: Any = MISSING
    data_dir: str | None = MISSING
    out_dir: str | None = MISSING
    limit: int | None = MISSING
    seed: int = _at_least(0)
    processes: int = _at_least(1)
    allow_missing: bool = MISSING
    cache: str | None = MISSING
    max_usd: float | None = MISSING
    max_tokens: int | None = MISSING
    max_requests: int | None = MISSING


@dataclass
class SynthesizeConfig:
    """Keys of `conf/synthesize.yaml`."""

    name: str = MISSING
    out_dir: str = MISSING
    seed: int = _at_least(0)
    tasks: Any = MISSING
    strategy: Any = MISSING
    instructions: Any = MISSING
    teacher: Any = MISSING
    verification: Any = MISSING
    cleaning: Any = MISSING
    erasing: Any = MISSING
    size: int | None = MISSING
    rows_per_task: int | None = MISSING
    max_usd: float | None = MISSING
    max_tokens: int | None = MISSING
    max_requests: int | None = MISSING
    attempts: int = _at_least(1)
    first_wait_s: float = _at_least(0)
    longest_wait_s: float = _at_least(0)
    ask_again: dict[str, bool] = MISSING
    shard_rows: int = _at_least(1)
    cache: str = MISSING
    rank: int = _at_least(0)
    world: int = _at_least(1)
    estimate: bool = MISSING
    push_to_hub: str | None = MISSING
    hub_private: bool = MISSING


@dataclass
class ReportConfig:
    """Keys of `conf/report.yaml`."""

    out_dir: str | None = MISSING
    runs: Any = MISSING  # a typed mapping could not be given on the command line where the YAML says null
    samples_each: int = _at_least(1)


@dataclass
class JudgeConfig:
    """Keys of `conf/judge.yaml`."""

    teacher: Any = MISSING
    out_dir: str | None = MISSING
    against: str | None = MISSING
    judge_runs: int = _at_least(1)
    cache: str | None = MISSING
    max_usd: float | None = MISSING
    max_tokens: int | None = MISSING
    max_requests: int | None = MISSING


@dataclass
class ConverseConfig:
    """Keys of `conf/converse.yaml`."""

    student: str | None = MISSING
    scenarios: Any = MISSING
    backend: Any = MISSING
    messages: Any = MISSING
    format: Any = MISSING
    teacher: Any = MISSING
    out_dir: str | None = MISSING
    max_new_tokens: int = _at_least(1)
    cache: str | None = MISSING
    max_usd: float | None = MISSING
    max_tokens: int | None = MISSING
    max_requests: int | None = MISSING


@dataclass
class ChatConfig:
    """Keys of `conf/chat.yaml`."""

    student: str | None = MISSING
    backend: Any = MISSING
    messages: Any = MISSING
    format: Any = MISSING
    max_new_tokens: int = _at_least(1)


@dataclass
class ExportTasksConfig:
    """Keys of `conf/export_tasks.yaml`."""

    benchmark: Any = MISSING
    data_dir: str | None = MISSING
    out_dir: str = MISSING
    limit: int | None = MISSING
    seed: int = _at_least(0)
    allow_missing: bool = MISSING


SCHEMAS = {
    "train": TrainConfig,
    "show": ShowConfig,
    "synthesize": SynthesizeConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "judge": JudgeConfig,
    "converse": ConverseConfig,
    "chat": ChatConfig,
    "export_tasks": ExportTasksConfig,
}
"""Root file to its schema; `conf/<root>.yaml` starts its defaults list with `<root>_schema`."""


def number_problem(value: Any, item: Field[Any], schema: type[Any]) -> str | None:
    """What is wrong with the value of a root key that is a number; OmegaConf turns any value into a str."""
    is_number = item.type in (int, float, bool, int | None, float | None)
    for _, _, wanted in mismatches(value, item.type, item.name) if is_number else ():
        return f"{item.name} = {value!r}: {schema.__name__} wants {wanted}"
    minimum, maximum = item.metadata.get("at_least"), item.metadata.get("at_most")
    if value is None:
        return None
    if minimum is not None and value < minimum:
        return f"{item.name} = {value}: must be at least {minimum}"
    if maximum is not None and value > maximum:
        return f"{item.name} = {value}: must be at most {maximum}"
    return None
