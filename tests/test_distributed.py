"""Several ranks compute what one process computes: losses, gradient norms, examples, weights, answers.

fp32 over gloo on CPUs. Ranks add gradients in another order than one process does, which changes a sum by about 1e-7 of
its size; over 20 steps losses differed by 5e-9 and norms by 6e-7, relative, when this was written.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_fit import CASES

ROOT = Path(__file__).parents[1]
LOSS_TOLERANCE, NORM_TOLERANCE, WEIGHT_TOLERANCE = 1e-6, 1e-5, 1e-6
"""Relative; of weights, of the sum of a tensor's magnitudes."""

Run = Callable[[str], list[dict[str, Any]]]
"""Name of a case -> what each rank found."""


def torchrun(folder: Path, processes: int, *cases: str) -> Run:
    """Run the cases of small_fit.py on so many ranks, as a user of torchrun would."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(ROOT / "tests" / "small_fit.py"), str(folder), *cases]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return lambda name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """A case in this process; each is run once."""
    known: dict[str, dict[str, Any]] = {}

    def run(name: str) -> dict[str, Any]:
        if name not in known:
            known[name] = CASES[name](tmp_path_factory.mktemp(name))
        return known[name]

    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every case on two ranks."""
    cases = (
        "ddp",
        "fsdp",
        "fsdp-tied",
        "ddp-poison",
        "fsdp-poison",
        "fsdp-bf16",
        "fsdp-generation",
        "rounding-apart",
        "rounding-together",
        "fsdp-export",
        "fsdp-full-disk",
    )
    return torchrun(tmp_path_factory.mktemp("two"), 2, *cases)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return torchrun(tmp_path_factory.mktemp("four"), 4, "ddp", "fsdp", "hybrid", "fsdp-tied")


def assert_same_training(found: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert len(expected["losses"]) >= 20
    for rank in found:
        assert rank["losses"] == pytest.approx(expected["losses"], rel=LOSS_TOLERANCE, abs=0)
        assert rank["norms"] == pytest.approx(expected["norms"], rel=NORM_TOLERANCE, abs=0)
        assert rank["norms"] == found[0]["norms"], "ranks that clip differently drift apart"
        assert rank["weights"] == pytest.approx(expected["weights"], rel=WEIGHT_TOLERANCE, abs=0)


def assert_same_examples(found: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    for step, ids in enumerate(expected["ids"]):
        together = [identity for rank in found for identity in rank["ids"][step]]
        assert sorted(together) == sorted(ids), f"step {step}"


@pytest.mark.parametrize(("case", "alone"), [("ddp", "one"), ("fsdp", "one"), ("fsdp-tied", "one-tied")])
def test_two_ranks_train_as_one_process(case: str, alone: str, two: Run, one: Callable[[str], dict[str, Any]]) -> None:
    """Averaging the ranks' means, clipping by a shard's norm or reading half a head would change the run in silence."""
    assert_same_training(two(case), one(alone))
    assert_same_examples(two(case), one(alone))


@pytest.mark.parametrize(("case", "alone"), [("ddp", "one"), ("fsdp", "one"), ("fsdp-tied", "one-tied")])
def test_two_ranks_validate_as_one_process(
    case: str, alone: str, two: Run, one: Callable[[str], dict[str, Any]]
) -> None:
    """Were the ranks' means averaged, or a row measured twice, the loss would depend on how many ranks there are."""
    expected = one(alone)["validation"]
    assert expected["validation/rows"] == 10 and expected["validation/loss"] < expected["validation/loss_before"] - 0.1
    for rank in two(case):
        assert rank["validation"] == pytest.approx(expected, rel=LOSS_TOLERANCE, abs=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "alone"), [("ddp", "one"), ("fsdp", "one"), ("hybrid", "one"), ("fsdp-tied", "one-tied")]
)
def test_four_ranks_train_as_one_process(
    case: str, alone: str, four: Run, one: Callable[[str], dict[str, Any]]
) -> None:
    """Four ranks change the run like two; hybrid: weights cut over two ranks, gradients summed over all four."""
    assert_same_training(four(case), one(alone))
    assert_same_examples(four(case), one(alone))


def test_a_rank_may_have_no_labels(two: Run) -> None:
    """At the end of a stage some ranks have only padding; were they to leave out a pass, the others would hang."""
    labelled = [[bool(ids) for ids in rank["ids"]] for rank in two("fsdp-tied")]
    assert any(len(set(step)) == 2 for step in zip(*labelled, strict=True)), "no step had such a rank"


@pytest.mark.parametrize("case", ["ddp-poison", "fsdp-poison"])
def test_a_gradient_that_is_not_finite_stops_every_rank(case: str, two: Run) -> None:
    """A NaN on one rank must stop all of them in the same step, before any weight is touched."""
    for rank in two(case):
        assert rank["error"].startswith("TrainingError: step 2: loss nan")
        assert rank["weights_kept"]


def test_a_sharded_student_answers_as_a_whole_one(two: Run) -> None:
    """Samples while training and the questions at the end are answered by the weights that are exported."""
    for rank in two("fsdp-generation"):
        assert rank["together"] == rank["alone"] == rank["whole"]
        assert len({token for answer in rank["whole"] for token in answer}) > 5


def test_a_sharded_student_that_computes_in_bf16_answers(two: Run) -> None:
    """What every run on several GPUs does. Fails if it dies at its first question, or a layer fills a copied cache."""
    for rank in two("fsdp-bf16"):
        assert rank["together"] == rank["alone"]
        # Rounding changes an answer sooner or later.
        assert [ids[:4] for ids in rank["alone"]] == [ids[:4] for ids in rank["whole"]]


@pytest.mark.parametrize("way", ["slots", "one by one"])
def test_ranks_whose_logits_differ_in_the_last_bit_write_the_same(way: str, two: Run) -> None:
    """Fails if a rank goes on with a token of its own: answers would differ, and sharded ranks gather out of step."""
    apart, together = two("rounding-apart"), two("rounding-together")
    assert apart[0][way][0][0] != apart[1][way][0][0], "the ranks do not differ, so nothing is tested"
    assert together[0][way] == together[1][way] == apart[0][way]


def test_ranks_agree_whether_prompts_are_answered_at_once(two: Run) -> None:
    """Fails if one rank answers over slots and another one by one, as rounding at the threshold could decide."""
    assert [rank["batches"] for rank in two("rounding-together")] == [True, True]


def test_a_sharded_student_is_exported_file_by_file(two: Run) -> None:
    """Fails if weights are lost between ranks and files, or only this project can read them."""
    for rank in two("fsdp-export"):
        assert rank["error"] is None
        assert rank["same"]
        assert {"config.json", "generation_config.json", "model.safetensors.index.json"} <= set(rank["files"])
        assert len([name for name in rank["files"] if name.endswith(".safetensors")]) >= 3


def test_a_disk_that_is_full_at_the_export_ends_every_rank(two: Run) -> None:
    """Fails if ranks wait forever in a gathering that the first has given up, or half an export stays."""
    first, second = two("fsdp-full-disk")
    assert first["error"].startswith("ModelError: cannot write the student to")
    assert second["error"].startswith("RankError: ModelError on rank 0: cannot write the student to")
    assert first["left"] == second["left"] == []
