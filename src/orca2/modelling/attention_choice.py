"""Chooses the attention kernel of a run; choice and reason are printed before any weights are read.

    request   tried in this order                        where all have an obstacle
    auto      flash3 flash4 flash2 varlen sdpa eager     sdpa needs nothing but uncapped scores, eager nothing
    flash     flash3 flash4 flash2                       ModelError that names every obstacle
    others    the one named                              ModelError

    flash2    Ampere and newer    dropout, capped scores     flash-attn
    flash3    Hopper              capped scores              flash-attn's `hopper` folder
    flash4    Hopper, Blackwell   capped scores              flash-attn-4
    varlen    Ampere and newer    neither                    torch

A version of flash-attn counts as installed by its compiled module, not by the name `flash_attn`: releases of
version 2 carry the Python files of version 4 without what these need.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from orca2.errors import ModelError
from orca2.modelling.attention import CAPS, DROPS, FUSED, HALF, Kernel, varlen_function
from orca2.modelling.build import head_dim
from orca2.modelling.spec import AttentionRequest

FLASH: tuple[Kernel, ...] = ("flash3", "flash4", "flash2")
"""Fastest first: version 3 is made for Hopper, version 4 for Blackwell."""


@dataclass(frozen=True, slots=True)
class AttentionNeeds:
    """What a model asks of its attention."""

    head_dim: int
    dropout: float = 0.0
    """Dropout of the attention weights, in training."""
    softcap: bool = False
    """Whether scores are capped."""


def attention_needs(config: PretrainedConfig) -> AttentionNeeds:
    """Read from a Hugging Face config."""
    return AttentionNeeds(
        head_dim=head_dim(config),
        dropout=float(getattr(config, "attention_dropout", None) or 0.0),
        softcap=getattr(config, "attn_logit_softcapping", None) is not None,
    )


def choose_attention(
    requested: AttentionRequest, device: torch.device, dtype: torch.dtype, needs: AttentionNeeds
) -> tuple[Kernel, str]:
    """The kernel for this device, compute dtype and model, with the reason to print.

    Raises `ModelError` where a kernel was asked for by name and cannot run here; call it before weights are
    loaded.
    """
    candidates: dict[str, tuple[Kernel, ...]] = {
        "auto": (*FLASH, "varlen", "sdpa", "eager"),
        "flash": FLASH,
        "varlen": ("varlen",),
        "sdpa": ("sdpa",),
        "eager": ("eager",),
    }
    obstacles: dict[Kernel, str] = {}
    for kernel in candidates[requested]:
        obstacle = _obstacle(kernel, device, dtype, needs)
        if obstacle is not None:
            obstacles[kernel] = obstacle
        elif kernel == requested:
            return kernel, "asked for"
        elif kernel in FUSED:
            return kernel, f"fastest that is installed for {_name(dtype)} on {device.type}"
        else:
            how = "one call per document" if kernel == "sdpa" else "dense and slow"
            return kernel, f"{how}; {_summary(obstacles)}"
    raise ModelError(f"attention={requested} cannot run here: {_summary(obstacles)}; set attention=auto")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _summary(obstacles: dict[Kernel, str]) -> str:
    """Each obstacle once, with the kernels that it stops."""
    kernels: dict[str, list[str]] = {}
    for kernel, obstacle in obstacles.items():
        kernels.setdefault(obstacle, []).append(kernel)
    return "; ".join(f"{', '.join(names)}: {obstacle}" for obstacle, names in kernels.items())


def _obstacle(kernel: Kernel, device: torch.device, dtype: torch.dtype, needs: AttentionNeeds) -> str | None:
    if needs.dropout and kernel not in DROPS:
        return f"no dropout, and the model's attention_dropout is {needs.dropout}"
    if needs.softcap and kernel not in CAPS:
        return "cannot cap attention scores, as the model does"
    if kernel in ("sdpa", "eager"):
        return None
    if device.type != "cuda":
        return f"needs a CUDA device, not {device.type}"
    if dtype not in HALF:
        return f"needs bfloat16 or float16, not {_name(dtype)}"
    capability = torch.cuda.get_device_capability(device)
    first, last, largest = _LIMITS[kernel]
    if not first <= capability[0] <= last:
        return f"made for compute capability {first}.x to {last}.x, not {capability[0]}.{capability[1]}"
    if needs.head_dim > largest or needs.head_dim % 8:
        return f"needs heads of a multiple of 8 up to {largest}, not {needs.head_dim}"
    return _INSTALLED[kernel]()


_LIMITS: dict[Kernel, tuple[int, int, int]] = {
    # First and last major compute capability, largest head. https://github.com/Dao-AILab/flash-attention (README,
    # hopper/README.md, flash_attn/cute/interface.py); torch's varlen attention runs the kernels of version 2.
    "flash2": (8, 12, 256),
    "flash3": (9, 9, 256),
    "flash4": (9, 11, 128),
    "varlen": (8, 12, 256),
}


def _flash2_missing() -> str | None:
    return None if importlib.util.find_spec("flash_attn_2_cuda") else "flash-attn 2 is not installed (extra `flash`)"


def _flash3_missing() -> str | None:
    return None if importlib.util.find_spec("flash_attn_interface") else "flash-attn 3 is not installed"


def _flash4_missing() -> str | None:
    try:
        importlib.metadata.version("flash-attn-4")
    except importlib.metadata.PackageNotFoundError:
        return "flash-attn-4 is not installed"
    return None


def _varlen_missing() -> str | None:
    return None if varlen_function() else f"torch {torch.__version__} has no variable-length attention with a window"


_INSTALLED: dict[Kernel, Callable[[], str | None]] = {
    "flash2": _flash2_missing,
    "flash3": _flash3_missing,
    "flash4": _flash4_missing,
    "varlen": _varlen_missing,
}
