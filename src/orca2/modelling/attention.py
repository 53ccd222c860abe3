"""Document-exact attention: packed examples never see each other, and no mask exists.

    ids_BT      a a a a b b b c c c c c      one row, three documents
    lengths     (4, 3, 5)
    cumulative  0 4 7 12                     what flash and varlen kernels read

transformers builds no mask for an implementation that is absent from its mask registry, so `NAME` is
registered as an attention function only. The layout travels as the keyword `documents`, which models hand
down to it; this also survives activation checkpointing, where a global would be gone when the layer is
recomputed.

On CPU a loop over documents is the fast path. Forward and backward of one layer, 2 threads, 2,048 tokens:
12 documents, 8 heads of 32: loop 12 ms, documents bucketed by length into padded batches 15 to 20 ms, dense
mask 87 ms; 34 documents, 4 heads of 32: loop 5.1 ms, bucketed 5.4 to 6.0 ms, dense mask 45 ms. The loop needs
`torch.split`: its backward is one concatenation, where slicing would fill a full-size gradient per document.
"""

import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from orca2.errors import ModelError

NAME = "orca2_documents"
"""Under this name transformers finds the function; it must never be saved with a model."""

Kernel = Literal["flash2", "flash3", "flash4", "varlen", "sdpa", "eager"]
"""What computes; `attention_choice` picks one for a request such as `flash`."""
FUSED: tuple[Kernel, ...] = ("flash2", "flash3", "flash4", "varlen")
"""One call for all documents of a row, told by `cumulative`."""
CAPS: tuple[Kernel, ...] = ("flash2", "flash3", "flash4", "eager")
"""Kernels that can cap attention scores, as Gemma 2 does."""
DROPS: tuple[Kernel, ...] = ("flash2", "sdpa", "eager")
"""Kernels that have dropout."""

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Layout of the documents of one row; made once per micro-batch and read by every layer."""

    lengths: tuple[int, ...]
    kernel: Kernel
    longest: int
    cumulative: Tensor | None
    """int32 [D + 1] on the device; only for `FUSED` kernels."""
    dense_mask: Tensor | None
    """Dense block-causal mask [T, T]; only for the reference `eager`."""


def lay_out(lengths: Sequence[int], kernel: Kernel, device: torch.device) -> Documents:
    """Layout of one row whose documents have `lengths` tokens (each at least 1), in order."""
    cumulative = allowed_TT = None
    if kernel in FUSED:
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        cumulative = ends.to(device, non_blocking=True)
    if kernel == "eager":
        document_T = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        allowed_TT = (document_T[:, None] == document_T).tril().to(device)
    return Documents(tuple(lengths), kernel, max(lengths), cumulative, allowed_TT)


def document_attention(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    documents: Documents | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; returns [B, T, H, D] and no weights.

    Raises `ModelError` where the model did not hand `documents` down, or asks a kernel for what it lacks.
    """
    if documents is None or attention_mask is not None or query_BHTD.shape[0] != 1:
        raise ModelError(
            f"{type(module).__name__} cannot keep packed examples apart: it must hand `documents` down to "
            "its attention and take one row without a mask; choose a family that uses AttentionInterface"
        )
    kernel = documents.kernel
    if (softcap is not None and kernel not in CAPS) or (dropout and kernel not in DROPS):
        lacks = "capped scores" if softcap is not None and kernel not in CAPS else "dropout"
        raise ModelError(
            f"attention={kernel} has no {lacks}, which {type(module).__name__} asks for; set attention=eager"
        )
    query, key, value = _one_dtype(query_BHTD, key_BHTD, value_BHTD)
    options = _Options(scaling, dropout, sliding_window, softcap)
    return _KERNELS[kernel](query, key, value, documents, options), None


AttentionInterface.register(NAME, document_attention)


@dataclass(frozen=True, slots=True)
class _Options:
    scaling: float | None
    dropout: float
    window: int | None
    """Keys that a query sees, itself included; None: all earlier ones."""
    softcap: float | None

    @property
    def left(self) -> int:
        """Window as flash kernels count it: earlier keys only; -1 for all."""
        return -1 if self.window is None else self.window - 1


def _one_dtype(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Rotary embeddings and query norms leave fp32 queries under autocast, which half-precision kernels
    # refuse.
    device = value.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: _Options) -> Tensor:
    lengths = list(documents.lengths)
    outs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        length = q.shape[2]
        band = None
        if options.window is not None and length > options.window:
            band = torch.ones(length, length, dtype=torch.bool, device=q.device).tril().triu(-options.left)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=band,
            is_causal=band is None,
            dropout_p=options.dropout,
            scale=options.scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        outs.append(out)
    return torch.cat(outs, 2).transpose(1, 2)


def _eager(query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: _Options) -> Tensor:
    assert documents.dense_mask is not None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = options.scaling if options.scaling is not None else query.shape[-1] ** -0.5
    scores = (query @ key.transpose(2, 3) * scale).float()
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    allowed = documents.dense_mask
    if options.window is not None:
        allowed = allowed.triu(-options.left)
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1).to(value.dtype)
    weights = F.dropout(weights, options.dropout)
    return (weights @ value).transpose(1, 2)


def _varlen(query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: _Options) -> Tensor:
    ends, longest = documents.cumulative, documents.longest
    gqa = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    window = (options.left, 0)
    out: Tensor = varlen_function()(
        *_rows(query, key, value), ends, ends, longest, longest, scale=options.scaling, window_size=window, **gqa
    )
    return out[None]


def _flash2(query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: _Options) -> Tensor:
    from flash_attn import flash_attn_varlen_func  # an extra: needs CUDA and a source build

    ends, longest = documents.cumulative, documents.longest
    out: Tensor = flash_attn_varlen_func(
        *_rows(query, key, value),
        ends,
        ends,
        longest,
        longest,
        dropout_p=options.dropout,
        softmax_scale=options.scaling,
        causal=True,
        window_size=(options.left, 0 if options.window is not None else -1),
        softcap=options.softcap or 0.0,
    )
    return out[None]


def _flash3(query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: _Options) -> Tensor:
    from flash_attn_interface import flash_attn_varlen_func  # the `hopper` folder of flash-attn; has no dropout

    ends, longest = documents.cumulative, documents.longest
    out = flash_attn_varlen_func(
        *_rows(query, key, value),
        ends,
        ends,
        longest,
        longest,
        softmax_scale=options.scaling,
        causal=True,
        window_size=(options.left, 0 if options.window is not None else -1),
        softcap=options.softcap or 0.0,
    )
    return _output(out)


def _flash4(query: Tensor, key: Tensor, value: Tensor, documents: Documents, options: _Options) -> Tensor:
    from flash_attn.cute import flash_attn_varlen_func  # the distribution flash-attn-4; has no dropout

    ends, longest = documents.cumulative, documents.longest
    # By keyword: its fourth positional argument is another tensor. None, not -1, is an open window here.
    out = flash_attn_varlen_func(
        *_rows(query, key, value),
        cu_seqlens_q=ends,
        cu_seqlens_k=ends,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        softmax_scale=options.scaling,
        causal=True,
        window_size=(None, None) if options.window is None else (options.left, 0),
        softcap=options.softcap or 0.0,
    )
    return _output(out)


def _rows(*heads_BHTD: Tensor) -> Iterator[Tensor]:
    """[T, H, D], as the kernels for documents of several lengths take them; views, no copies."""
    return (x[0].transpose(0, 1) for x in heads_BHTD)


def _output(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """[1, T, H, D]. Versions 3 (until 2025) and 4 return the log normalisers as well."""
    return (out[0] if isinstance(out, tuple) else out)[None]


_KERNELS = {
    "sdpa": _sdpa,
    "eager": _eager,
    "varlen": _varlen,
    "flash2": _flash2,
    "flash3": _flash3,
    "flash4": _flash4,
}


@cache
def varlen_function() -> Any:
    """torch's variable-length attention, or None where it has none that takes a window and grouped heads."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return None
    from torch.nn.attention.varlen import varlen_attn

    # torch 2.10 had `is_causal` in place of the window; 2.11 and later are keyword-only with `window_size`.
    wanted = {"scale", "window_size", "enable_gqa"}
    return varlen_attn if wanted <= set(inspect.signature(varlen_attn).parameters) else None


def standard_attention_name(model: PreTrainedModel) -> str:
    """transformers' own implementation for this model: what generation and other users of the weights get."""
    return "sdpa" if model._supports_sdpa else "eager"


def use_document_attention(model: PreTrainedModel) -> None:
    """Send attention through `document_attention`. Raises `ModelError` where the model's family cannot."""
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ModelError(
            f"{type(model).__name__} has its own attention and cannot keep packed examples apart; "
            "choose a model family that uses transformers' AttentionInterface"
        )


@contextmanager
def standard_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model attends as transformers made it, with masks and cache."""
    before = model.config._attn_implementation
    model.set_attn_implementation(standard_attention_name(model))
    try:
        yield
    finally:
        model.set_attn_implementation(before)
