"""Attention over slots: every row that is being answered has one, and a step's tokens are one flat row.

    ids_BT     t t t | p p p p p | q q q          three rows write a token each, two prompts come in
    slot       0 1 2 | 3 3 3 3 3 | 4 4 4          rows that write stand in the first slots, without a gap

    keys of a layer   [slots, heads, room, head_dim], reserved once, written in place

No padding exists, no mask is made for prompts, and no key is copied when a token is added: transformers' dynamic
cache concatenates, so that every token copies all earlier ones. As in training, the layout travels as a keyword
that models hand down to their attention, and transformers makes no mask for an implementation it does not know.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from orca2.errors import ModelError

NAME = "orca2_slots"
"""Under this name transformers finds the function; it must never be saved with a model."""


class SlotCache:
    """Keys and values [slots, heads, room, head_dim] of every layer; a layer's memory is made at its first use."""

    def __init__(self, slots: int, room: int) -> None:
        self.slots, self._room = slots, room
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, index: int, key_1HTD: Tensor, value_1HTD: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values, of the width and type of these new ones."""
        if index not in self._layers:
            # Zeros: what a mask hides is still multiplied, and memory that was never written may hold NaN.
            self._layers[index] = (
                key_1HTD.new_zeros(self.slots, key_1HTD.shape[1], self._room, key_1HTD.shape[3]),
                value_1HTD.new_zeros(self.slots, value_1HTD.shape[1], self._room, value_1HTD.shape[3]),
            )
        return self._layers[index]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot over another."""
        for states in self._layers.values():
            for state in states:
                state[target, :, :length] = state[source, :, :length]


@dataclass(slots=True, eq=False)
class Step:
    """One forward pass: what its flat row of tokens is made of. Made once, read by every layer."""

    cache: SlotCache
    positions: Sequence[int]
    """Tokens already cached, per decoding row, in slot order."""
    prompts: Sequence[int]
    """Lengths of the prompts that follow in the flat row; they fill the next slots."""
    device: torch.device
    _rows_B: Tensor = field(init=False)
    _positions_B: Tensor = field(init=False)
    _longest: int = field(init=False)
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows_B = torch.arange(len(self.positions), device=self.device)
        self._positions_B = torch.tensor(self.positions, dtype=torch.int64, device=self.device)
        self._longest = max(self.positions, default=0) + 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: "_Options") -> Tensor:
        """[1, H, T, D] of new tokens -> [1, T, H, D]; keys and values are stored first."""
        keys_SHRD, values_SHRD = self.cache.layer(layer, key, value)
        outs = []
        rows = len(self.positions)
        if rows:
            keys_SHRD[self._rows_B, :, self._positions_B] = key[0, :, :rows].transpose(0, 1)
            values_SHRD[self._rows_B, :, self._positions_B] = value[0, :, :rows].transpose(0, 1)
            out_BH1D = F.scaled_dot_product_attention(
                query[0, :, :rows].transpose(0, 1)[:, :, None],
                keys_SHRD[:rows, :, : self._longest],
                values_SHRD[:rows, :, : self._longest],
                attn_mask=self._mask(options.window, query.dtype),
                scale=options.scaling,
                enable_gqa=options.grouped,
            )
            outs.append(out_BH1D[:, :, 0])
        start = rows
        for slot, length in enumerate(self.prompts, start=rows):
            part = slice(start, start + length)
            keys_SHRD[slot, :, :length] = key[0, :, part]
            values_SHRD[slot, :, :length] = value[0, :, part]
            outs.append(_causal(query[:, :, part], key[:, :, part], value[:, :, part], options)[0].transpose(0, 1))
            start += length
        return torch.cat(outs)[None]

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[B, 1, 1, longest]: 0 where a row has a token that it sees, minus infinity elsewhere."""
        if (window, dtype) not in self._masks:
            # Numbers, because the kernels would turn a mask of truth values into them in every layer.
            at_T = torch.arange(self._longest, device=self.device)
            hidden_BT = at_T > self._positions_B[:, None]
            if window is not None:
                hidden_BT |= at_T <= self._positions_B[:, None] - window
            mask_BT = torch.zeros(hidden_BT.shape, dtype=dtype, device=self.device)
            self._masks[window, dtype] = mask_BT.masked_fill_(hidden_BT, float("-inf"))[:, None, None]
        return self._masks[window, dtype]


@dataclass(frozen=True, slots=True)
class _Options:
    scaling: float | None
    window: int | None
    """Keys that a query sees, itself included; None: all earlier ones."""
    grouped: bool
    """Whether several query heads share a key head."""


def _causal(query: Tensor, key: Tensor, value: Tensor, options: _Options) -> Tensor:
    band_TT = None
    length = query.shape[2]
    if options.window is not None and length > options.window:
        band_TT = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - options.window)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=band_TT,
        is_causal=band_TT is None,
        scale=options.scaling,
        enable_gqa=options.grouped,
    )


def slot_attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    slots: Step | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; returns [1, T, H, D] and no weights.

    Raises `ModelError` where the model does not hand `slots` down, or asks for what is not done here.
    """
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    layer = getattr(module, "layer_idx", None)
    if slots is None or attention_mask is not None or layer is None or unknown:
        raise ModelError(f"{type(module).__name__} cannot attend over slots ({', '.join(unknown) or 'no layout'})")
    # Rotary embeddings and query norms leave fp32 queries under autocast, which half-precision kernels refuse.
    query, key = query_1HTD.to(value_1HTD.dtype), key_1HTD.to(value_1HTD.dtype)
    options = _Options(scaling, sliding_window, query.shape[1] != key.shape[1])
    return slots.attend(layer, query, key, value_1HTD, options), None


AttentionInterface.register(NAME, slot_attention)


@contextmanager
def slot_attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model attends over slots. Raises `ModelError` where its family has its own attention."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        if model.config._attn_implementation != NAME:
            raise ModelError(f"{type(model).__name__} has its own attention")
        yield
    finally:
        model.set_attn_implementation(before)
