"""Peak host memory of each rank while a sharded model is loaded from several safetensors files, and exported again.

    python perf/load_memory.py --json out.json                        1.1 billion parameters, 2 ranks, fp32 files
    python perf/load_memory.py --json out.json --layers 4 --width 1024 --dtype bfloat16

Writes a model of random weights, layer by layer, then starts the ranks. Each one builds the student on the meta device,
shards it with FSDP2 and reads its rows, as `train.py trainer=fsdp` does, and writes it again as at the end of a run.
Reported: the peak of the resident memory (VmHWM of Linux) while loading over what was resident after the imports, and
while exporting over what was resident after loading, as shares of the whole model in fp32. Wanted for loading: below
0.6.
"""

import argparse
import collections
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from orca2.modelling import export as exporting
from orca2.modelling.build import build_tokenizer, model_config
from orca2.modelling.loading import defer_model
from orca2.modelling.sharding import build_mesh, full_weights, shard
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student_model import StudentForLoss
from orca2.settings import build, compose_config

WANTED = 0.6
"""Share of the whole model that a rank of two may need: its half, and room for one parameter."""


def architecture(arguments: argparse.Namespace) -> dict[str, Any]:
    """The shape of Llama 3.2 1B with LLaMA-2's vocabulary and an output layer of its own."""
    return {
        "model_type": "llama",
        "hidden_size": arguments.width,
        "intermediate_size": 4 * arguments.width,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32_000,
    }


def write_model(folder: Path, arguments: argparse.Namespace) -> int:
    """A model folder with one file for each layer; returns its parameters. At most a layer is in memory."""
    chat = build(compose_config("train").format)
    spec = ModelSpec(name="load", max_len=512, architecture=architecture(arguments), tokenizer_vocabulary=2048)
    tokenizer = build_tokenizer(spec, chat)
    tokenizer.save_pretrained(folder)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(model_config(spec, tokenizer), dtype=torch.float32)
    skeleton.config.save_pretrained(folder)
    files: dict[str, list[str]] = {}
    for name in skeleton.state_dict():
        files.setdefault(name.split(".")[2] if ".layers." in name else "other", []).append(name)
    shapes = {name: tensor.shape for name, tensor in skeleton.state_dict().items()}
    index: dict[str, str] = {}
    for number, names in enumerate(files.values(), start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save_file(
            {name: torch.randn(shapes[name]).to(getattr(torch, arguments.dtype)) for name in names}, folder / file
        )
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return sum(shape.numel() for shape in shapes.values())


def memory(key: str) -> int:
    """`VmRSS` or `VmHWM` (its peak) of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def load_and_export(folder: Path, file_bytes: int) -> None:
    """One rank: load, export, and print what it took."""
    dist.init_process_group("gloo")
    chat = build(compose_config("train").format)
    spec = ModelSpec(name="load", max_len=512, weights=str(folder))
    tokenizer = build_tokenizer(spec, chat)
    before, start = memory("VmRSS"), time.perf_counter()
    deferred = defer_model(spec, tokenizer, seed=1)
    student = StudentForLoss(deferred.model, "sdpa")
    shard(student, build_mesh("cpu", dist.get_world_size()), torch.float32)
    deferred.materialise(student, torch.device("cpu"))
    seconds = time.perf_counter() - start
    kept = sum(parameter.to_local().nbytes for parameter in student.parameters())  # type: ignore[attr-defined]
    peak = memory("VmHWM") - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    loaded = memory("VmRSS")
    exporting.FILE_BYTES = file_bytes
    gathering = full_weights(student.model)
    if dist.get_rank() == 0:
        exporting.export_student(student.model, tokenizer, folder.parent / "student", {}, gathering)
    else:
        collections.deque(gathering, maxlen=0)
    export_peak = memory("VmHWM") - loaded
    print(json.dumps({"peak_bytes": peak, "export_bytes": export_peak, "kept_bytes": kept, "seconds": seconds}))
    dist.destroy_process_group()


def start_ranks(folder: Path, ranks: int, file_bytes: int) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parent.parent
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": f"{root / 'src'}:{root}"}
    command = [
        sys.executable,
        __file__,
        "--json",
        os.devnull,
        "--rank-of",
        str(folder),
        "--file-bytes",
        str(file_bytes),
    ]
    processes = [
        subprocess.Popen(
            command, env=common | {"RANK": str(i), "WORLD_SIZE": str(ranks)}, stdout=subprocess.PIPE, text=True
        )
        for i in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=1800)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit("a rank failed; its error is above")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=2048, help="a multiple of 64")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the files")
    parser.add_argument("--file-bytes", type=int, default=500_000_000, help="of an exported file, at most")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        load_and_export(arguments.rank_of, arguments.file_bytes)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        model.mkdir()
        parameters = write_model(model, arguments)
        runs = start_ranks(model, arguments.ranks, arguments.file_bytes)
    whole = parameters * 4
    print(
        f"{parameters:,} parameters, {whole / 2**30:.2f} GiB in fp32, {arguments.dtype} files, {arguments.ranks} ranks"
    )
    print("rank  kept     loading  exporting  seconds of loading")
    for rank, run in enumerate(runs):
        kept, peak, export = (run[f"{name}_bytes"] / whole for name in ("kept", "peak", "export"))
        print(f"{rank:4}  {kept:6.1%}  {peak:7.1%}  {export:9.1%}  {run['seconds']:18.1f}")
    worst, export = (max(run[key] for run in runs) / whole for key in ("peak_bytes", "export_bytes"))
    found = {"parameters": parameters, "runs": runs, "ratio": {"peak": worst, "export": export}}
    arguments.json.write_text(json.dumps(found, indent=1))
    raise SystemExit(0 if worst < WANTED else f"a rank needed {worst:.1%} of the model, wanted below {WANTED:.0%}")


if __name__ == "__main__":
    main()
