"""Training throughput of orca2 and of TRL's SFTTrainer, on the same rows and the same model.

    python perf/train_throughput.py --gsm8k train.jsonl --json out.json      (extra: perf)

Three contestants, each in its own process so that peak memory is its own, run in turn `--rounds` times:

    ours        this project: rows rendered, packed and trained on the fly
    trl_packed  SFTTrainer(packing=True, packing_strategy="bfd"), assistant-only loss, rows tokenized beforehand
    trl_padded  SFTTrainer(packing=False), the same rows in padded batches of about as many tokens

One optimizer step is one pack (or one padded batch); fp32, AdamW. The first `WARM_UP` steps are not timed.
Before that, all three compute the loss of the same rows with the same weights: it must agree.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2
PACK_TOKENS = 2048
PADDED_ROWS = 8
CONTESTANTS = ("ours", "trl_packed", "trl_padded")
LOSS_TOLERANCE = 1e-4
"""Relative; fp32 sums in another order."""


def components(data: Path) -> Any:
    """Model spec, tokenizer, data module and optimizer of the comparison."""
    from datamodules.erased_prompts import ErasedPromptDataModule
    from orca2.modelling.build import build_tokenizer
    from orca2.rendering.renderer import Renderer
    from orca2.settings import build, compose_config

    config = compose_config(
        "train",
        [
            "model=llama_9m",
            "source=gsm8k",
            f"source.path={data}",
            f"packing.length={PACK_TOKENS}",
            "packs_per_step=1",
        ],
    )
    spec, chat_format = build(config.model), build(config.format)
    tokenizer = build_tokenizer(spec, chat_format)
    renderer = Renderer(tokenizer, chat_format)
    datamodule = ErasedPromptDataModule(
        source=build(config.source),
        strategy=build(config.strategy),
        erasing=build(config.erasing),
        thinking=build(config.thinking),
        renderer=renderer,
        packing=build(config.packing),
        epochs=1,
        packs_per_step=1,
        packs_per_micro_batch=1,
        workers=0,
        seed=17,
    )
    datamodule.prepare_data()
    datamodule.setup("fit")
    return spec, tokenizer, datamodule, build(config.optimizer)


def prepare(data: Path, folder: Path) -> None:
    """Write what the contestants share: the weights, all rows as ids and masks, and the rows of our first step."""
    from datasets import Dataset

    from orca2.data.rendered_rows import Rendered
    from orca2.modelling.build import build_model

    spec, tokenizer, datamodule, _ = components(data)
    build_model(spec, tokenizer, seed=17).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows: dict[str, dict[str, Any]] = {}
    for row in range(datamodule.source.size):
        rendered = datamodule.render(datamodule.source.read(row, datamodule.strategy), 0)
        if isinstance(rendered, Rendered):
            rows[rendered.info.id] = {
                "input_ids": rendered.ids.tolist(),
                "assistant_masks": rendered.loss_mask.astype(int).tolist(),
            }
    first = [info.id for micro in next(iter(datamodule.train_dataloader())).micro_batches for info in micro.examples]
    Dataset.from_list(list(rows.values())).save_to_disk(str(folder / "rows"))
    Dataset.from_list([rows[identity] for identity in first]).save_to_disk(str(folder / "first"))


def run_ours(folder: Path, data: Path, steps: int) -> dict[str, float]:
    """Train with the project's own module, loader and trainer."""
    import lightning as L
    from transformers import AutoModelForCausalLM

    from lightning_modules.student import StudentModule
    from orca2.modelling.student_model import StudentForLoss

    _, _, datamodule, optimizer = components(data)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    module = StudentModule(StudentForLoss(model, "sdpa"), optimizer, total_rows=datamodule.total_rows)
    clock = Clock(steps)

    class Timer(L.Callback):
        @override
        def on_train_batch_end(self, _trainer: Any, student: Any, *_: Any) -> None:
            clock.tick(student.report.useful_tokens, student.report.label_tokens, student.report.loss)

    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        precision="32-true",
        max_steps=steps,
        logger=False,
        callbacks=[Timer()],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=datamodule)
    return clock.result()


def run_trl(folder: Path, steps: int, packed: bool) -> dict[str, float]:
    """Train with SFTTrainer; its first loss is taken on the rows of our first step."""
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    def trainer(rows: str, batch: int, callbacks: list[Any]) -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        config = SFTConfig(
            output_dir=str(folder / "trl"),
            packing=packed,
            packing_strategy="bfd",
            max_length=PACK_TOKENS,
            per_device_train_batch_size=batch,
            max_steps=steps if callbacks else 1,
            learning_rate=3e-4,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            seed=17,
        )
        return SFTTrainer(
            model=model,
            args=config,
            train_dataset=load_from_disk(str(folder / rows)),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            callbacks=callbacks,
        )

    check = trainer("first", 1 if packed else len(load_from_disk(str(folder / "first"))), [])
    check.train()
    clock = Clock(steps)
    counts: list[tuple[int, int]] = []

    class Timer(TrainerCallback):
        @override
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick(*counts.pop(0), 0.0)

    timed = trainer("rows", 1 if packed else PADDED_ROWS, [Timer()])
    collate = timed.data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        batch = collate(rows)
        useful = sum(len(row["input_ids"]) for row in rows)
        counts.append((useful, int((batch["labels"] != -100).sum())))
        return batch

    timed.data_collator = counting
    timed.train()
    return clock.result() | {"first_loss": check.state.log_history[0]["loss"]}


class Clock:
    """Counts tokens and time of the steps after the warm-up."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.useful, self.label = steps, 0, 0, 0
        self.started = self.stopped = 0.0
        self.first_loss = 0.0

    def tick(self, useful: int, label: int, loss: float) -> None:
        self.done += 1
        if self.done == 1:
            self.first_loss = loss
        if self.done > WARM_UP:
            self.useful, self.label, self.stopped = (
                self.useful + useful,
                self.label + label,
                time.perf_counter(),
            )
        elif self.done == WARM_UP:
            self.started = time.perf_counter()

    def result(self) -> dict[str, float]:
        seconds = self.stopped - self.started
        return {
            "useful_tokens_per_s": self.useful / seconds,
            "label_tokens_per_s": self.label / seconds,
            "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "first_loss": self.first_loss,
        }


def in_own_process(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    out = folder / "result.json"
    command = [sys.executable, __file__, "--gsm8k", str(arguments.gsm8k), "--steps", str(arguments.steps)]
    subprocess.run([*command, "--contestant", name, "--folder", str(folder), "--json", str(out)], check=True)
    result: dict[str, float] = json.loads(out.read_text())
    return result


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    raw: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    prepare(arguments.gsm8k, folder)
    for round_number in range(arguments.rounds):
        for name in CONTESTANTS:
            raw[name].append(in_own_process(name, folder, arguments))
            print(f"round {round_number + 1}  {name:11}  {raw[name][-1]['useful_tokens_per_s']:8,.0f} useful tokens/s")
    middle: Callable[[str, str], float] = lambda name, key: statistics.median(r[key] for r in raw[name])  # noqa: E731
    ours = middle("ours", "useful_tokens_per_s")
    print(f"\n{'':11} {'useful tokens/s':>16} {'label tokens/s':>15} {'peak GiB':>9} {'first loss':>11}")
    for name in CONTESTANTS:
        print(
            f"{name:11} {middle(name, 'useful_tokens_per_s'):16,.0f} {middle(name, 'label_tokens_per_s'):15,.0f} "
            f"{middle(name, 'peak_memory_gib'):9.2f} {middle(name, 'first_loss'):11.6f}"
        )
    ratios = {name: ours / middle(name, "useful_tokens_per_s") for name in CONTESTANTS[1:]}
    for name, ratio in ratios.items():
        print(f"ours / {name}: {ratio:.2f}")
    losses = [middle(name, "first_loss") for name in CONTESTANTS]
    spread = (max(losses) - min(losses)) / losses[0]
    print(f"first-step losses differ by {spread:.1e} (relative)")
    if spread > LOSS_TOLERANCE:
        sys.exit(f"the contestants do not compute the same loss: {losses}")
    return {
        "raw": raw,
        "ratio": ratios,
        "first_loss_spread": spread,
        "torch_threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, required=True, help="official train.jsonl of GSM8K")
    parser.add_argument("--json", type=Path, required=True, help="where the raw runs and ratios are written")
    parser.add_argument("--steps", type=int, default=14, help="optimizer steps of a run, warm-up included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    arguments.gsm8k = arguments.gsm8k.resolve()
    if arguments.contestant == "ours":
        result: dict[str, Any] = run_ours(arguments.folder, arguments.gsm8k, arguments.steps)
    elif arguments.contestant:
        result = run_trl(arguments.folder, arguments.steps, packed=arguments.contestant == "trl_packed")
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = compare(arguments, Path(folder))
    arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
