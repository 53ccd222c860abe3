"""The optimizer's numbers, and the learning rate as a function of progress.

Progress is the share of the stage's rows that are settled, from 0 to 1. It is known without a pass
over the data and is the same for any number of ranks, workers or micro-batches.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from orca2.errors import ConfigError
from orca2.modelling.rounding import RoundingAdamW


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """AdamW with warm-up and decay. The paper reports none of these values."""

    name: str
    learning_rate: float
    """Peak learning rate."""
    warmup: float
    """Share of progress over which the rate rises linearly from 0 to the peak."""
    decay: Literal["cosine", "linear", "constant"]
    final_ratio: float
    """Rate at the end of the stage as a share of the peak. Decaying to 0 harms a stage that follows
    (LAB, arXiv 2403.01081)."""
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip_norm: float
    """Largest L2 norm of the gradient of the loss per label token."""

    def __post_init__(self) -> None:
        wrong = [
            f"{field} = {getattr(self, field)}: {rule}"
            for field, rule, right in (
                ("learning_rate", "must be above 0", self.learning_rate > 0),
                ("warmup", "is a share of progress, from 0 to below 1", 0 <= self.warmup < 1),
                ("decay", "one of cosine, linear, constant", self.decay in ("cosine", "linear", "constant")),
                ("final_ratio", "is a share of the peak, from 0 to 1", 0 <= self.final_ratio <= 1),
                ("weight_decay", "must not be negative", self.weight_decay >= 0),
                ("beta1", "from 0 to below 1", 0 <= self.beta1 < 1),
                ("beta2", "from 0 to below 1", 0 <= self.beta2 < 1),
                ("epsilon", "must be above 0", self.epsilon > 0),
                ("clip_norm", "must be above 0 (.inf switches clipping off)", self.clip_norm > 0),
            )
            if not right
        ]
        if wrong:
            raise ConfigError(f"optimizer {self.name!r}: " + "; ".join(wrong))


def default_learning_rate(pretrained: bool, with_lora: bool) -> float:
    """The peak for a student from random weights, from pretrained ones, or with LoRA.

    Tuned for `tiny`; LAB's on LLaMA-2 13B (arXiv 2403.01081); QLoRA's for 7B and 13B (arXiv 2305.14314). A rate for
    random weights would undo what pretrained ones know.
    """
    return 2.0e-4 if with_lora else 2.0e-5 if pretrained else 3.0e-3


def learning_rate(spec: OptimizerSpec, progress: float) -> float:
    """The rate at `progress` in [0, 1]: linear warm-up, then decay to `final_ratio` of the peak."""
    if progress < spec.warmup:
        return spec.learning_rate * progress / spec.warmup
    if spec.decay == "constant":
        return spec.learning_rate
    decayed = (min(progress, 1.0) - spec.warmup) / (1.0 - spec.warmup)
    remaining = 1.0 - decayed if spec.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * decayed))
    return spec.learning_rate * (spec.final_ratio + (1.0 - spec.final_ratio) * remaining)


def build_optimizer(spec: OptimizerSpec, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices only, not on norms and biases.

    Weights in bf16 get one that rounds at random: to the nearest, most steps of most weights would be lost.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {
        "lr": spec.learning_rate,
        "betas": (spec.beta1, spec.beta2),
        "eps": spec.epsilon,
    }
    if any(parameter.dtype == torch.bfloat16 for parameter in trainable):
        return RoundingAdamW(groups, **settings)
    return torch.optim.AdamW(groups, fused=True, **settings)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients to an L2 norm of at most `max_norm`; returns the norm before scaling.

    For sharded gradients it is the norm of the whole, the same on every rank: a collective call.
    A norm that is not finite leaves the gradients as they are: the caller must stop, not step.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
    if isinstance(norm, DTensor):  # still a partial sum: its own `float` would be that of this rank's shard
        norm = norm.full_tensor()
    if torch.isfinite(norm) and math.isfinite(max_norm):
        torch.nn.utils.clip_grads_with_norm_(with_gradient, max_norm, norm)
    return float(norm)
