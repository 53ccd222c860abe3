"""The sizes of a model that memory and arithmetic depend on, read from its config and counted without weights."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from orca2.modelling.build import embedding_rows, head_dim
from orca2.modelling.student_model import decoder_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSize:
    """What is trained with LoRA, in elements."""

    matrices: int
    """The small matrices beside the frozen ones."""
    embeddings: int = 0
    """Embeddings of the model itself, output layer included; 0: they are frozen."""

    @property
    def trained(self) -> int:
        return self.matrices + self.embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder of equal layers: attention with rotary positions and a gated feed-forward, as LLaMA's."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    head_dim: int
    key_value_heads: int
    vocabulary: int
    """Rows of the embeddings."""
    tied: bool
    """Whether the output layer is the embedding."""
    head_norms: bool
    """Whether queries and keys are normalised head by head, as Qwen3's."""
    layer_parameters: int
    """Parameters of one layer."""
    root_parameters: int
    """Parameters outside of the layers: embeddings, last norm, output layer; a tied weight counts once."""
    layer_matrices: dict[str, tuple[int, int]]
    """The linear layers of one layer by their last name: (width out, width in)."""

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters + self.root_parameters

    def trained(self, lora: LoraSize | None) -> int:
        """Elements that are trained; without LoRA all of them."""
        return self.parameters if lora is None else lora.trained

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.key_value_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Elements of one layer's matrices."""
        return sum(out * into for out, into in self.layer_matrices.values())

    @property
    def head_weights(self) -> int:
        """Elements of the output layer."""
        return self.vocabulary * self.hidden


def shape_of(config: PretrainedConfig, rows: int = 0) -> ModelShape:
    """Build the model on the meta device, where nothing takes memory, and count it.

    `rows`: embedding rows that the tokenizer needs; fewer than the model has change nothing.
    Raises `ModelError` for a family that does not name its layers.
    """
    config = copy.deepcopy(config)  # growing the embeddings writes to it
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if rows > config.vocab_size:
            model.resize_token_embeddings(rows, mean_resizing=False)
    layers = decoder_layers(model)
    layer = sum(parameter.numel() for parameter in layers[0].parameters())
    linear = {
        name.rpartition(".")[2]: (module.out_features, module.in_features)
        for name, module in layers[0].named_modules()
        if isinstance(module, nn.Linear)
    }
    return ModelShape(
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", 4 * config.hidden_size),
        layers=len(layers),
        heads=config.num_attention_heads,
        head_dim=head_dim(config),
        key_value_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        vocabulary=embedding_rows(model),
        tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        head_norms=any(name.endswith("q_norm") for name, _ in layers[0].named_modules()),
        layer_parameters=layer,
        root_parameters=sum(parameter.numel() for parameter in model.parameters()) - len(layers) * layer,
        layer_matrices=linear,
    )
