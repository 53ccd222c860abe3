"""A rank is killed at a random step; the run goes on with 1, 2 or 4 ranks as if nothing had happened.

fp32 over gloo on CPUs. On the same number of ranks losses are equal to the last bit; on another, ranks add gradients in
another order, so losses agree to about 1e-8, relative (1e-6 is allowed, as in test_distributed.py).
"""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOSS_TOLERANCE = 1e-6
EVERY = 3
"""Steps between checkpoints, in resume_fit.py."""


def launch(out: Path, ranks: int, strategy: str, kill_at: int = -1) -> subprocess.CompletedProcess[str]:
    """Run resume_fit.py on so many ranks, as a user of torchrun would."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += [str(ROOT / "tests" / "resume_fit.py"), str(out), strategy, str(kill_at)]
    return subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, timeout=300)


def steps_of(out: Path, rank: int) -> dict[int, dict[str, Any]]:
    lines = (out / f"steps-{rank}.jsonl").read_text().splitlines()
    return {step["step"]: step for step in map(json.loads, lines)}


def ids_of(out: Path, ranks: int) -> dict[int, list[str]]:
    """Step -> example ids of all ranks, sorted: a step is a set of packs, however they are dealt out."""
    together: dict[int, list[str]] = defaultdict(list)
    for rank in range(ranks):
        for number, step in steps_of(out, rank).items():
            together[number] += step["ids"]
    return {number: sorted(ids) for number, ids in together.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    done = launch(out, 1, "one")
    assert done.returncode == 0, done.stderr
    assert len(steps_of(out, 0)) >= 20
    return out


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, int]:
    """Two ranks, of which the second was killed in the middle of a step."""
    strategy = str(request.param)
    out = tmp_path_factory.mktemp(f"killed-{strategy}")
    kill_at = Random().randrange(2 * EVERY + 1, 18)
    print(f"{strategy}: rank 1 is killed in step {kill_at}")  # shown if a test fails
    done = launch(out, 2, strategy, kill_at)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr or "-9" in done.stderr, done.stderr
    assert not (out / "end-0.json").exists()
    assert max(steps_of(out, 1)) == kill_at - 1
    return strategy, out, kill_at


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_killed_and_resumed_is_never_interrupted(
    ranks: int, killed: tuple[str, Path, int], whole: Path, tmp_path: Path
) -> None:
    """A node is lost and the run goes on with what is left: no example twice, none left out, the same curve."""
    strategy, first, kill_at = killed
    shutil.copytree(first / "checkpoints", tmp_path / "checkpoints")
    done = launch(tmp_path, ranks, strategy if ranks > 1 else "one")
    assert done.returncode == 0, done.stderr
    expected, ids = steps_of(whole, 0), ids_of(tmp_path, ranks)
    start = min(ids)
    # The newest checkpoint may have been under way when the rank was killed; the one before was not.
    assert start % EVERY == 0 and kill_at - 2 * EVERY < start <= kill_at
    assert ids == {number: sorted(step["ids"]) for number, step in expected.items() if number >= start}
    for rank in range(ranks):
        found = steps_of(tmp_path, rank)
        assert found.keys() == ids.keys()
        for number, step in found.items():
            assert step["loss"] == pytest.approx(expected[number]["loss"], rel=LOSS_TOLERANCE, abs=0), number
    again = steps_of(first, 0).keys() & ids.keys()
    if ranks == 2:  # to the last bit, where the killed run had been
        for number in again:
            assert steps_of(tmp_path, 0)[number] == steps_of(first, 0)[number]
    ends = [json.loads((tmp_path / f"end-{rank}.json").read_text()) for rank in range(ranks)]
    assert sum(end["rows"] for end in ends) == 200  # the accounts of the killed ranks as well
    assert all(end["progress"] == 1.0 for end in ends)
    change = "" if ranks == 2 else f" (saved by 2 ranks, now {ranks})"
    assert ends[0]["told"] == [f"resuming after step {start}{change}"]
