"""Peak memory of a training step: what `plan=true` says beside what is allocated.

    python perf/plan_memory.py --json out.json                 on this CPU, several shapes and recomputation modes
    python perf/plan_memory.py --gpu --json out.json           on a GPU, a 1B model with random weights

The measured step is the third of a real fit, with the run's own data, trainer, loss and optimizer. On a CPU every
allocation and release of that step is taken from torch's profiler and added to the weights and optimizer state that
are there before it; on a GPU it is `torch.cuda.max_memory_allocated`.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from typing_extensions import override

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

MEASURED_STEP = 2
"""The measured step, from 0: by then the optimizer has its state, and caches are warm."""
CASES = {
    "tiny": ["model=tiny"],
    "tiny, selective": ["model=tiny", "model.activation_checkpointing=selective"],
    "tiny, full": ["model=tiny", "model.activation_checkpointing=full"],
    "tiny, 4 micro-batches": ["model=tiny", "packs_per_step=4", "packs_per_micro_batch=1"],
    "tiny, LoRA": ["model=tiny", "lora=default"],
    "llama_9m": ["model=llama_9m", "packing.length=2048", "packs_per_step=1", "packs_per_micro_batch=1"],
    "narrow, 1 layer": [
        "model=tiny",
        "model.architecture.hidden_size=64",
        "model.architecture.intermediate_size=128",
        "model.architecture.num_hidden_layers=1",
    ],
    "wide, grouped keys": [
        "model=tiny",
        "model.architecture.hidden_size=384",
        "model.architecture.intermediate_size=1024",
        "model.architecture.num_hidden_layers=3",
        "model.architecture.num_attention_heads=6",
        "model.architecture.num_key_value_heads=2",
        "packing.length=512",
    ],
    "qwen3": ["model=tiny", "model.architecture.model_type=qwen3", "+model.architecture.head_dim=64"],
}
GPU_CASES = {
    mode: [
        "model=llama32_1b",
        f"model.activation_checkpointing={mode}",
        "trainer=one_gpu",
        "packing.length=4096",
        "packs_per_step=1",
        "packs_per_micro_batch=1",
    ]
    for mode in ("none", "selective", "full")
}


def job_of(overrides: list[str]) -> Any:
    """The training job; a hub model gets random weights of its shape and the embedded tokenizer."""
    from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
    from orca2.settings import build_all, compose_config

    config = compose_config("train", ["logger.mode=off", *overrides])
    job = TrainingJob(**build_all(config, leave_out=NOT_OF_THE_JOB))
    if job.model.weights is None:
        return job
    model = dataclasses.replace(
        job.model, weights=None, architecture=job.model.shape, shape=None, tokenizer_vocabulary=8000
    )
    return dataclasses.replace(job, model=model)


def planned(job: Any) -> Any:
    """The memory that a plan of `job` says."""
    from lightning_modules.planning import plan_run
    from orca2.settings import build, compose_config

    config = compose_config("train", [])
    return plan_run({"run": job}, build(config.gpu), build(config.planning), Console(quiet=True)).memory


class Peak(L.Callback):
    """Bytes at the peak of step `MEASURED_STEP`, after which the fit stops."""

    def __init__(self) -> None:
        self.peak = 0
        self._base = 0
        self._profile: Any = None

    @override
    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, _batch: Any, index: int) -> None:
        if index != MEASURED_STEP:
            return
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
        tensors = [*module.parameters(), *(value for state in states for value in state.values())]
        self._base = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, _outputs: Any, _batch: Any, index: int
    ) -> None:
        if index != MEASURED_STEP:
            return
        trainer.should_stop = True
        if module.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
            return
        self._profile.__exit__(None, None, None)
        held = highest = 0
        for _, size in sorted(allocations(self._profile.profiler.kineto_results.experimental_event_tree())):
            held += size
            highest = max(highest, held)
        self.peak = self._base + highest


def allocations(nodes: Any) -> list[tuple[int, int]]:
    """(time in ns, bytes; negative for a release) of every event in the profiler's trees."""
    found = []
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        kind, fields = node.typed
        if kind.name == "Allocation":
            found.append((node.start_time_ns, fields.alloc_size))
        waiting += node.children
    return found


def measured(job: Any, folder: Path) -> int:
    """Bytes at the peak of a step of a real fit."""
    from datamodules.erased_prompts import ErasedPromptDataModule
    from lightning_modules.job import choose_kernel, load_student
    from lightning_modules.student import StudentModule
    from orca2.modelling.build import build_tokenizer
    from orca2.rendering.renderer import Renderer

    quiet = Console(quiet=True)
    tokenizer = build_tokenizer(job.model, job.format)
    data = ErasedPromptDataModule(
        source=job.source,
        strategy=job.strategy,
        erasing=job.erasing,
        renderer=Renderer(tokenizer, job.format),
        packing=job.packing,
        epochs=1,
        packs_per_step=job.packs_per_step,
        packs_per_micro_batch=job.packs_per_micro_batch,
        workers=0,
        seed=job.seed,
    )
    data.prepare_data()
    student = load_student(job, tokenizer, choose_kernel(job, tokenizer, quiet), quiet)
    peak = Peak()
    trainer = job.trainer.build(folder, [], [peak])
    trainer.fit(StudentModule(student, job.optimizer, data.total_rows), datamodule=data)
    return peak.peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the bytes and ratios are written")
    parser.add_argument("--case", choices=[*CASES, *GPU_CASES], help="only this one")
    parser.add_argument("--gpu", action="store_true", help="a 1B model on a GPU instead of small ones on the CPU")
    arguments = parser.parse_args()
    if arguments.gpu and not torch.cuda.is_available():
        print("--gpu needs a CUDA device, and torch sees none here", file=sys.stderr)
        return 2
    table = Table("case", "planned MiB", "measured MiB", "planned / measured")
    results: dict[str, dict[str, float]] = {}
    for name, overrides in (GPU_CASES if arguments.gpu else CASES).items():
        if arguments.case not in (None, name):
            continue
        job = job_of(overrides)
        with tempfile.TemporaryDirectory() as folder:
            results[name] = {"planned": planned(job).peak, "measured": measured(job, Path(folder))}
        results[name]["ratio"] = results[name]["planned"] / results[name]["measured"]
        mebi = [f"{results[name][key] / 2**20:,.1f}" for key in ("planned", "measured")]
        table.add_row(name, *mebi, f"{results[name]['ratio']:.3f}")
    Console().print(table)
    arguments.json.write_text(
        json.dumps({"bytes": results, "ratio": {n: r["ratio"] for n, r in results.items()}}, indent=2)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
