"""The one place where tokens are chosen: greedily, and by the first rank alone where ranks must stay together.

    logits_BV -> next_B

Sharded layers are gathered for every token, so all ranks must write equally many. Their logits may differ in the last
bit, and a bit decides which of two tokens is the larger, when an answer ends, and so how often a rank gathers.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import LogitsProcessor
from typing_extensions import override

Choice = Callable[[Tensor], Tensor]
"""Logits [B, V] -> the next token of each row, [B]."""


def greedy(logits_BV: Tensor) -> Tensor:
    """The most likely token of each row."""
    return logits_BV.argmax(-1)


def lockstep(logits_BV: Tensor) -> Tensor:
    """The tokens that the first rank finds most likely, on every rank: a collective call."""
    next_B = greedy(logits_BV)
    dist.broadcast(next_B, src=0)
    return next_B


def first_ranks(decision: bool, device: torch.device) -> bool:
    """The first rank's decision, on every rank: a collective call on `device`, which the ranks' backend must reach."""
    told = torch.tensor([decision], dtype=torch.int64, device=device)
    dist.broadcast(told, src=0)
    return bool(told.item())


class ChosenOnly(LogitsProcessor):
    """Leaves transformers' `generate` a single token to choose in each row: that of `choice`."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    @override
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen_B = self._choice(scores)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen_B[:, None], 0.0)
