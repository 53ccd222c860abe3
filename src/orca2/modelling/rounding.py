"""AdamW for weights that are kept in bf16: what a step adds is computed in fp32 and rounded at random.

    exact      1.0000 ---- 1.0002 ------------------- 1.0078      a weight, where it should go, the next bf16 number
    nearest    1.0000                                             it never moves, however often it is asked to
    at random  1.0000 in 39 of 40 cases, 1.0078 in one            right on average

A bf16 number has 8 bits of precision, so a step below 1/512 of a weight is lost when it is rounded to the nearest: at a
learning rate of 2e-5 that is nearly every step. Weights, and both moments, need 6 bytes instead of 12.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from typing_extensions import override

from orca2.hashing import hash64

CHUNK = 2**24
"""Elements that are computed at a time: 64 MiB for each of some six tensors in fp32."""


def round_at_random(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 -> bf16 of the same shape: up or down with the probabilities that keep the mean. Whole numbers of bf16 stay.

    A value above bf16's largest can become infinite, as with any rounding.
    """
    noise = torch.randint(0, 2**16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    # A bf16 number is the upper half of the fp32 one; noise in the lower half carries into it now and then.
    bits = (values.view(torch.int32) + noise) & ~0xFFFF
    return bits.view(torch.float32).bfloat16()


class RoundingAdamW(torch.optim.AdamW):
    """torch's AdamW with its arithmetic in fp32, whatever the weights are kept in; bf16 results are rounded at random.

    The random numbers follow from the step, the parameter and the shard, so that copies of a weight stay equal and a
    resumed run goes on as it would have. Cut over another number of ranks, a run rounds otherwise.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, foreach=False)

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. `closure` is called first and its result is not used: Lightning gives one that does nothing."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        parameters = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        for number, (group, parameter) in enumerate(parameters):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            step = int(state["step"].item())
            generator = torch.Generator(parameter.device)
            # Hashed, since the generator of the CPU reads 32 bits of its seed.
            generator.manual_seed(hash64(f"{step} {number} {_shard_of(parameter)}"))
            gradients = _local(parameter.grad).reshape(-1).split(CHUNK)
            # Views, which a tensor with gaps would refuse: a copy would be updated in its place.
            weights, means, squares = (
                _local(tensor).view(-1).split(CHUNK) for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])
            )
            for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
                _update(weight, gradient, mean, square, step, group, generator)


def _update(
    weight: Tensor, grad: Tensor, mean: Tensor, square: Tensor, step: int, group: dict[str, Any], rng: torch.Generator
) -> None:
    """One step of AdamW (arXiv 1711.05101, algorithm 2) on a part of a parameter, in place."""
    beta1, beta2 = group["betas"]
    gradient = grad.float()
    new_mean = mean.float().lerp_(gradient, 1 - beta1)
    new_square = square.float().mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (new_square / (1 - beta2**step)).sqrt_().add_(group["eps"])
    new_weight = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
    new_weight.addcdiv_(new_mean, denominator, value=-group["lr"] / (1 - beta1**step))
    for kept, new in ((weight, new_weight), (mean, new_mean), (square, new_square)):
        kept.copy_(round_at_random(new, rng) if kept.dtype == torch.bfloat16 else new)


def _local(tensor: Tensor) -> Tensor:
    """This rank's part, in place."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _shard_of(parameter: Tensor) -> int:
    """A number that is the same on all ranks that hold the same part of a parameter; 0 where each holds all of it."""
    number = 0
    if isinstance(parameter, DTensor):
        for axis, placement in enumerate(parameter.placements):
            if placement.is_shard():
                number = number * parameter.device_mesh.size(axis) + parameter.device_mesh.get_local_rank(axis)
    return number
