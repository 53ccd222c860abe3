"""Every file of conf/model, built without weights and counted; and hub shapes that do not fit their weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from orca2.errors import ConfigError, ModelError
from orca2.modelling.build import build_tokenizer, config_of_shape, embedding_rows, grow_embeddings, model_config
from orca2.modelling.recompute import chosen_mode
from orca2.modelling.spec import ModelSpec
from orca2.rendering.format import ChatFormat
from orca2.settings import build, compose_config

FILES = sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / "model").glob("*.yaml"))

PARAMETERS = {
    # The totals of the weight files that the hub shows on each model's page (rounded there: 6.74B, 13B, ...).
    # Tied embeddings count once: the files of the two smallest Qwen3 hold theirs twice.
    "7b": 6_738_415_616,
    "13b": 13_015_864_320,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1.7b": 1_711_376_384,
    "llama32_1b": 1_235_814_400,
    "llama32_3b": 3_212_749_824,
    "qwen3_0.6b": 596_049_920,
    "qwen3_1.7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
}
QWEN3_CARDS = {"qwen3_0.6b": (0.6, 0.44), "qwen3_1.7b": (1.7, 1.4), "qwen3_4b": (4.0, 3.6), "qwen3_8b": (8.2, 6.95)}
"""Billions, all and without embeddings, as the model cards print them."""


def spec_of(name: str) -> ModelSpec:
    overrides = ["model.weights=owner/name"] if name == "hub" else []
    spec = build(compose_config("train", [f"model={name}", *overrides]).model)
    assert isinstance(spec, ModelSpec)
    return spec


def on_meta(spec: ModelSpec) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config_of_shape(spec))
    return model


def count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_hub_model_has_a_count() -> None:
    """Fails if a model file is added whose shape nobody compared with what is published."""
    assert set(PARAMETERS) == {name for name in FILES if spec_of(name).shape is not None}
    assert set(FILES) - set(PARAMETERS) == {"tiny", "llama_9m", "hub"}


def test_recomputation_goes_by_size() -> None:
    """Fails if a small model loses a fifth of its speed for memory it has, or a large one runs out of it."""
    modes = {name: chosen_mode(spec_of(name).activation_checkpointing, count) for name, count in PARAMETERS.items()}
    small = {"smollm2_135m", "smollm2_360m", "qwen3_0.6b"}
    assert modes == {name: "none" if name in small else "full" for name in PARAMETERS}
    assert spec_of("hub").activation_checkpointing == "auto"
    assert chosen_mode("selective", 10**9) == "selective"


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_published(name: str) -> None:
    """Fails if one number of a shape is wrong: a plan would be wrong, and loading would refuse the weights."""
    model = on_meta(spec_of(name))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert count(model) == PARAMETERS[name]
    if name in QWEN3_CARDS:
        embeddings = sum(p.numel() for p in {model.get_input_embeddings().weight, model.get_output_embeddings().weight})
        total, without = QWEN3_CARDS[name]
        assert count(model) / 1e9 == pytest.approx(total, abs=0.05)
        assert (count(model) - embeddings) / 1e9 == pytest.approx(without, abs=0.05)


@pytest.mark.parametrize("name", ["7b", "13b"])
def test_paper_vocabulary(name: str) -> None:
    """Fails if the base model cannot grow to the 32,003 entries of the paper, both embeddings by three rows."""
    model = on_meta(spec_of(name))
    grow_embeddings(model, 32_003)
    assert embedding_rows(model) == 32_003
    assert count(model) == PARAMETERS[name] + 2 * 3 * model.config.hidden_size


def test_context_is_within_the_model() -> None:
    """Fails if a file asks for more positions than its model has."""
    for name in PARAMETERS:
        spec = spec_of(name)
        assert spec.shape is not None
        assert spec.max_len <= spec.shape["max_position_embeddings"], name


FORMAT = ChatFormat(
    name="test", start="<|s|>", end="<|e|>", pad="<|p|>", after_role="\n", between_turns="\n", bos="auto"
)
SHAPE = {"model_type": "llama", "vocab_size": 700, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def saved(folder: Path, **fields: int) -> ModelSpec:
    """A folder of weights, and a specification that states `SHAPE` for it."""
    spec = ModelSpec(name="s", max_len=64, architecture=SHAPE, tokenizer_vocabulary=600)
    tokenizer = build_tokenizer(spec, FORMAT)
    config = {key: value for key, value in SHAPE.items() if key != "model_type"} | {"intermediate_size": 32} | fields
    AutoModelForCausalLM.from_config(LlamaConfig(**config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(spec, architecture=None, tokenizer_vocabulary=None, weights=str(folder), shape=SHAPE)


@pytest.mark.parametrize("fields", [{}, {"vocab_size": 703}])
def test_weights_of_the_stated_shape(tmp_path: Path, fields: dict[str, int]) -> None:
    """Fails if weights are refused that fit, or whose embeddings an earlier stage has grown."""
    spec = saved(tmp_path, **fields)
    assert model_config(spec, build_tokenizer(spec, FORMAT)).vocab_size == fields.get("vocab_size", 700)


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_weights_of_another_shape(tmp_path: Path, field: str) -> None:
    """Fails if a plan was made for other sizes than those that are loaded, and nobody is told."""
    spec = saved(tmp_path, **{field: 698 if field == "vocab_size" else 2 * SHAPE[field]})
    with pytest.raises(ModelError, match=rf"{field} is \d+, not {SHAPE[field]}.*model=hub"):
        model_config(spec, build_tokenizer(spec, FORMAT))


def test_shape_belongs_to_weights() -> None:
    """Fails if a shape is accepted that nothing would be compared with, or that names no model type."""
    with pytest.raises(ConfigError, match="it describes `weights`"):
        ModelSpec(name="s", max_len=64, architecture=SHAPE, shape=SHAPE, tokenizer_vocabulary=600)
    with pytest.raises(ConfigError, match=r"shape=.*model_type"):
        ModelSpec(name="s", max_len=64, weights="a/b", shape={"hidden_size": 4})
