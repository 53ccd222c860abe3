"""From a `ModelSpec` to a tokenizer and a model, with one clear error for each thing that can be missing.

    spec -> build_tokenizer -> model_config -> (choose_attention) -> build_model

`model_config` reads no weights, so everything that can be refused is refused before the long load.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from orca2.errors import ModelError
from orca2.modelling.embedded import embedded_tokenizer
from orca2.modelling.spec import ModelSpec
from orca2.rendering import ChatFormat, prepare_tokenizer

READ_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers, huggingface_hub and safetensors raise for files that are missing, foreign or damaged."""


ROUTER_LOSSES = ("router_aux_loss_coef", "aux_loss_coef", "router_z_loss_coef")
"""What transformers' configs call the weight of a router's loss."""


def build_tokenizer(spec: ModelSpec, format: ChatFormat, default_system: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer, prepared for `format`; `default_system` goes into its chat template.

    Raises `ModelError` where it cannot be read or prepared.
    """
    tokenizer = _read_tokenizer(spec)
    prepare_tokenizer(tokenizer, format, default_system)
    tokenizer.model_max_length = spec.max_len
    return tokenizer


def markup_is_known(spec: ModelSpec, format: ChatFormat) -> bool:
    """Whether the model was trained with the format's control tokens in its vocabulary.

    Free rows of its embeddings do not count: many models have more rows than their tokenizer has entries, and new
    tokens fall on rows that nothing has trained. Raises `ModelError` as `build_tokenizer` does.
    """
    return {format.start, format.end} <= _read_tokenizer(spec).get_vocab().keys()


def _read_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    name = spec.tokenizer or spec.weights
    if name is None:
        assert spec.tokenizer_vocabulary is not None  # ModelSpec holds it
        tokenizer: PreTrainedTokenizerBase = embedded_tokenizer(spec.tokenizer_vocabulary)
    else:
        _require_folder(name, "tokenizer" if spec.tokenizer else "weights")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except READ_ERRORS as error:
            raise ModelError(_unreadable("tokenizer", name, error)) from error
    return tokenizer


def model_config(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The Hugging Face config that the model will be built with; reads a JSON file at most.

    It names no padding token where that is new and has no row yet.

    Raises `ModelError` for an unknown architecture or field, a model that is not a causal language model, a
    context shorter than `spec.max_len`, a vocabulary of random weights that is smaller than the tokenizer, weights of
    another shape than `spec.shape`, or experts whose router has a loss that `spec` does not leave out.
    """
    config = _config_of_weights(spec.weights) if spec.weights else _config_of_architecture(spec, tokenizer)
    _compare_with_shape(spec, config)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"model {spec.name!r}: {config.model_type} is not a causal language model; "
            "choose one, such as llama or qwen3"
        )
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and spec.max_len > longest:
        raise ModelError(
            f"model {spec.name!r}: max_len={spec.max_len} is over the {longest} positions of the model "
            f"(max_position_embeddings); set model.max_len={longest} or less"
        )
    _require_no_router_loss(spec, config)
    _set_token_ids(config, tokenizer)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= _rows(config):
        # The embeddings are built with the rows of the weights and grow afterwards: until then no row can be the
        # padding token's, and torch refuses one that is not there. `finish_model` names it.
        config.pad_token_id = None
    return config


def head_dim(config: PretrainedConfig) -> int:
    """Width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def build_model(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """The causal language model in fp32 on the CPU, its embeddings large enough for `tokenizer`.

    `seed` decides random weights; global random state is left as it was.
    Raises `ModelError` as `model_config` does, and for weights that are missing, damaged or only pickled.
    """
    config = model_config(spec, tokenizer)
    model: PreTrainedModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.weights is None:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        else:
            model = _load(spec.weights, config)
    finish_model(model, tokenizer)
    return model


def finish_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a model fit its tokenizer: enough embedding rows, its token ids, and greedy decoding."""
    grow_embeddings(model, len(tokenizer))
    _set_token_ids(model.config, tokenizer)
    # A hub model's own settings sample with a temperature; this project decodes greedily.
    model.generation_config = GenerationConfig(do_sample=False)
    _set_token_ids(model.generation_config, tokenizer)


def grow_embeddings(model: PreTrainedModel, entries: int) -> None:
    """Give the model at least `entries` embedding rows; never fewer than it has.

    Many models have more rows than their tokenizer has entries (padded for speed); those rows are used as
    they are.
    """
    rows = embedding_rows(model)
    if entries <= rows:
        return
    model.resize_token_embeddings(entries, mean_resizing=False)
    with torch.no_grad():
        # How the paper set the three new rows of LLaMA-2 is not reported. The mean row makes a new token
        # neither likely nor unlikely at first, where a random row can dominate the softmax of a trained
        # model.
        for layer in _embedding_layers(model):
            for parameter in layer.parameters():
                parameter[rows:] = parameter[:rows].mean(0)


def embedding_rows(model: PreTrainedModel) -> int:
    """Token ids that the model can read."""
    weight: torch.Tensor = model.get_input_embeddings().get_parameter("weight")
    return weight.shape[0]


def _embedding_layers(model: PreTrainedModel) -> Iterator[nn.Module]:
    into, out = model.get_input_embeddings(), model.get_output_embeddings()
    yield into
    if out is not None and out.weight is not into.weight:
        yield out


def config_of_shape(spec: ModelSpec) -> PretrainedConfig:
    """The Hugging Face config as `spec` states it, without a tokenizer and without opening any file but one.

    Good for counting and planning. Only a hub model that states no shape has its config.json read; the
    vocabulary of an embedded tokenizer counts as full.
    Raises `ModelError` as `model_config` does.
    """
    fields = spec.shape or spec.architecture
    if fields is None:
        assert spec.weights is not None  # ModelSpec holds it
        return _config_of_weights(spec.weights)
    entries = spec.tokenizer_vocabulary or 0
    return _config_of_fields(spec, fields, entries)


def _compare_with_shape(spec: ModelSpec, config: PretrainedConfig) -> None:
    """Weights that a fine-tuning has grown may have more embedding rows than stated, and nothing else."""
    different = []
    for field, stated in (spec.shape or {}).items():
        found = getattr(config, field, None)
        grown = field == "vocab_size" and isinstance(found, int) and found >= stated
        if found != stated and not grown:
            different.append(f"{field} is {found!r}, not {stated!r}")
    if different:
        raise ModelError(
            f"model {spec.name!r}: the config of weights={spec.weights!r} has another shape than model.shape states: "
            f"{'; '.join(different)}. Choose the model file of these weights, or model=hub for any"
        )


def _require_no_router_loss(spec: ModelSpec, config: PretrainedConfig) -> None:
    """The loss of a router is a product of means over a whole step: what part of the tokens each expert got, times how
    likely it was. An exact one, for any cut into micro-batches and ranks, takes a second forward pass.
    """
    if spec.router_loss == "none":
        return
    text = config.get_text_config()
    for name in ROUTER_LOSSES:
        weight = getattr(text, name, None)
        if weight and _experts(text) > 1:
            raise ModelError(
                f"model {spec.name!r}: {config.model_type} is a mixture of experts that was trained with a loss of its "
                f"router ({name}={weight}), which is not made here; without it some experts may fall out of use. Set "
                "model.router_loss=none to train without, as transformers does unless it is asked, or choose a dense "
                "model"
            )


def _experts(config: PretrainedConfig) -> int:
    """Experts of each layer; 2 if the config does not say."""
    counts = [getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts")]
    return next((int(count) for count in counts if count is not None), 2)


def _config_of_architecture(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return _config_of_fields(spec, spec.architecture or {}, len(tokenizer))


def _config_of_fields(spec: ModelSpec, stated: Mapping[str, Any], entries: int) -> PretrainedConfig:
    """`entries`: of the tokenizer; the vocabulary is this large where `stated` leaves it out."""
    fields = dict(stated)
    model_type = fields.pop("model_type")
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(str(model_type), list(CONFIG_MAPPING.keys()), n=1, cutoff=0.0)[0]
        raise ModelError(f"model {spec.name!r}: model_type={model_type!r} is unknown; did you mean {near!r}?")
    config_class = CONFIG_MAPPING[model_type]
    # transformers keeps unknown fields as attributes that nothing reads, so a typing error would pass in
    # silence.
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ModelError(f"model {spec.name!r}: {model_type} has no field {key!r}; did you mean {near!r}?")
    rows = fields.setdefault("vocab_size", entries)
    if rows < entries:
        raise ModelError(
            f"model {spec.name!r}: vocab_size={rows} is smaller than the tokenizer's {entries} "
            "entries; raise it, lower tokenizer_vocabulary, or leave it out"
        )
    fields.setdefault("max_position_embeddings", spec.max_len)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        # The defaults are those of another tokenizer, often beyond this vocabulary.
        fields.setdefault(key, None)
    try:
        return config_class(**fields)
    except READ_ERRORS as error:
        raise ModelError(f"model {spec.name!r}: transformers refuses this architecture: {_brief(error)}") from error


def _config_of_weights(weights: str) -> PretrainedConfig:
    _require_folder(weights, "weights")
    folder = Path(weights)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickled = [file.name for file in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        found = f"only pickled weights ({', '.join(pickled)}), which can run code" if pickled else "no *.safetensors"
        raise ModelError(f"weights={weights!r}: the folder has {found}; save the model again with save_pretrained")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(weights, trust_remote_code=False)
        return config
    except READ_ERRORS as error:
        raise ModelError(_unreadable("weights", weights, error)) from error


def _load(weights: str, config: PretrainedConfig) -> PreTrainedModel:
    loaded: Any
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            weights,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except READ_ERRORS as error:
        raise ModelError(_unreadable("weights", weights, error)) from error
    model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ModelError(
            f"weights={weights!r}: {len(missing)} tensors of {type(model).__name__} are missing, "
            f"such as {missing[0]}; the files are incomplete or of another kind of model"
        )
    return model


def _rows(config: PretrainedConfig) -> int:
    """Rows of the embeddings that a model of this config is built with."""
    return int(config.get_text_config(decoder=True).vocab_size)


def _set_token_ids(config: PretrainedConfig | GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id


def _require_folder(name: str, field: str) -> None:
    """A name that can only be a path must be a folder; anything else may be on the hub."""
    if Path(name).is_dir() or not (name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name):
        return
    parent = Path(name).parent
    siblings = [path.name for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(Path(name).name, siblings, n=1)
    hint = f"did you mean {str(parent / near[0])!r}?" if near else "give an existing folder or a hub id `owner/name`"
    raise ModelError(f"{field}={name!r} is not a folder; {hint}")


def _unreadable(field: str, name: str, error: Exception) -> str:
    where = "folder" if Path(name).is_dir() else "hub id"
    remedy = (
        "is it a whole model folder in the Hugging Face format with safetensors?"
        if where == "folder"
        else "check the spelling, the network, `hf auth login` for gated models, or give a local folder"
    )
    return f"{field}={name!r} ({where}) cannot be read: {_brief(error)}; {remedy}"


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") or type(error).__name__
