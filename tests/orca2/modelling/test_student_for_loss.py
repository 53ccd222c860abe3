"""The student's loss: documents are isolated, the loss is that of plain cross-entropy, gradients too."""

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from orca2.errors import ModelError
from orca2.modelling import loss
from orca2.modelling.loss import label_losses
from orca2.modelling.recompute import ActivationCheckpointing
from orca2.modelling.selftest import check_student
from orca2.modelling.student_model import StudentForLoss, decoder_layers

VOCABULARY = 61
LENGTHS = (7, 12, 4)
FAMILIES = {
    "llama": {"num_key_value_heads": 4},
    "llama_gqa": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 5},
    "gemma3_text": {"head_dim": 8},
    "gpt2": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    },
}


def tiny(family: str, **fields: object) -> PreTrainedModel:
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family.removesuffix("_gqa")](**{**common, **FAMILIES.get(family, {}), **fields})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh weights are so small that attention hardly matters; a leak must be seen.
            parameter.mul_(4) if parameter.ndim == 2 else None
    return model


def row(lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (sum(lengths),), generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths])
    inside = torch.cat([torch.arange(length) < length - 1 for length in lengths])
    label_positions = inside.nonzero()[:, 0][::2]
    return {"ids": ids, "positions": positions, "at": label_positions, "labels": ids[label_positions + 1]}


def losses(student: StudentForLoss, batch: dict[str, torch.Tensor], lengths: tuple[int, ...]) -> torch.Tensor:
    return student(batch["ids"][None], batch["positions"][None], lengths, batch["at"], batch["labels"])


def unpacked(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' own forward pass of each document alone, all logits, plain cross-entropy."""
    found, start = [], 0
    for length in LENGTHS:
        logits = model(input_ids=batch["ids"][None, start : start + length]).logits[0]
        here = (batch["at"] >= start) & (batch["at"] < start + length)
        found.append(F.cross_entropy(logits[batch["at"][here] - start], batch["labels"][here], reduction="none"))
        start += length
    return torch.cat(found)


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_packed_equals_unpacked(family: str, kernel: str) -> None:
    """Fails if a document sees another one, or if loss or gradients differ from plain cross-entropy."""
    model, batch = tiny(family), row()
    wanted = unpacked(model, batch)
    wanted.sum().backward()
    wanted_gradients = gradients(model)
    model.zero_grad(set_to_none=True)
    got = losses(StudentForLoss(model, kernel), batch, LENGTHS)
    got.sum().backward()
    assert got.shape == (10,)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert gradients(model).keys() == wanted_gradients.keys() and len(wanted_gradients) > 5
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted_gradients[name], rtol=1e-4, atol=2e-5, msg=name)


def test_window_cuts_a_long_document() -> None:
    """Fails if a sliding window is ignored: the window of 5 must matter in a document of 12."""
    batch = row()
    with_window = losses(StudentForLoss(tiny("mistral"), "sdpa"), batch, LENGTHS)
    without = losses(StudentForLoss(tiny("mistral", sliding_window=None), "sdpa"), batch, LENGTHS)
    assert (with_window - without).abs().max() > 1e-3


def test_one_document_is_not_isolated_from_itself() -> None:
    """Fails if `lengths` is ignored: one document of 23 tokens differs from three."""
    student, batch = StudentForLoss(tiny("llama"), "sdpa"), row()
    assert (losses(student, batch, LENGTHS) - losses(student, batch, (sum(LENGTHS),))).abs().max() > 1e-3


@pytest.mark.parametrize(("mode", "products", "activations"), [("none", 1, 1), ("selective", 1, 2), ("full", 2, 2)])
def test_activation_checkpointing_changes_nothing(
    mode: ActivationCheckpointing, products: int, activations: int
) -> None:
    """Fails if the layout gets lost when a layer is recomputed, or more or less is recomputed than it says."""
    plain, batch = tiny("llama_gqa"), row()
    losses(StudentForLoss(plain, "sdpa"), batch, LENGTHS).sum().backward()
    model = tiny("llama_gqa")
    student = StudentForLoss(model, "sdpa", activation_checkpointing=mode).train()
    computed = Computed()
    with computed:
        losses(student, batch, LENGTHS).sum().backward()
    layers, attention = len(model.base_model.layers), "aten._scaled_dot_product_flash_attention_for_cpu.default"
    assert computed.count["aten.silu.default"] == activations * layers
    assert computed.count[attention] == products * layers * len(LENGTHS)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-5, atol=1e-6)


class Computed(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("head", ["chunked", "own"])
def test_no_labels_give_zero_gradients(head: str) -> None:
    """Fails if a micro-batch without labels breaks backward or leaves parameters out (DDP would hang)."""
    model, batch = tiny("llama"), row()
    student = StudentForLoss(model, "sdpa")
    student.head = head
    empty = torch.empty(0, dtype=torch.long)
    got = losses(student, batch | {"at": empty, "labels": empty}, LENGTHS)
    assert got.shape == (0,) and got.dtype == torch.float32
    got.sum().backward()
    found = gradients(model)
    assert len(found) == len(list(model.parameters())) and all(not g.any() for g in found.values())


@pytest.mark.parametrize("with_bias", [False, True])
def test_chunks_change_no_loss(with_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a chunk boundary drops or repeats a label, or the hand-written gradient is wrong."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(10, 8, requires_grad=True), torch.randn(17, 8, requires_grad=True)
    bias = torch.randn(17, requires_grad=True) if with_bias else None
    labels, weights = torch.randint(0, 17, (10,)), torch.randn(10)
    inputs = [hidden, weight, *([bias] if bias is not None else [])]
    wanted = F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="none")
    wanted_gradients = torch.autograd.grad((wanted * weights).sum(), inputs)
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 3 * 17)
    got = label_losses(hidden, weight, bias, labels)
    got_gradients = torch.autograd.grad((got * weights).sum(), inputs)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(got_gradients, wanted_gradients)


def test_autocast_loss_is_fp32() -> None:
    """Fails if half precision reaches the loss, or autocast breaks the kernels' equal-dtype rule."""
    student, batch = StudentForLoss(tiny("qwen3"), "sdpa"), row()
    exact = losses(student, batch, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses(student, batch, LENGTHS)
    got.sum().backward()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("family", ["llama_gqa", "qwen3", "mixtral"])
def test_self_test_passes_and_restores(family: str) -> None:
    """Fails if a sound model is refused, or the check leaves another mode or attention behind."""
    student = StudentForLoss(tiny(family), "sdpa").train()
    before = student.model.config._attn_implementation
    assert check_student(student) == "chunked"
    assert student.training and student.model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("family", "fields"),
    [("granite", {"logits_scaling": 8.0}), ("cohere", {"logit_scale": 0.5}), ("gemma2", {"head_dim": 8})],
)
def test_altered_logits_use_the_own_head(family: str, fields: dict[str, object]) -> None:
    """Fails if scaled or capped logits are trained without; a cap is invisible at fresh weights."""
    student = StudentForLoss(tiny(family, **fields), "eager")
    assert check_student(student) == "own"
    batch = row()
    with torch.no_grad():
        got = losses(student, batch, LENGTHS)
        student.model.set_attn_implementation("eager")
        torch.testing.assert_close(got, unpacked(student.model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bloom", "stablelm"])
def test_foreign_attention_is_refused(family: str) -> None:
    """Fails if a family that ignores our attention could train on packed rows."""
    with pytest.raises(ModelError, match="cannot keep packed examples apart"):
        check_student(StudentForLoss(tiny(family, n_head=4), "sdpa"))


def test_recurrent_layers_are_refused() -> None:
    """Fails if a state that runs on across documents (here a short convolution) goes unnoticed."""
    student = StudentForLoss(tiny("lfm2", layer_types=["conv", "full_attention"]), "sdpa")
    with pytest.raises(ModelError, match="packed document"):
        check_student(student)


def test_score_caps_need_another_kernel() -> None:
    """Fails if gemma2's cap on attention scores is left out in silence."""
    with pytest.raises(ModelError, match="attention=eager"):
        check_student(StudentForLoss(tiny("gemma2", head_dim=8), "sdpa"))


def test_compile_without_a_fused_kernel_is_refused() -> None:
    """Fails if a run on CPU spends minutes compiling for each micro-batch."""
    with pytest.raises(ModelError, match="compile=false"):
        StudentForLoss(tiny("llama"), "sdpa", compile=True)


def test_decoder_layers() -> None:
    """Fails if sharding units are missing or counted twice."""
    model = tiny("llama")
    assert decoder_layers(model) == list(model.base_model.layers)
