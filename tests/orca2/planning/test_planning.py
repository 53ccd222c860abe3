"""Memory and work against numbers made by hand, what a plan refuses, and what it proposes instead."""

from dataclasses import replace

import pytest
from rich.console import Console
from transformers import LlamaConfig, Qwen3Config

from orca2.errors import ConfigError
from orca2.modelling.loss import chunk_rows
from orca2.planning.gpu import GPU
from orca2.planning.memory import Setting, layer_bytes_per_token, memory_of
from orca2.planning.plan import Assumptions, Machine, PlanRequest, make_plan
from orca2.planning.shape import LoraSize, ModelShape, shape_of
from orca2.planning.show import show_plan
from orca2.planning.work import Lengths, StageOutline, operations_per_token, work_of

GIB = 2**30
LLAMA_7B = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    tie_word_embeddings=False,
)
LENGTHS = Lengths(mean=500, mean_square=500**2, label_share=0.5, origin="stated")
A100 = Machine(
    device="a100_80",
    memory=80 * GIB,
    usable=72 * GIB,
    operations_per_second=312e12 * 0.4,
    ranks=8,
    nodes=1,
    is_gpu=True,
)


@pytest.fixture(scope="module")
def seven() -> ModelShape:
    return shape_of(LLAMA_7B)


def setting(**changed: object) -> Setting:
    values: dict[str, object] = {
        "tokens": 4096,
        "label_tokens": 2048,
        "micro_batches": 1,
        "compute": "bf16",
        "master": "fp32",
        "parallelism": "one",
        "shards": 1,
        "checkpointing": "full",
        "fused_attention": True,
        "on_cuda": True,
    }
    return Setting(**{**values, **changed})  # type: ignore[arg-type]


def request(shape: ModelShape, **changed: object) -> PlanRequest:
    values: dict[str, object] = {
        "shape": shape,
        "compute": "bf16",
        "master": "fp32",
        "parallelism": "fsdp",
        "shards": 8,
        "checkpointing": "full",
        "fused_attention": True,
        "on_cuda": True,
        "pack_tokens": 4096,
        "packs_per_step": 64,
        "packs_per_micro_batch": 1,
        "label_share": 0.5,
        "lora": None,
        "quantized": False,
        "with_lora": LoraSize(matrices=40_000_000),
    }
    return PlanRequest(**{**values, **changed})  # type: ignore[arg-type]


def test_shape_counts_what_is_there(seven: ModelShape) -> None:
    """Fails if parts are counted twice or not at all: every other figure rests on these."""
    assert seven.parameters == 6_738_415_616
    assert seven.layer_parameters == 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert seven.root_parameters == 2 * 32000 * 4096 + 4096
    assert seven.layer_weights == seven.layer_parameters - 2 * 4096
    assert set(seven.layer_matrices) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert not seven.tied and not seven.head_norms
    grown = shape_of(LLAMA_7B, rows=32_003)
    assert grown.parameters - seven.parameters == 6 * 4096
    assert shape_of(LLAMA_7B, rows=100) == seven
    small = Qwen3Config(hidden_size=32, head_dim=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2)
    qwen = shape_of(small)
    assert (qwen.head_norms, qwen.queries, qwen.keys) == (True, 64, 32)


def test_states_take_sixteen_bytes_a_parameter(seven: ModelShape) -> None:
    """Fails if weights, gradients or AdamW's two states are left out, or cut among ranks that have them whole."""
    whole = memory_of(seven, setting())
    assert (whole.weights, whole.gradients, whole.optimizer) == tuple(n * seven.parameters for n in (4, 4, 8))
    cut = memory_of(seven, setting(parallelism="fsdp", shards=8))
    assert (cut.weights, cut.gradients, cut.optimizer) == tuple(n * seven.parameters // 8 for n in (4, 4, 8))
    assert memory_of(seven, setting(master="bf16")).weights == 2 * seven.parameters
    assert cut.peak < 40 * GIB < 110 * GIB < whole.peak


def test_activations_of_a_layer(seven: ModelShape) -> None:
    """Fails if a saved tensor is forgotten; the sums are written out from the forward pass of transformers' Llama."""
    hidden, wide, heads = 4096, 11008, 32
    fp32 = 4 * (6 * hidden + 3 * hidden + 2 * hidden + 4 * wide) + 4 * (heads + 2)
    assert layer_bytes_per_token(seven, setting(compute="fp32", fused_attention=False)) == fp32
    # Under autocast: residual stream and normalised values in fp32, five casts of the norms' outputs.
    mixed = hidden * (2 * 8 + 5 * 2) + 2 * (4 * hidden + 4 * wide) + 4 * (heads + 2)
    assert layer_bytes_per_token(seven, setting()) == mixed
    sharded = hidden * (2 * 6 + 2 * 2) + 2 * (4 * hidden + 4 * wide) + 4 * (heads + 2)
    assert layer_bytes_per_token(seven, setting(parallelism="fsdp", shards=8)) == sharded


def test_recomputing_saves_memory_and_accumulating_costs_some(seven: ModelShape) -> None:
    """Fails if a mode is planned as another, or gradients that wait for a second micro-batch are forgotten."""
    none, selective, full = (
        memory_of(seven, setting(checkpointing=mode)).activations for mode in ("none", "selective", "full")
    )
    assert none > 1.5 * selective > 3 * full
    once, often = memory_of(seven, setting()), memory_of(seven, setting(micro_batches=8))
    assert often.peak > once.peak
    assert often.gradients == once.gradients


def test_a_gpu_makes_the_loss_in_larger_chunks(seven: ModelShape) -> None:
    """Fails if the plan counts other logits than the loss makes: half a GiB in a vocabulary of 128,000."""
    assert (chunk_rows(32_000, on_cuda=False), chunk_rows(32_000, on_cuda=True)) == (131, 1024)
    more = memory_of(seven, setting()).logits - memory_of(seven, setting(on_cuda=False)).logits
    assert more == (1024 - 131) * 32_000 * (4 + 2)


def test_adapters_have_no_states_of_frozen_weights(seven: ModelShape) -> None:
    """Fails if LoRA is planned as dear as training all, or 4-bit weights as large as others."""
    lora = memory_of(seven, setting(lora=LoraSize(matrices=40_000_000)))
    assert (lora.gradients, lora.optimizer) == (160_000_000, 320_000_000)
    small = memory_of(seven, setting(lora=LoraSize(matrices=40_000_000), quantized=True))
    assert small.weights < 5.5 * GIB < 24 * GIB < lora.weights
    assert small.peak < 16 * GIB


def test_a_checkpoint_holds_what_is_trained(seven: ModelShape) -> None:
    """Fails if disks are planned for frozen weights, which no checkpoint has."""
    lora = LoraSize(matrices=40_000_000, embeddings=1000)
    assert make_plan(request(seven, lora=lora), A100, [], 1.0).checkpoint == 3 * 4 * 40_001_000
    assert memory_of(seven, setting(lora=lora)).weights == 4 * (seven.parameters + 40_000_000)


@pytest.mark.parametrize(("packs_per_step", "most", "planned"), [(40, 4, 1), (48, 4, 3), (64, 4, 4), (8, 4, 1)])
def test_packs_are_planned_as_they_are_run(seven: ModelShape, packs_per_step: int, most: int, planned: int) -> None:
    """Fails if a plan refuses a run for activations that it never has: 5 packs a rank are five steps of one."""
    one = request(seven, packs_per_step=packs_per_step, packs_per_micro_batch=most).setting(8)
    assert (one.tokens, one.micro_batches) == (4096 * planned, packs_per_step // 8 // planned)


def test_arithmetic_of_a_token(seven: ModelShape) -> None:
    """Fails if hours are made with the wrong arithmetic: 6 a weight, true lengths, logits where labels are."""
    matrices, head = 32 * seven.layer_weights, 32000 * 4096
    attention = 12 * 32 * 4096 * 250
    assert operations_per_token(seven, LENGTHS, None) == 6 * matrices + attention + 3 * head
    lora = LoraSize(matrices=10)
    assert operations_per_token(seven, LENGTHS, lora) == 4 * matrices + attention + 2 * head + 60
    # Looking embeddings up is no arithmetic; the output layer's gradient is.
    lora = LoraSize(matrices=10, embeddings=2 * head)
    assert operations_per_token(seven, LENGTHS, lora) == 4 * matrices + attention + 3 * head + 60


def test_hours_and_steps(seven: ModelShape) -> None:
    """Fails if epochs, packing or the number of GPUs do not count."""
    stage = StageOutline(name="two", rows=5_000_000, epochs=3, lengths=LENGTHS, tokens_per_step=4096 * 64)
    work = work_of(stage, seven, 0.98, 32 * 312e12 * 0.4, None)
    assert (work.rows, work.tokens) == (15_000_000, 7_500_000_000)
    assert work.steps == round(7.5e9 / (4096 * 64 * 0.98))
    assert work.hours == pytest.approx(work.operations / (32 * 312e12 * 0.4) / 3600)
    assert work_of(stage, seven, 0.98, None, None).hours is None


def test_a_plan_that_fits_prints_itself(seven: ModelShape) -> None:
    """Fails if a component, the paper's hours or the verdict is missing from what is printed."""
    stages = [
        StageOutline(name=name, rows=10**6, epochs=1, lengths=LENGTHS, tokens_per_step=4096 * 64)
        for name in ("flan", "chatgpt")
    ]
    plan = make_plan(request(seven), A100, stages, 0.98)
    console = Console(width=140, record=True, quiet=False, file=None)
    with console.capture() as captured:
        show_plan(plan, console)
    text = captured.get()
    for word in ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "peak", "checkpoint", "fits"):
        assert word in text, word
    assert "57.0" in text  # 17 + 40 of the paper
    assert plan.checkpoint == 12 * seven.parameters


def test_what_cannot_fit_is_refused_with_changes_that_would(seven: ModelShape) -> None:
    """Fails if a run is let go that ends out of memory, or a proposed change would not make it fit."""
    stages = [StageOutline(name="one", rows=1000, epochs=1, lengths=LENGTHS, tokens_per_step=4096)]
    plan = make_plan(request(seven, parallelism="ddp", shards=1, checkpointing="none"), A100, stages, 0.98)
    assert not plan.fits
    assert plan.remedies[0] == "trainer=fsdp"
    with pytest.raises(ConfigError, match=r"cannot fit: .*GiB.*\n  - trainer=fsdp"):
        show_plan(plan, Console(quiet=True))
    assert make_plan(request(seven, checkpointing="none"), A100, stages, 0.98).fits


def test_remedies_are_the_fewest_changes(seven: ModelShape) -> None:
    """Fails if more is changed than needed, or more GPUs are asked for where a setting is enough."""
    stages = [StageOutline(name="one", rows=1000, epochs=1, lengths=LENGTHS, tokens_per_step=4096)]
    large = request(seven, checkpointing="none", packs_per_micro_batch=4)
    plan = make_plan(large, A100, stages, 0.98)
    assert plan.remedies[0] in ("packs_per_micro_batch=1", "model.activation_checkpointing=selective")
    one = replace(A100, ranks=1)
    alone = make_plan(request(seven, parallelism="one", shards=1), one, stages, 0.98)
    assert not alone.fits
    assert alone.remedies[0] == "trainer=fsdp trainer.devices=2"
    assert alone.remedies[1] == "lora=default"
    tiny_gpu = replace(one, memory=16 * GIB, usable=15 * GIB)
    small = make_plan(request(seven, parallelism="one", shards=1), tiny_gpu, stages, 0.98)
    assert any("lora.quantization=4bit" in way for way in small.remedies)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPU(name="g", memory_mib=0, peak_tflops=1, expected_mfu=0.4), "memory_mib = 0"),
        (lambda: GPU(name="g", memory_mib=1, peak_tflops=-1, expected_mfu=2), "peak_tflops = -1.*expected_mfu = 2"),
        (
            lambda: Assumptions(name="a", tokens_per_example=0, rows=0, sample_rows=1, free_share=1.0, utilisation=1.1),
            "tokens_per_example = 0.*rows = 0.*free_share = 1.0.*utilisation = 1.1",
        ),
    ],
)
def test_bad_numbers(make: object, message: str) -> None:
    """Fails if a plan is made from numbers that mean nothing."""
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
