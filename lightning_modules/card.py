"""The student's model card: `README.md` with the header that the Hugging Face hub reads.

Everything in it is from the run's job, its data report and its results. Names and texts of configs and data are
escaped: they cannot end a cell, begin markup or close a fence. Only the last part of a path is named.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download

from lightning_modules.training_job import TrainingJob
from orca2.erasing import KeepInstruction
from orca2.files import atomic_write_text, unwritten_is_a_warning
from orca2.rows.source import Source
from orca2.runs import RunDirectory

CARD = "README.md"
UNKNOWN = "unknown, see the base model"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, slots=True)
class Base:
    """What a student was made from."""

    name: str | None
    """Hub id, or the last part of a folder; None: random weights."""
    hub_id: str | None
    licence: str | None
    """The hub's identifier of it; None where its card does not say."""


def write_card(
    job: TrainingJob,
    run: RunDirectory,
    name: str,
    counts: Mapping[str, Any],
    steps: int,
    metrics: Mapping[str, Any],
) -> None:
    """Write the card beside the exported weights, whole or not at all.

    `name`: the run's as it is stored, without the values of environment variables; `counts`: the data report;
    `metrics`: of results.json, empty before they are there.
    """
    base = base_of(job.model.weights)
    sections = (_summary(job, base), _prompt(job), _data(job, counts), _recipe(job, counts, steps), _scores(metrics))
    body = "\n".join(line for section in sections for line in (*section, ""))
    path = run.student / CARD
    with unwritten_is_a_warning(path):
        atomic_write_text(path, f"{_header(job, base)}\n# {_plain(name)}\n\n{body.rstrip()}\n")


def base_of(weights: str | None) -> Base:
    """The base model of these weights and its licence, by its own card; nothing but that card is fetched."""
    if weights is None:
        return Base(None, None, None)
    folder = Path(weights)
    found = _front_matter(weights)
    stated = found.get("base_model")  # a student of this project that trains on names its own base
    hub_id = stated if folder.is_dir() else weights
    hub_id = hub_id if isinstance(hub_id, str) and _HUB_ID.fullmatch(hub_id) else None
    licence = found.get("license")
    known = isinstance(licence, str) and _LICENCE.fullmatch(licence) and licence != "other"
    return Base(folder.resolve().name if folder.is_dir() else weights, hub_id, licence if known else None)


def _front_matter(weights: str) -> dict[str, Any]:
    try:
        path = Path(weights) / CARD if Path(weights).is_dir() else Path(hf_hub_download(weights, CARD))
        _, header, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        found = yaml.safe_load(header)
    except (OSError, ValueError, yaml.YAMLError):  # no card, no network, no header
        return {}
    return found if isinstance(found, dict) else {}


def _header(job: TrainingJob, base: Base) -> str:
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["orca2", "prompt-erasing", "reasoning"],
    }
    if base.name is not None:
        header |= {"license": base.licence} if base.licence else {"license": "other", "license_name": "see-base-model"}
    if base.hub_id is not None:
        header |= {"base_model": base.hub_id}
    if sets := sorted({path for _, path in _members(job.source) if path and _on_the_hub(path)}):
        header |= {"datasets": sets}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n"


def _summary(job: TrainingJob, base: Base) -> Iterator[str]:
    start = "random weights" if base.name is None else f"`{_code(base.name)}`"
    adapters = ", with LoRA adapters that are merged into it" if job.lora.enabled else ""
    under = f"`erasing={_code(job.erasing.name)}`"
    yield (
        f"A student of orca2, trained from {start}{adapters}. A teacher answered each task under a strategy "
        "instruction; the student trained on the answers "
        + (
            f"with that instruction in its prompt ({under}), so that it learns to follow it, not to choose a strategy "
            "itself."
            if isinstance(job.erasing, KeepInstruction)
            else f"under {under}, so that it learns to choose the strategy itself."
        )
    )
    yield ""
    licence = "of random weights: there is no base model" if base.name is None else base.licence or UNKNOWN
    yield f"**Licence of the base model:** {licence}. The data may have terms of their own."


def _prompt(job: TrainingJob) -> Iterator[str]:
    system = job.erasing.inference
    yield "## How to ask it"
    yield ""
    yield (
        "The chat template of the tokenizer writes the prompt. Where a conversation brings no system message, it adds "
        "this:"
    )
    yield ""
    yield from _fenced(system or "(the empty message)")
    yield ""
    if isinstance(job.erasing, KeepInstruction):
        yield "It never trained under that message: bring an instruction like its teacher's as the system message."
        yield ""
    yield from _fenced(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "."\n'
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        'chat = [{"role": "user", "content": "What is 12 + 30?"}]\n'
        'prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", '
        "return_dict=True)\n"
        "answer = model.generate(**prompt, max_new_tokens=256)\n"
        "print(tokenizer.decode(answer[0, prompt.input_ids.shape[1]:], skip_special_tokens=True))",
        "python",
    )


def _data(job: TrainingJob, counts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Data"
    yield ""
    rows = [
        [name, "" if path is None else path if _on_the_hub(path) else Path(path).name]
        for name, path in _members(job.source)
    ]
    yield from _table(["source", "of"], rows)
    yield ""
    yield (
        f"{counts['rows']:,} rows: {counts['kept']:,} trained on, {counts['broken']:,} broken, {counts['too_long']:,} "
        f"too long, {counts['left_out']:,} left out by the strategy; {counts['useful_tokens']:,} tokens, "
        f"{counts['label_tokens']:,} with loss."
    )


def _recipe(job: TrainingJob, counts: Mapping[str, Any], steps: int) -> Iterator[str]:
    optimizer = job.optimizer
    yield "## Recipe"
    yield ""
    yield from _table(
        ["setting", "value"],
        [
            ["strategy", job.strategy.name],
            ["erasing", job.erasing.name],
            ["length", f"{job.epochs} epochs" if job.tokens is None else f"{job.tokens:,} tokens"],
            ["optimizer steps", f"{steps:,}"],
            ["tokens in a step, at most", f"{job.packs_per_step * job.packing.length:,}"],
            ["peak learning rate", f"{optimizer.learning_rate:g}, {optimizer.decay} decay"],
            ["weight decay, clipping", f"{optimizer.weight_decay:g}, {optimizer.clip_norm:g}"],
            ["precision", job.trainer.resolved_precision],
            ["adapters", f"LoRA of rank {job.lora.rank}" if job.lora.enabled else "none"],
            ["seed", str(job.seed)],
        ],
    )


def _scores(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The scores over whole benchmarks; those of their parts are in results.json."""
    yield "## Scores"
    yield ""
    shown = [
        [name, f"{value:.1%}" if name.endswith(("accuracy", "format_ok")) else f"{value:,.4g}"]
        for name, value in metrics.items()
        if isinstance(value, int | float) and not name.startswith("data/") and "." not in name.partition("/")[0]
    ]
    if not shown:
        yield "None were measured." if metrics else "Not measured yet."
        return
    yield from _table(["benchmark / system message / metric", "value"], shown)


def _members(source: Source) -> Iterator[tuple[str, str | None]]:
    """Name and place of each source."""
    members = getattr(source, "members", None)  # of a mixture; generated tasks have neither these nor a path
    if members is None:
        yield source.name, getattr(source, "path", None)
    else:
        for member in members.values():
            yield from _members(member)


def _on_the_hub(path: str) -> bool:
    return _HUB_ID.fullmatch(path) is not None and not Path(path).exists()


def _fenced(text: str, language: str = "") -> Iterator[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    yield "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)
    yield fence


def _code(text: str) -> str:
    """The text for the inside of `code`, which nothing in it can end."""
    return " ".join(text.replace("`", "'").split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(_plain(cell) for cell in row) + " |"


def _plain(text: str) -> str:
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return "".join(f"\\{sign}" if sign in "\\|<>[]`*#&!" else sign for sign in line)
