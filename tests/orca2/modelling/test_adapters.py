"""LoRA: what trains, that nothing changes at first, and that the export is a plain model of the same function."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, PreTrainedModel

from orca2.errors import ConfigError, ModelError
from orca2.modelling import adapters
from orca2.modelling.adapters import Lora, adapter_parameters, add_adapters, merge_adapters
from orca2.modelling.attention import standard_attention
from orca2.modelling.build import build_model, build_tokenizer, config_of_shape
from orca2.modelling.export import export_student, verify_export
from orca2.modelling.optimization import build_optimizer
from orca2.modelling.selftest import check_student
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student_model import StudentForLoss
from orca2.planning.shape import shape_of
from orca2.rendering.format import ChatFormat
from orca2.settings import build, compose_config

IDS = torch.arange(5, 45)[None]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def tiny() -> tuple[ModelSpec, ChatFormat]:
    config = compose_config("train", ["model=tiny"])
    return build(config.model), build(config.format)


def adapted(lora: Lora, train_embeddings: bool = False) -> PreTrainedModel:
    spec, chat_format = tiny()
    model = build_model(spec, build_tokenizer(spec, chat_format), seed=0)
    torch.manual_seed(0)
    add_adapters(model, lora, train_embeddings)
    return model


def trained_step(model: PreTrainedModel) -> None:
    """One optimizer step on random labels, large enough to be seen."""
    student = StudentForLoss(model, "sdpa")
    optimizer = build_optimizer(build(compose_config("train", ["optimizer.learning_rate=0.01"]).optimizer), student)
    labels = torch.arange(IDS.shape[1])
    for _ in range(2):  # in the first step only B has a gradient, since B is zero
        student(IDS, labels[None], (20, 20), labels, IDS[0].roll(-1)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("targets", ["linear", "attention"])
def test_only_adapters_train(targets: str) -> None:
    """Fails if a frozen weight moves, an adapter does not, or a plan counts other parameters than train."""
    lora = Lora(name="l", rank=4, alpha=8, targets=targets)  # type: ignore[arg-type]
    model = adapted(lora)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    shape = shape_of(config_of_shape(tiny()[0]))
    assert adapter_parameters(lora, shape.layer_matrices, shape.layers) == sum(before[name].numel() for name in trained)
    assert len(trained) == 4 * 2 * (7 if targets == "linear" else 4)
    trained_step(model)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == trained


def test_embeddings_train_where_the_tokenizer_grew() -> None:
    """Fails if new rows, all alike, stay frozen: the end of a turn could never be told from its start."""
    model = adapted(Lora(name="l", rank=2, targets="attention"), train_embeddings=True)
    before = model.get_input_embeddings().weight.detach().clone()
    trained_step(model)
    assert not torch.equal(model.get_input_embeddings().weight, before)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_nothing_changes_at_first() -> None:
    """Fails if training starts from another model than the base, or packed documents see each other."""
    spec, chat_format = tiny()
    plain = build_model(spec, build_tokenizer(spec, chat_format), seed=0)
    model = adapted(Lora(name="l", rank=4, dropout=0.5)).eval()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, plain.eval()(IDS).logits)
    assert check_student(StudentForLoss(model, "sdpa")) == "chunked"


def test_export_is_a_plain_model_of_the_same_function(tmp_path: Path) -> None:
    """Fails if the exported folder needs peft, or answers otherwise than the student that was trained."""
    spec, chat_format = tiny()
    tokenizer = build_tokenizer(spec, chat_format)
    model = adapted(Lora(name="l", rank=4, alpha=16))
    with torch.no_grad():
        untrained = model.eval()(IDS).logits
    trained_step(model.train())
    with torch.no_grad(), standard_attention(model):
        wanted = model.eval()(IDS).logits
    merge_adapters(model)
    export_student(model, tokenizer, tmp_path / "student", {})
    verify_export(tmp_path / "student", model)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert type(loaded) is type(model)
    assert not any("lora" in name for name in loaded.state_dict())
    with torch.no_grad():
        got = loaded.eval()(IDS).logits
    # W + BA in one product or in two: fp32 sums in another order.
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
    assert float((wanted - untrained).abs().max()) > 0.1
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_merging_lets_frozen_matrices_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if all of them stay beside the merged ones: a run that fits would run out of memory after its last step."""
    model = adapted(Lora(name="l", rank=4))
    alive = [weakref.ref(module.get_base_layer().weight) for module in model.modules() if isinstance(module, LoraLayer)]
    most, merged = [], adapters._merged

    def watched(module: Any, dtype: torch.dtype) -> torch.nn.Linear:
        most.append(sum(one() is not None for one in alive))
        return merged(module, dtype)

    monkeypatch.setattr(adapters, "_merged", watched)
    merge_adapters(model)
    assert most == list(range(len(alive), 0, -1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": -1}, "rank = -1"),
        ({"rank": 4, "name": "none"}, "rank = 4: from 1; 0 only in lora=none"),
        ({"rank": 4, "alpha": 0}, "alpha = 0"),
        ({"rank": 4, "dropout": 1.0}, "dropout = 1.0"),
        ({"rank": 4, "targets": "all"}, "targets = 'all': one of linear, attention"),
        ({"rank": 4, "quantization": "8bit"}, "quantization = '8bit': one of none, 4bit"),
        ({"rank": 0, "name": "none", "quantization": "4bit"}, "nothing to train"),
    ],
)
def test_bad_values(fields: dict[str, object], message: str) -> None:
    """Fails if values that cannot work are accepted."""
    with pytest.raises(ConfigError, match=message):
        Lora(**{"name": "l", **fields})  # type: ignore[arg-type]


def test_what_is_missing_is_said_before_weights_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a run dies of a missing package or device after minutes of loading."""
    small = Lora(name="l", rank=4, quantization="4bit")
    Lora(name="none", rank=0).require(CPU, sharded=True)
    with pytest.raises(ConfigError, match="trainer=ddp"):
        small.require(CUDA, sharded=True)
    with pytest.raises(ConfigError, match="4bit needs a CUDA device, not cpu"):
        small.require(CPU, sharded=False)
    installed = {"peft", "bitsandbytes"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    small.require(CUDA, sharded=False)
    installed.remove("bitsandbytes")
    with pytest.raises(ConfigError, match=r"pip install 'orca2-lightning\[bnb\]'"):
        small.require(CUDA, sharded=False)
    installed.clear()
    with pytest.raises(ConfigError, match=r"pip install 'orca2-lightning\[lora\]'"):
        small.require(CUDA, sharded=False)


def test_other_families_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a model whose layers have other names trains nothing in silence."""
    monkeypatch.setattr("orca2.modelling.adapters.ATTENTION", ("Wqkv",))
    with pytest.raises(ModelError, match="use lora"):
        adapted(Lora(name="l", rank=2, targets="attention"))
