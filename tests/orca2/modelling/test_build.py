"""Specifications, tokenizers and models: what is built, and what is refused with a remedy."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from orca2.errors import ConfigError, ModelError
from orca2.modelling import embedded
from orca2.modelling.build import (
    build_model,
    build_tokenizer,
    embedding_rows,
    grow_embeddings,
    head_dim,
    model_config,
)
from orca2.modelling.embedded import embedded_tokenizer
from orca2.modelling.spec import ModelSpec
from orca2.rendering import ChatFormat, tokenizer_hash

FORMAT = ChatFormat("chatml", "<|im_start|>", "<|im_end|>", "[PAD]", "\n", "\n", "auto")
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}


def spec(**fields: object) -> ModelSpec:
    values = {"name": "test", "architecture": ARCHITECTURE, "tokenizer_vocabulary": 600, "max_len": 64}
    return ModelSpec(**{**values, **fields})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "student"
    tokenizer = build_tokenizer(spec(), FORMAT)
    build_model(spec(), tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "a/b"}, "either `weights`.*not both"),
        ({"architecture": None, "tokenizer_vocabulary": None}, "not neither"),
        ({"architecture": {"hidden_size": 4}}, "model_type"),
        ({"tokenizer_vocabulary": None}, "tokenizer_vocabulary=None"),
        ({"tokenizer": "a/b"}, "only the embedded tokenizer"),
        ({"tokenizer_vocabulary": 100}, "at least 512"),
        ({"max_len": 1}, "max_len=1"),
        ({"router_loss": "aux"}, "own, none"),
        ({"attention": "falsh"}, "auto, flash, varlen, sdpa, eager"),
    ],
)
def test_bad_spec(fields: dict[str, object], message: str) -> None:
    """Fails if a specification that cannot work is accepted or the error does not say what would."""
    with pytest.raises(ConfigError, match=message):
        spec(**fields)


def test_embedded_tokenizer_is_the_same_every_time() -> None:
    """Fails if merges depend on chance, or one caller's changes reach the next one."""
    first = embedded_tokenizer(600)
    first.add_tokens(["<x>"])
    second = embedded_tokenizer(600)
    assert len(second) == 600
    embedded._trained.cache_clear()
    assert tokenizer_hash(second) == tokenizer_hash(embedded_tokenizer(600))


def test_random_model_fits_its_tokenizer() -> None:
    """Fails if ids fall outside the embeddings, the tie is lost, or answers would not stop."""
    tokenizer = build_tokenizer(spec(), FORMAT)
    model = build_model(spec(), tokenizer, seed=0)
    assert embedding_rows(model) == len(tokenizer) == 602
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert head_dim(model.config) == 8
    assert model.dtype == torch.float32
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    for config in (model.config, model.generation_config):
        assert (config.eos_token_id, config.pad_token_id) == (end, pad)
    assert not model.generation_config.do_sample


def test_seed_decides_the_weights() -> None:
    """Fails if a run cannot be repeated, or building a model disturbs the global random state."""
    tokenizer = build_tokenizer(spec(), FORMAT)
    state = torch.get_rng_state()
    models = [build_model(spec(), tokenizer, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    first, again, other = (model.get_input_embeddings().weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("tied", [True, False])
def test_growth_adds_mean_rows_and_keeps_the_rest(tied: bool) -> None:
    """Fails if new tokens start at random, old rows move, or the tie breaks."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL, tie_word_embeddings=tied))
    layers = (model.get_input_embeddings, model.get_output_embeddings)
    before = [layer().weight.detach().clone() for layer in layers]
    grow_embeddings(model, 23)
    for layer, old in zip(layers, before, strict=True):
        assert torch.equal(layer().weight[:20], old)
        torch.testing.assert_close(layer().weight[20:], old.mean(0).expand(3, -1))
    assert (layers[0]().weight is layers[1]().weight) == tied
    assert model.config.vocab_size == 23


def test_padded_vocabulary_is_never_shrunk() -> None:
    """Fails if a model whose vocabulary is padded for speed loses rows."""
    model: PreTrainedModel = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    grow_embeddings(model, 11)
    assert embedding_rows(model) == 20


def test_saved_weights_load(saved: Path) -> None:
    """Fails if weights, tokenizer or precision change on the way through a folder."""
    local = spec(architecture=None, tokenizer_vocabulary=None, weights=str(saved))
    tokenizer = build_tokenizer(local, FORMAT)
    assert tokenizer_hash(tokenizer) == tokenizer_hash(build_tokenizer(spec(), FORMAT))
    model, original = build_model(local, tokenizer, seed=5), build_model(spec(), tokenizer, seed=0)
    assert model.dtype == torch.float32
    for name, parameter in original.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def without_padding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as LLaMA-2's: a tokenizer that has neither padding nor the format's tokens, and no spare row."""
    folder = tmp_path_factory.mktemp("without_padding") / "base"
    tokenizer = embedded_tokenizer(600)
    tokenizer.pad_token = None
    fields = {key: value for key, value in ARCHITECTURE.items() if key != "model_type"}
    config = LlamaConfig(**fields | {"vocab_size": len(tokenizer), "tie_word_embeddings": request.param})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_padding_without_a_row_of_its_own(without_padding: Path) -> None:
    """Fails if a model with a vocabulary without spare rows, as LLaMA-2's, cannot take a new padding token."""
    local = spec(architecture=None, tokenizer_vocabulary=None, weights=str(without_padding))
    tokenizer = build_tokenizer(local, FORMAT)
    ids = tokenizer.convert_tokens_to_ids(["[PAD]", "<|im_start|>", "<|im_end|>"])
    assert ids == [600, 601, 602]
    model = build_model(local, tokenizer, seed=0)
    base = AutoModelForCausalLM.from_pretrained(without_padding)
    for layer, old in (
        (model.get_input_embeddings(), base.get_input_embeddings().weight),
        (model.get_output_embeddings(), base.get_output_embeddings().weight),
    ):
        assert torch.equal(layer.weight[:600], old)
        torch.testing.assert_close(layer.weight[600:], old.mean(0).expand(3, -1))
    assert (model.config.vocab_size, model.config.pad_token_id, model.config.eos_token_id) == (603, 600, 602)
    assert model.generation_config.pad_token_id == 600


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "lama"}, "model_type='lama' is unknown.*did you mean"),
        ({"hidden_sise": 3}, "no field 'hidden_sise'; did you mean 'hidden_size'"),
        ({"hidden_size": 30}, "refuses this architecture.*hidden size"),
        ({"vocab_size": 300}, "vocab_size=300 is smaller than the tokenizer's 602"),
        ({"max_position_embeddings": 32}, "max_len=64 is over the 32 positions"),
        ({"model_type": "mamba", "num_key_value_heads": 2}, "mamba has no field"),
    ],
)
def test_bad_architecture(fields: dict[str, object], message: str) -> None:
    """Fails if transformers' silence or traceback is all that a user gets."""
    wrong = spec(architecture=ARCHITECTURE | fields)
    with pytest.raises(ModelError, match=message):
        build_model(wrong, build_tokenizer(wrong, FORMAT), seed=0)


def test_missing_folder_names_the_near_one(saved: Path) -> None:
    """Fails if a misspelt path is looked for on the hub."""
    with pytest.raises(ModelError, match=r"is not a folder; did you mean '.*student'"):
        build_tokenizer(spec(architecture=None, tokenizer_vocabulary=None, weights=f"{saved}s"), FORMAT)


def test_unknown_hub_id_offline() -> None:
    """Fails if a hub error reaches the user as a traceback."""
    unknown = spec(architecture=None, tokenizer="x/y", tokenizer_vocabulary=None, weights="no/such")
    tokenizer = build_tokenizer(spec(), FORMAT)
    with pytest.raises(ModelError, match=r"weights='no/such' \(hub id\) cannot be read.*network"):
        build_model(unknown, tokenizer, seed=0)


def test_damaged_folders(saved: Path, tmp_path: Path) -> None:
    """Fails if pickles are loaded, or broken or incomplete weights give a model with random parts."""
    tokenizer = build_tokenizer(spec(), FORMAT)
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    local = spec(architecture=None, tokenizer_vocabulary=None, weights=str(folder))
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be read"):
        build_model(local, tokenizer, seed=0)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights \(pytorch_model.bin\)"):
        build_model(local, tokenizer, seed=0)
    other = spec(architecture=ARCHITECTURE | {"num_hidden_layers": 1})
    build_model(other, tokenizer, seed=0).save_pretrained(tmp_path / "short")
    shutil.copy(tmp_path / "short" / "model.safetensors", folder)
    with pytest.raises(ModelError, match="tensors of LlamaForCausalLM are missing"):
        build_model(local, tokenizer, seed=0)


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "llama4_text": {"num_local_experts": 2, "head_dim": 8},
}
"""All carry transformers' own default for the weight of the router's loss."""


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_with_a_loss_of_their_router_are_refused_unless_it_is_left_out(family: str) -> None:
    """Fails if a mixture of experts trains without what keeps its experts in use, and nobody is told."""
    mixture = {**ARCHITECTURE, **MIXTURES[family], "model_type": family}
    tokenizer = build_tokenizer(spec(), FORMAT)
    with pytest.raises(ModelError, match=r"router_aux_loss_coef=0\.\d+.*model\.router_loss=none"):
        model_config(spec(architecture=mixture), tokenizer)
    assert model_config(spec(architecture=mixture, router_loss="none"), tokenizer).model_type == family
    without = {**mixture, "router_aux_loss_coef": 0.0}
    assert model_config(spec(architecture=without), tokenizer).router_aux_loss_coef == 0


def test_experts_that_balance_otherwise_are_no_mistake() -> None:
    """Fails if DeepSeek-V3, whose router has a bias in place of a loss, or a dense model with the field is refused."""
    tokenizer = build_tokenizer(spec(), FORMAT)
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    deepseek = {**ARCHITECTURE, **latent, "model_type": "deepseek_v3", "num_key_value_heads": 4}
    assert model_config(spec(architecture=deepseek), tokenizer).n_routed_experts > 1
    dense = {**ARCHITECTURE, "model_type": "granitemoehybrid", "num_local_experts": 0, "mamba_n_heads": 4}
    assert model_config(spec(architecture=dense), tokenizer).num_local_experts == 0
