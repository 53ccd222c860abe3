"""Activation checkpointing: what a layer forgets after its forward pass and makes again in the backward pass.

none        keeps everything
selective   keeps the results of matrix products and attention, makes the cheap rest again: norms, activations,
            rotations. Most of the memory for a few per cent of the time; keeping whole layers instead (every
            second one) saves about as much and costs a sixth of the step
full        keeps the layer's input only: least memory, a third more compute
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

ActivationCheckpointing = Literal["none", "selective", "full"]
RecomputeRequest = Literal["auto", "none", "selective", "full"]
FULL_FROM = 1_000_000_000
"""Parameters from which `auto` means `full`; ours. With 16 bytes each, such a model leaves a 24 GB card too little for
the activations of a long pack; a smaller one loses a fifth of its speed for memory that it does not need."""

_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}


def chosen_mode(request: RecomputeRequest, parameters: int) -> ActivationCheckpointing:
    """What a request means for a model of so many parameters; a run and its plan both ask here."""
    if request != "auto":
        return request
    return "full" if parameters >= FULL_FROM else "none"


def recompute_activations(layers: Sequence[nn.Module], mode: ActivationCheckpointing) -> None:
    """Let each of a model's `layers` recompute in the backward pass of training.

    The layer's `forward` is replaced and not its `__call__`, as transformers does: sharding hangs on the call, so a
    layer that is gathered for the backward pass is gathered once, for the recomputation too.
    """
    for layer in layers:
        layer.forward = _Recomputed(layer, mode)


class _Recomputed:
    """A layer's forward pass, recomputed where gradients are wanted."""

    def __init__(self, layer: nn.Module, mode: ActivationCheckpointing) -> None:
        self._layer = layer
        self._forward: Callable[..., Any] = layer.forward
        # The reentrant kind loses keyword arguments and breaks DDP with unused inputs.
        keeping: Any = {"context_fn": partial(create_selective_checkpoint_contexts, _policy)}
        self._checkpoint: Any = partial(checkpoint, use_reentrant=False, **(keeping if mode == "selective" else {}))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self._layer.training and torch.is_grad_enabled()):
            return self._forward(*args, **kwargs)
        return self._checkpoint(self._forward, *args, **kwargs)


def _policy(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    name = str(operation)
    # All attention kernels, torch's and flash-attn's, say so in their names.
    expensive = operation in _PRODUCTS or "attention" in name or "attn" in name
    return CheckpointPolicy.MUST_SAVE if expensive else CheckpointPolicy.PREFER_RECOMPUTE
