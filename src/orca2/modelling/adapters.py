"""LoRA: small trained matrices beside frozen ones, in the model's own layers, merged into them at the end.

    x --W frozen------------------+--> y          W' = W + (alpha / rank) B A
     `-dropout-A [rank, in]-B [out, rank]-'

`peft` puts the layers into the model in place, so that the model stays of its own class and everything else works
as without. Rows of the embeddings for chat markup that is new to the tokenizer are all alike at first, or have never
been trained; frozen, they would make the end of a turn as likely as its start forever. Where there are such rows the
embeddings train too.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from orca2.errors import ConfigError, ModelError
from orca2.modelling.student_model import decoder_layers

Targets = Literal["linear", "attention"]
Quantization = Literal["none", "4bit"]
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Names of the attention's layers in LLaMA, Mistral, Qwen and their kin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """The layers that get adapters, and the adapters' size. One file of `conf/lora/`; rank 0: no adapters."""

    name: str
    rank: int
    alpha: float = 1.0
    dropout: float = 0.0
    targets: Targets = "linear"
    quantization: Quantization = "none"

    def __post_init__(self) -> None:
        found = [
            f"{key} = {getattr(self, key)!r}: {rule}"
            for key, rule, right in (
                ("rank", "from 1; 0 only in lora=none", self.rank > 0 if self.name != "none" else self.rank == 0),
                ("alpha", "must be above 0", self.alpha > 0),
                ("dropout", "a share, from 0 to below 1", 0 <= self.dropout < 1),
                ("targets", f"one of {', '.join(get_args(Targets))}", self.targets in get_args(Targets)),
                (
                    "quantization",
                    f"one of {', '.join(get_args(Quantization))}",
                    self.quantization in get_args(Quantization),
                ),
            )
            if not right
        ]
        if self.quantization != "none" and not self.enabled:
            found.append("quantization without adapters would leave nothing to train: choose lora=default")
        if found:
            raise ConfigError(f"lora {self.name!r}: " + "; ".join(found))

    @property
    def enabled(self) -> bool:
        return self.rank > 0

    def require(self, device: torch.device, sharded: bool) -> None:
        """Raise ConfigError for what is missing here; call it before weights are loaded."""
        if not self.enabled:
            return
        if sharded:
            raise ConfigError(
                "lora is for whole weights on each device, not cut ones: use trainer=one_gpu or trainer=ddp"
            )
        if importlib.util.find_spec("peft") is None:
            raise ConfigError("lora needs the package peft: pip install 'orca2-lightning[lora]'")
        if self.quantization == "4bit":
            if device.type != "cuda":
                raise ConfigError(f"lora.quantization=4bit needs a CUDA device, not {device.type}: set it to none")
            if importlib.util.find_spec("bitsandbytes") is None:
                raise ConfigError(
                    "lora.quantization=4bit needs the package bitsandbytes: pip install 'orca2-lightning[bnb]'"
                )


def adapter_parameters(lora: Lora, matrices: dict[str, tuple[int, int]], layers: int) -> int:
    """Trained elements; `matrices` are the linear layers of one block by name: (width out, width in)."""
    targets = [size for name, size in matrices.items() if lora.targets == "linear" or name in ATTENTION]
    return layers * sum(lora.rank * (out + into) for out, into in targets)


def add_adapters(model: PreTrainedModel, lora: Lora, train_embeddings: bool) -> None:
    """Freeze the model and put trained adapters beside the targeted layers, in place.

    The matrices A are drawn from torch's global random state, B are zero: the model computes what it did before.
    Raises `ModelError` where the model has none of the targeted layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = list(_target_names(model, lora))
    if not names:
        raise ModelError(
            f"{type(model).__name__} has no layers that lora.targets={lora.targets} names; use lora.targets=linear"
        )
    if lora.quantization == "4bit":
        _quantize(model)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=names,
        bias="none",
    )
    inject_adapter_in_model(config, model)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.requires_grad_(train_embeddings)


def merge_adapters(model: PreTrainedModel) -> None:
    """Add each adapter to its frozen matrix and take it out, in place; 4-bit matrices become full ones again.

    The result is on the CPU: a device that trained beside frozen or 4-bit weights need not have room for it.
    """
    from peft.tuners.lora import LoraLayer

    dtype = model.get_input_embeddings().get_parameter("weight").dtype
    # By name, one at a time: a list of the modules would keep all frozen matrices beside the merged ones.
    for name in [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _merged(model.get_submodule(name), dtype))
    nn.Module.to(model, "cpu")
    model.requires_grad_(True)


@torch.no_grad()
def _merged(module: Any, dtype: torch.dtype) -> nn.Linear:
    base = module.get_base_layer()
    weight = _full_weight(base.weight, dtype)
    weight = weight + module.get_delta_weight("default").to(weight.dtype)
    linear = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.cpu())
    if base.bias is not None:
        linear.bias = nn.Parameter(base.bias.detach().to("cpu", weight.dtype))
    return linear


def _full_weight(weight: Any, dtype: torch.dtype) -> Tensor:
    if getattr(weight, "quant_state", None) is None:
        return weight.detach()  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state).to(dtype)  # type: ignore[no-any-return]


def _target_names(model: PreTrainedModel, lora: Lora) -> Iterator[str]:
    layers = {id(module) for layer in decoder_layers(model) for module in layer.modules()}
    for name, module in model.named_modules():
        wanted = lora.targets == "linear" or name.rpartition(".")[2] in ATTENTION
        if wanted and isinstance(module, nn.Linear) and id(module) in layers:
            yield name


def _quantize(model: PreTrainedModel) -> None:
    """Replace the linear layers of all blocks by 4-bit ones; their weights are quantised on the way to the GPU."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for layer in decoder_layers(model):
        linear = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
        for name, module in linear:
            small = Linear4bit(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="meta",
            )
            small.weight = Params4bit(
                module.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            if module.bias is not None:
                small.bias = nn.Parameter(module.bias.data, requires_grad=False)
            parent, _, last = name.rpartition(".")
            setattr(layer.get_submodule(parent), last, small)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft looks here to choose its 4-bit layers
