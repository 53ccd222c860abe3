"""The commands of perf/ that measure memory and GPUs, as a user starts them."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"perf/{name}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "perf" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("name", "arguments"), [("train_gpu", []), ("plan_memory", ["--gpu"])])
def test_without_a_gpu_it_says_so(name: str, arguments: list[str], tmp_path: Path) -> None:
    """Fails if a benchmark of GPUs gives figures, a traceback or success on a machine without one."""
    done = run(name, *arguments, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 2
    assert "CUDA device" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_packs_are_full_and_labels_lie_in_answers() -> None:
    """Fails if the benchmark trains on other tokens than it counts as useful."""
    harness = module("train_gpu")
    rng = random.Random(1)
    for tokens in (256, 4096):
        batch = harness.pack(tokens, 100, rng, torch.device("cpu"))
        assert sum(batch.lengths) == batch.ids_BT.shape[1] == batch.positions_BT.shape[1] == tokens
        assert min(batch.lengths) >= 1
        useful = sum(batch.lengths[:-1])
        assert int(batch.label_positions_N.max()) < useful - 1
        assert 0.3 < len(batch.labels_N) / useful < 0.6
        assert torch.equal(batch.labels_N, batch.ids_BT[0, batch.label_positions_N + 1])


def test_a_kernel_that_errs_is_named() -> None:
    """Fails if a wrong kernel passes the parity check, or a value that is not a number does."""
    harness = module("train_gpu")
    errors = {
        "sdpa": {"output": 1e-3},
        "flash2": {"output": 1.5e-3},
        "varlen": {"output": 3e-3},
        "x": {"output": float("nan")},
    }
    assert [line.split(":")[0] for line in harness.unequal(errors)] == ["varlen", "x"]


@pytest.mark.slow
def test_dry_run_takes_the_same_path(tmp_path: Path) -> None:
    """Fails if the harness is found broken only on the day when there is a GPU."""
    out = tmp_path / "out.json"
    done = run("train_gpu", "--dry-run", "--steps", "2", "--json", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert set(found["parity"]) == {"sdpa", "eager"}
    assert all(0 < error < 0.05 for errors in found["parity"].values() for error in errors.values())
    assert len(found["cases"]) == 2
    for case in found["cases"].values():
        assert case["useful_tokens_per_s"] > 0 and case["model_tflops"] > 0 and case["mfu"] is None


@pytest.mark.slow
def test_planned_memory_is_what_is_measured(tmp_path: Path) -> None:
    """Fails if a plan errs by more than 15 % for some shape, mode of recomputation, LoRA or accumulation."""
    out = tmp_path / "out.json"
    done = run("plan_memory", "--json", str(out), timeout=500)
    assert done.returncode == 0, done.stderr
    ratios = json.loads(out.read_text())["ratio"]
    assert len(ratios) >= 8
    assert {name: ratio for name, ratio in ratios.items() if not 0.85 < ratio < 1.15} == {}
