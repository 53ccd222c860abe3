"""What tests that start other processes share: a small student, their environment, a process group."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL_STUDENT = (
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=2",
)
"""Overrides for a student that trains for a few steps in a second."""
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "COLUMNS": "140"}
OFFLINE = ENVIRONMENT | {"WANDB_MODE": "offline"}
"""W&B runs are written, so that they can be counted; nothing is sent."""

HUB_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model of the README that has to come from the hub, or from `make real`."""


def readme_commands() -> list[list[str]]:
    """The python commands in the bash blocks of the README, in order, as lists of words without comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("python ")]


def docs_commands() -> list[list[str]]:
    """The python commands in `docs/`, in blocks and in text, as lists of words; what a user fills in is x."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        script = r"(?:perf/)?\w+\.py"
        start = r"^(?: {4})?(?:\w+=\S+ |srun \S+ )*python"
        for line in re.findall(rf"{start} ({script} .*)|`python ({script}(?: [^`]*)?)`", text, re.MULTILINE):
            command = re.split(r"#|   ", re.sub(r"<[^>]*>|…", "x", "".join(line).replace("... ", "")))[0]
            command = command.replace("benchmark=x", "benchmark=smoke")
            found.append(shlex.split(command))
    return found


def run_ranks(ranks: int, script: Path, *arguments: str, timeout_s: float = 400) -> None:
    """Start a script as each rank of a process group, and wait until all ended well, for `timeout_s` each at most."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = ENVIRONMENT | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=group | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        errors = [process.communicate(timeout=timeout_s)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
