"""AdamW over bf16 weights: right on average, the same on every copy, and torch's own where nothing is rounded."""

import pytest
import torch
from torch import nn

from orca2.modelling.optimization import build_optimizer
from orca2.modelling.rounding import RoundingAdamW, round_at_random
from tests.orca2.modelling.test_optimization import SPEC

RATE = 2e-5
"""A pretrained student's; a step of it is far below what bf16 tells apart near 1."""


def model_of(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 16)).to(dtype)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    """Steps whose gradients have random sizes and the same sign at each weight."""
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = RATE
    generator = torch.Generator().manual_seed(4)
    signs = [torch.randn(p.shape, generator=generator).sign() for p in model.parameters()]
    for _ in range(count):
        for parameter, sign in zip(model.parameters(), signs, strict=True):
            parameter.grad = (sign * torch.rand(parameter.shape, generator=generator)).to(parameter.dtype)
        optimizer.step()


def test_rounding_is_right_on_average() -> None:
    """Fails if it is biased: every weight would drift. 1 + 1/1024 is an eighth of the way to the next bf16 number."""
    values = torch.full((80_000,), 1 + 2**-10)
    for sign in (1, -1):
        rounded = round_at_random(sign * values, torch.Generator().manual_seed(1))
        assert set(rounded.tolist()) == {sign * 1.0, sign * (1 + 2**-7)}
        # Five standard deviations of the share that goes up.
        assert float((rounded != sign).float().mean()) == pytest.approx(1 / 8, abs=0.006)


def test_numbers_of_bf16_stay() -> None:
    """Fails if a weight without a gradient wanders: the noise must not reach what needs no rounding."""
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert torch.equal(round_at_random(values.float(), torch.Generator().manual_seed(1)), values)


def test_it_is_adamw_where_nothing_is_rounded() -> None:
    """Fails if bias correction, decay or epsilon differ from torch's: only the rounding may."""
    ours, torchs = model_of(torch.float32), model_of(torch.float32)
    groups = build_optimizer(SPEC, ours).param_groups
    rounding = RoundingAdamW(groups, lr=RATE, betas=(SPEC.beta1, SPEC.beta2), eps=SPEC.epsilon)
    steps(ours, rounding, 20)
    steps(torchs, build_optimizer(SPEC, torchs), 20)
    for mine, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)


def test_bf16_weights_go_where_fp32_weights_go() -> None:
    """Fails if small steps are lost: to the nearest, a weight near 0.1 never moves at a rate of 2e-5."""
    exact, rounded = model_of(torch.float32), model_of(torch.bfloat16)
    for parameter, start in zip(exact.parameters(), rounded.parameters(), strict=True):
        parameter.data.copy_(start.data)
    before = [parameter.detach().clone() for parameter in exact.parameters()]
    steps(exact, build_optimizer(SPEC, exact), 50)
    optimizer = build_optimizer(SPEC, rounded)
    assert isinstance(optimizer, RoundingAdamW)
    steps(rounded, optimizer, 50)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(exact.parameters(), before, strict=True)])
    found = torch.cat([(p.detach().float() - b).flatten() for p, b in zip(rounded.parameters(), before, strict=True)])
    assert float((found * moved.sign()).mean()) == pytest.approx(float(moved.abs().mean()), rel=0.05)


def test_copies_stay_equal_and_other_steps_round_otherwise() -> None:
    """Fails if data-parallel copies drift apart, or the same noise falls on a weight in every step."""
    first, second = model_of(torch.bfloat16), model_of(torch.bfloat16)
    for model in (first, second):
        steps(model, build_optimizer(SPEC, model), 3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = nn.Parameter(torch.full((1000,), 1.0).bfloat16())
    optimizer = RoundingAdamW([{"params": [weight]}], lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    went = []
    for _ in range(2):
        weight.data.fill_(1.0)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        went.append(weight.detach() != 1)
    assert 0 < int(went[0].sum()) < 1000 and not torch.equal(*went)
