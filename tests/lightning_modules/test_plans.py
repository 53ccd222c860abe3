"""`plan=true` from the config to the table: for machines that are not here, and sources that are elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lightning_modules.planning import plan_run
from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.errors import ConfigError
from orca2.planning.gpu import EXAMPLE, GPU
from orca2.planning.plan import Assumptions, Plan
from orca2.settings import build_all, check, compose_config, expected_tokens, stage_configs

CLUSTER = ["trainer=fsdp", "trainer.devices=8", "packing.length=4096", "packs_per_step=64", "packs_per_micro_batch=1"]
ELSEWHERE = ["source=hub", "source.path=owner/set"]
STATED = ["planning.rows=1000000", "planning.tokens_per_example=500"]


def job_of(*overrides: str) -> tuple[TrainingJob, GPU, Assumptions]:
    built = build_all(compose_config("train", overrides), leave_out=("run_dir", "plan", "curriculum", "only_stage"))
    gpu, assumptions = built.pop("gpu"), built.pop("planning")
    return TrainingJob(**built), gpu, assumptions


def plan(*overrides: str) -> Plan:
    job, gpu, assumptions = job_of(*overrides)
    return plan_run({job.name: job}, gpu, assumptions, Console(quiet=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is planned for that GPU")
def test_the_demo_on_this_cpu() -> None:
    """Fails if the plain command cannot be planned, or lengths are not measured where the source is at hand."""
    demo = plan()
    assert demo.machine.device == "CPU" and demo.fits
    assert demo.request.checkpointing == "none"
    assert demo.stages[0].rows == 55_000
    assert "55,000 of the 55,000 rows of procedural are trained on" in demo.stages[0].origin
    assert "measured on 500 of them\n  these rows are generated toy tasks" in demo.stages[0].origin
    assert 50 < demo.stages[0].tokens / 55_000 < 300


def test_a_cluster_that_is_not_here() -> None:
    """Fails if a plan needs the GPUs or the network, or cuts the weights over nodes that hold copies."""
    large = plan("model=13b", "gpu=a100_80", *CLUSTER, "trainer.nodes=4", *ELSEWHERE, *STATED)
    assert large.fits
    assert (large.machine.ranks, large.machine.nodes, large.request.shards) == (32, 4, 8)
    assert (large.request.compute, large.request.master) == ("bf16", "fp32")
    assert large.request.checkpointing == "full"
    assert large.memory.optimizer == 8 * 13_015_864_320 // 8
    assert large.stages[0].tokens == 500_000_000


def test_a_run_that_cannot_fit_is_refused() -> None:
    """Fails if 13B is let onto one GPU with all its states."""
    with pytest.raises(ConfigError, match=r"cannot fit.*\n  - trainer=fsdp trainer.devices=4.*\n  - lora=default"):
        plan("model=13b", "trainer=one_gpu", "gpu=a100_80", *CLUSTER[2:], *ELSEWHERE, *STATED)


def test_lora_in_four_bits_fits_a_small_gpu() -> None:
    """Fails if the switch does not reach the plan."""
    small = plan(
        *("model=7b", "lora=default", "lora.quantization=4bit", "trainer=one_gpu", "gpu=a100_40"),
        *(*CLUSTER[2:], *ELSEWHERE, *STATED),
    )
    assert small.memory.weights < 6 * 2**30
    assert small.fits


def test_a_source_elsewhere_must_be_stated() -> None:
    """Fails if a plan downloads a data set, or makes numbers up for it."""
    with pytest.raises(ConfigError, match=r"nothing: state planning.rows=… and planning.tokens_per_example=…"):
        plan("model=7b", *ELSEWHERE)
    with pytest.raises(ConfigError, match=r"state planning.tokens_per_example=…$"):
        plan("model=7b", *ELSEWHERE, "planning.rows=5")
    openorca = plan("model=smollm2_135m", "source=openorca", "gpu=h200", "trainer=one_gpu")
    assert openorca.stages[0].tokens == 1_000_000 * 475


def test_tokens_and_rows_that_are_given_are_planned() -> None:
    """Fails if a run by tokens is planned as one pass, or a capped source by what its whole was expected to hold."""
    for source in ((), ("source=hub", "source.path=owner/set")):
        (stage,) = plan("tokens=100000000", *source).stages
        assert stage.tokens == pytest.approx(1e8, rel=1e-4)
        assert stage.steps == pytest.approx(1e8 / (2 * 1024 * 0.98), rel=1e-3)
    job, gpu, assumptions = job_of("source=flan", "source.rows=100000", "model=7b", "trainer=fsdp", "gpu=h200")
    (flan,) = plan_run({"flan": job}, gpu, assumptions, Console(quiet=True), {"flan": 2_500_000_000}).stages
    assert (flan.rows, flan.tokens) == (100_000, 42_000_000)


def test_a_remedy_can_be_run() -> None:
    """Fails if the advice is itself refused: packs that cannot be dealt out to that many ranks."""
    one = ("model=13b", "gpu=a100_80", "trainer=one_gpu", *ELSEWHERE, *STATED)
    with pytest.raises(ConfigError, match="cannot fit") as caught:
        plan(*one)
    advice = str(caught.value).split("\n  - ")[1].split()
    assert "packs_per_step=4" in advice
    assert plan(*one, *advice).fits


def test_lengths_are_estimated_without_the_tokenizer() -> None:
    """Fails if the tokens of another tokenizer are given out for the model's own, or nobody is told."""
    estimated = plan("model=smollm2_135m", "gpu=h200", "trainer=one_gpu")
    assert "estimated at 3.6 bytes a token" in estimated.stages[0].origin


@pytest.mark.skipif(torch.cuda.is_available(), reason="is planned for that GPU")
def test_what_a_cpu_cannot_train_is_told_which_gpus_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the plain command of a newcomer ends without a way out, or with one that is refused in turn."""
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 24 * 2**30 // 4096}
    monkeypatch.setattr("lightning_modules.planning.os.sysconf", pages.__getitem__)
    with pytest.raises(ConfigError, match="cannot fit") as caught:
        plan("model=13b")
    ways = str(caught.value).split("\n  - ")[1:]
    assert ways[0].startswith("gpu=a100_80 trainer=fsdp trainer.devices=4") and "lora=default" in ways[1]
    for way in ways:
        assert plan("model=13b", *way.split()).fits
    with pytest.raises(ConfigError, match="\n  - lora=default\n"):
        plan("model=llama32_3b", "trainer=cpu", "packing.length=512")


def test_the_example_gpu_is_the_one_of_the_config() -> None:
    """Fails if the advice rests on other figures than the plan that it names."""
    assert build_all(compose_config("train", ["gpu=a100_80"]), leave_out=NOT_OF_THE_JOB[:2])["gpu"] == EXAMPLE


def test_rows_here_are_counted(tmp_path: Path) -> None:
    """Fails if a strategy's rows are guessed from a sample, or a set on disk is planned by what its stage expected."""
    records = [
        {"task": "t", "strategy": "direct" if row < 100 else "step_by_step", "system": "", "user": f"{row}?"}
        | {"answer": "yes " * 40, "teacher": "t", "id": str(row), "source": "records"}
        for row in range(1000)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    here = (f"source.path={tmp_path / 'rows.jsonl'}", f"source.cache_dir={tmp_path}", "planning.sample_rows=50")
    (direct,) = plan("source=records", *here, "strategy=direct", "packing.length=512").stages
    assert direct.rows == 100
    own = [text.replace("source.", "source.members.synthesized.") for text in here[:2]]
    (mixed,) = plan("source=orca2", *own, "strategy=direct", "model=7b", "trainer=fsdp", "gpu=h200").stages
    assert mixed.rows == 1_000_000 + 100
    assert "100 of the 1,000 rows of synthesized" in mixed.origin and "as stated" in mixed.origin


def test_the_papers_curriculum_is_planned_before_its_data_is_made() -> None:
    """Fails if nobody can ask what the paper's run takes without first paying for its data."""
    settings = ["curriculum=orca2", "model=13b", "gpu=a100_80", *CLUSTER, "trainer.nodes=4"]
    config = compose_config("train", [*settings, "plan=true"])
    check(config)
    stages = {key: TrainingJob(**build_all(one, NOT_OF_THE_JOB)) for key, one in stage_configs(config).items()}
    built = build_all(config, [key for key in config if key not in ("gpu", "planning")])
    planned = plan_run(stages, built["gpu"], built["planning"], Console(quiet=True), expected_tokens(config))
    assert planned.stages[2].tokens == pytest.approx(4 * 900_000_000, rel=1e-5)
    assert "not made yet" in planned.stages[2].origin
    with pytest.raises(ConfigError, match=r"members\.synthesized\.path: has no value"):
        check(compose_config("train", settings))


def test_stages_of_the_paper() -> None:
    """Fails if stages are not planned one by one, beside the paper's hours, from the tokens that each states."""
    settings = ["model=13b", "gpu=a100_80", *CLUSTER, "trainer.nodes=4", *ELSEWHERE]
    job, gpu, assumptions = job_of(*settings)
    jobs = {"flan": job, "chatgpt": replace(job, epochs=3, packs_per_step=512), "other": replace(job, epochs=2)}
    stated = {"flan": 2_500_000_000, "chatgpt": 1_500_000_000, "other": 475}
    planned = plan_run(jobs, gpu, assumptions, Console(quiet=True), stated)
    assert [stage.paper_hours for stage in planned.stages] == [17, 40, None]
    assert [stage.tokens for stage in planned.stages] == [pytest.approx(n, rel=1e-6) for n in (2.5e9, 4.5e9, 950)]
    flan, chatgpt, _ = planned.stages
    assert flan.steps / chatgpt.steps == pytest.approx(2.5 * 8 / 4.5, rel=1e-3)
    assert flan.hours is not None and 5 < flan.hours < 30


def test_validation_is_planned() -> None:
    """Fails if rows that do not train are counted as trained, or measuring them often costs nothing."""
    plain = plan("source.size=5000")
    measured = plan("source.size=5000", "validation.rows=1000", "validation.every_steps=10")
    assert measured.stages[0].rows == 4_000
    times = 2 + (measured.stages[0].steps - 1) // 10
    assert f"validation on 1,000 rows, {times} times: " in measured.stages[0].origin
    # Each measurement is a forward pass, a third of the arithmetic of a training step, over a quarter as many rows.
    work = plain.stages[0].operations * 0.8
    assert measured.stages[0].operations == pytest.approx(work * (1 + times / 3 / 4), rel=0.05)
