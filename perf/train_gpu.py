"""What a GPU makes of this project's training step: attention parity, tokens/s, MFU and peak memory.

    python perf/train_gpu.py --json out.json              on a machine with a GPU; 1B and 7B, with and without compile
    python perf/train_gpu.py --dry-run --json out.json    the same code on a CPU in small, to see that it runs

Parity: each kernel that is installed against per-document SDPA on packed rows, forward and gradients. Errors are
relative, in the L2 norm, against SDPA in fp32; a kernel may err twice as much as SDPA itself does in bf16.

Throughput: weights are random, packs of 4,096 tokens are made of documents of random lengths around the mean of the
public Orca data, and half of each document is answer. One step is forward, loss, backward, clipping and AdamW on one
pack. Useful tokens leave the padding out, and MFU counts attention by the true document lengths and logits by label
tokens (`orca2.planning.work`). Each model runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

PACK_TOKENS = 4096
MEAN_DOCUMENT = 450
"""Tokens; about 1,700 bytes a row in the public re-creation of Orca's data."""
WARM_UP_STEPS, STEPS = 3, 10
WARM_UP_COMPILED = 8
"""Steps; a pack with another number of documents compiles once more."""
ALLOWED_ERROR = 2.0
"""Times the error of SDPA in the same precision."""


@dataclass(frozen=True)
class Case:
    """One model and how it is trained."""

    model: str
    precision: str
    checkpointing: str
    compile: bool

    @property
    def name(self) -> str:
        return f"{self.model} {self.precision} {self.checkpointing}{' compiled' if self.compile else ''}"


CASES = [
    Case(model, precision, checkpointing, compiled)
    for model, precision, checkpointing in (
        ("llama32_1b", "bf16-mixed", "none"),
        ("llama32_1b", "bf16-true", "none"),
        # 16 bytes a parameter, as with fp32 masters, are more than one GPU of 80 GB has.
        ("7b", "bf16-true", "selective"),
        ("7b", "bf16-true", "full"),
    )
    for compiled in (False, True)
]
DRY_CASES = [Case("tiny", "32-true", "none", False), Case("tiny", "32-true", "full", False)]


def lengths(tokens: int, rng: random.Random, mean: int = MEAN_DOCUMENT) -> list[int]:
    """Document lengths of one pack; the last is padding."""
    found: list[int] = []
    while (length := max(16, int(rng.expovariate(1 / mean)))) <= tokens - sum(found) - 1:
        found.append(length)
    return [*(found or [tokens - 1]), tokens - sum(found or [tokens - 1])]


def parity(device: torch.device, tokens: int) -> dict[str, dict[str, float]]:
    """Relative L2 errors of output and gradients of each kernel, and of SDPA in bf16, against SDPA in fp32."""
    from orca2.modelling.attention import FUSED
    from orca2.modelling.attention_choice import AttentionNeeds, _obstacle

    needs = AttentionNeeds(head_dim=128)
    half = torch.bfloat16
    found = {"sdpa": attended("sdpa", device, half, tokens)}
    for kernel in (*FUSED, "eager"):
        if _obstacle(kernel, device, half, needs) is None:
            found[kernel] = attended(kernel, device, half, tokens)
    wanted = attended("sdpa", device, torch.float32, tokens)
    return {
        kernel: {
            name: float((one.float() - reference).norm() / reference.norm())
            for name, one, reference in zip(("output", "d_query", "d_key", "d_value"), got, wanted, strict=True)
        }
        for kernel, got in found.items()
    }


def unequal(errors: dict[str, dict[str, float]]) -> list[str]:
    """What errs more than SDPA's own rounding explains; `eager` is only shown: it rounds its weights too."""
    return [
        f"{kernel}: {name} errs by {value:.1e}, SDPA by {errors['sdpa'][name]:.1e}"
        for kernel, error in errors.items()
        for name, value in error.items()
        if kernel != "eager" and not value <= ALLOWED_ERROR * errors["sdpa"][name]
    ]


def attended(kernel: Any, device: torch.device, dtype: torch.dtype, tokens: int) -> list[torch.Tensor]:
    """Output and gradients on a packed row, 8 query heads of 128 in groups of 4; the same numbers for all kernels."""
    from orca2.modelling.attention import document_attention, lay_out

    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, tokens, 8, 128, generator=generator).to(torch.bfloat16) for _ in range(4)]
    query, key, value = (
        x[:, :, :heads].transpose(1, 2).to(device, dtype).requires_grad_()
        for x, heads in zip(made[:3], (8, 2, 2), strict=True)
    )
    layout = lay_out(lengths(tokens, random.Random(0)), kernel, device)
    out, _ = document_attention(torch.nn.Identity(), query, key, value, None, documents=layout)
    return [out.detach(), *torch.autograd.grad((out * made[3].to(device, dtype)).sum(), (query, key, value))]


def pack(tokens: int, vocabulary: int, rng: random.Random, device: torch.device) -> Any:
    """A micro-batch of one pack, and its lengths without the padding."""
    from orca2.records import MicroBatch

    documents = lengths(tokens, rng)
    ids = torch.randint(vocabulary, (1, tokens))
    starts = [sum(documents[:i]) for i in range(len(documents))]
    answers = [torch.arange(s + n // 2, s + n - 1) for s, n in zip(starts[:-1], documents[:-1], strict=True)]
    labels = torch.cat(answers)
    return MicroBatch(
        ids_BT=ids.to(device),
        positions_BT=torch.cat([torch.arange(n) for n in documents])[None].to(device),
        lengths=tuple(documents),
        label_positions_N=labels.to(device),
        labels_N=ids[0, labels + 1].to(device),
        example_of_label_N=torch.zeros_like(labels),
        examples=(),
    )


def spec_of(case: Case) -> Any:
    """The model's specification with random weights in place of its own."""
    from orca2.settings import build, compose_config

    overrides = [f"model={case.model}", f"model.activation_checkpointing={case.checkpointing}"]
    spec = build(compose_config("train", overrides).model)
    if spec.weights is None:
        return spec
    return replace(spec, weights=None, architecture=spec.shape, shape=None, tokenizer_vocabulary=8000)


@contextlib.contextmanager
def built_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Within the block new tensors are of this dtype and on this device, so that no copy lies on the host."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def train(case: Case, device: torch.device, tokens: int, steps: int) -> dict[str, float | str]:
    """Speed and memory of one case."""
    from transformers import AutoModelForCausalLM

    from orca2.modelling.attention_choice import attention_needs, choose_attention
    from orca2.modelling.build import config_of_shape
    from orca2.modelling.optimization import build_optimizer, clip_gradients
    from orca2.modelling.student_model import StudentForLoss
    from orca2.planning.shape import shape_of
    from orca2.settings import build, compose_config

    spec = spec_of(case)
    config = config_of_shape(spec)
    master = torch.bfloat16 if case.precision == "bf16-true" else torch.float32
    compute = torch.float32 if case.precision == "32-true" else torch.bfloat16
    kernel, reason = choose_attention(spec.attention, device, compute, attention_needs(config))
    torch.manual_seed(0)
    with built_on(device, master):
        model = AutoModelForCausalLM.from_config(config)
    student = StudentForLoss(model, kernel, spec.activation_checkpointing, case.compile).train()
    optimizer = build_optimizer(build(compose_config("train").optimizer), student)
    rng = random.Random(0)
    warm_up = WARM_UP_COMPILED if case.compile else min(WARM_UP_STEPS, steps)
    batches = [pack(tokens, config.vocab_size, rng, device) for _ in range(warm_up + steps)]
    seconds = []
    for number, batch in enumerate(batches):
        if number == warm_up and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = clock(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16-mixed"):
            losses_N = student(batch.ids_BT, batch.positions_BT, batch.lengths, batch.label_positions_N, batch.labels_N)
            losses_N.mean().backward()
        clip_gradients(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(clock(device) - started)
    return figures(case, batches[warm_up:], seconds[warm_up:], shape_of(config), device) | {
        "attention": f"{kernel} ({reason})",
        "last_loss": float(losses_N.mean()),
    }


def figures(case: Case, batches: list[Any], seconds: list[float], shape: Any, device: torch.device) -> dict[str, Any]:
    """What is written of one case; MFU is None where the GPU's peak is not known."""
    from orca2.planning.memory import Setting, memory_of
    from orca2.planning.work import Lengths, operations_per_token

    documents = [length for batch in batches for length in batch.lengths[:-1]]
    useful = sum(documents)
    labels = sum(len(batch.labels_N) for batch in batches)
    true_lengths = Lengths(
        mean=useful / len(documents),
        mean_square=sum(length**2 for length in documents) / len(documents),
        label_share=labels / useful,
        origin="",
    )
    tokens = batches[0].ids_BT.shape[1]
    setting = Setting(
        tokens=tokens,
        label_tokens=round(labels / len(batches)),
        micro_batches=1,
        compute="fp32" if case.precision == "32-true" else "bf16",
        master="bf16" if case.precision == "bf16-true" else "fp32",
        parallelism="one",
        shards=1,
        checkpointing=case.checkpointing,  # type: ignore[arg-type]
        fused_attention=device.type == "cuda",
        on_cuda=device.type == "cuda",
    )
    per_second = useful / sum(seconds)
    operations = per_second * operations_per_token(shape, true_lengths, None)
    peak = peak_of(device)
    return {
        "parameters": shape.parameters,
        "useful_tokens_per_s": per_second,
        "median_step_s": statistics.median(seconds),
        "model_tflops": operations / 1e12,
        "mfu": None if peak is None else operations / peak,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        "planned_memory_gib": memory_of(shape, setting).peak / 2**30,
    }


def peak_of(device: torch.device) -> float | None:
    """Dense bf16 operations per second of this GPU, from conf/gpu; None for one that is not there."""
    from orca2.settings import build, compose_config

    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for file in sorted((ROOT / "conf" / "gpu").glob("*.yaml")):
        gpu = build(compose_config("train", [f"gpu={file.stem}"]).gpu)
        if gpu.peak_tflops is not None and file.stem.split("_")[0].upper() in name.upper():
            return float(gpu.peak_tflops) * 1e12
    return None


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def in_own_process(number: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A case that fails, for example for lack of memory, is reported and does not stop the others."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [
            sys.executable,
            __file__,
            "--number",
            str(number),
            "--json",
            str(out),
            "--steps",
            str(arguments.steps),
        ]
        done = subprocess.run(
            [*command, *(["--dry-run"] if arguments.dry_run else [])], stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != 0:
            return {
                "failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
            }
        result: dict[str, Any] = json.loads(out.read_text())
        return result


def show(errors: dict[str, dict[str, float]], results: dict[str, dict[str, Any]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("attention in bf16, relative error against SDPA in fp32", *errors["sdpa"])
    for kernel, error in errors.items():
        table.add_row(kernel, *(f"{value:.1e}" for value in error.values()))
    console.print(table)
    table = Table("case", "useful tokens/s", "MFU", "TFLOP/s", "peak GiB", "planned GiB", "attention")
    for name, result in results.items():
        if "failed" in result:
            table.add_row(name, f"failed: {result['failed']}")
            continue
        mfu, memory = result["mfu"], result["peak_memory_gib"]
        table.add_row(
            name,
            f"{result['useful_tokens_per_s']:,.0f}",
            "" if mfu is None else f"{mfu:.1%}",
            f"{result['model_tflops']:.3g}",
            "" if memory is None else f"{memory:.2f}",
            f"{result['planned_memory_gib']:.2f}",
            result["attention"],
        )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where errors and figures are written")
    parser.add_argument("--steps", type=int, default=STEPS, help="timed steps of a case")
    parser.add_argument("--only", default="", help="cases whose name contains this, such as 7b")
    parser.add_argument("--dry-run", action="store_true", help="small, on the CPU: shows that it runs, not how fast")
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        print(
            "perf/train_gpu.py needs a CUDA device, and torch sees none here; --dry-run tries it on the CPU",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    tokens = 256 if arguments.dry_run else PACK_TOKENS
    cases = DRY_CASES if arguments.dry_run else CASES
    if arguments.number is not None:
        arguments.json.write_text(json.dumps(train(cases[arguments.number], device, tokens, arguments.steps)))
        return 0
    errors = parity(device, tokens)
    results = {
        case.name: in_own_process(number, arguments) for number, case in enumerate(cases) if arguments.only in case.name
    }
    show(errors, results)
    machine = {"device": "cpu" if arguments.dry_run else torch.cuda.get_device_name(), "torch": torch.__version__}
    arguments.json.write_text(json.dumps({"machine": machine, "parity": errors, "cases": results}, indent=2))
    wrong = [*unequal(errors), *(f"{name}: {each['failed']}" for name, each in results.items() if "failed" in each)]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
