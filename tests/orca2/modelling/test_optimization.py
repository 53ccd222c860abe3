"""The schedule, the parameter groups and the clipping, against values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from orca2.errors import ConfigError
from orca2.modelling.optimization import OptimizerSpec, build_optimizer, clip_gradients, learning_rate

SPEC = OptimizerSpec(
    name="test",
    learning_rate=1.0,
    warmup=0.1,
    decay="cosine",
    final_ratio=0.2,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-8,
    clip_norm=1.0,
)


@pytest.mark.parametrize(
    ("decay", "progress", "rate"),
    [
        ("cosine", 0.0, 0.0),
        ("cosine", 0.05, 0.5),
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.6),  # half-way down: 0.2 + 0.8 / 2
        ("cosine", 1.0, 0.2),
        ("linear", 0.325, 0.8),  # a quarter of the way: 0.2 + 0.8 * 0.75
        ("linear", 1.0, 0.2),
        ("constant", 0.05, 0.5),
        ("constant", 1.0, 1.0),
    ],
)
def test_rate_at_progress(decay: str, progress: float, rate: float) -> None:
    """A shifted warm-up or a decay that ends elsewhere would pass unnoticed in a training curve."""
    spec = replace(SPEC, decay=decay)  # type: ignore[arg-type]
    assert learning_rate(spec, progress) == pytest.approx(rate)


def test_rate_without_warmup_starts_at_the_peak() -> None:
    """A warm-up of 0 must not divide by 0."""
    assert learning_rate(replace(SPEC, warmup=0.0), 0.0) == 1.0


def test_all_wrong_values_are_named_at_once() -> None:
    """One error a run would make a user fix three values in three runs."""
    with pytest.raises(ConfigError) as error:
        replace(SPEC, learning_rate=0.0, warmup=1.0, clip_norm=-1.0)
    for name in ("learning_rate", "warmup", "clip_norm"):
        assert name in str(error.value)


def test_only_matrices_decay() -> None:
    """Decaying norms and biases pulls them to 0."""
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    decay_of_shape = {
        tuple(parameter.shape): group["weight_decay"]
        for group in build_optimizer(SPEC, model).param_groups
        for parameter in group["params"]
    }
    assert decay_of_shape == {(3, 2): 0.1, (3,): 0.0}


def test_frozen_parameters_are_left_out() -> None:
    """AdamW would decay a frozen weight."""
    model = nn.Linear(2, 3)
    model.weight.requires_grad_(False)
    groups = build_optimizer(SPEC, model).param_groups
    assert [parameter.shape for group in groups for parameter in group["params"]] == [(3,)]


def test_clipping_scales_the_whole_gradient() -> None:
    """Gradients 3 and 4 have norm 5; clipped to 1 they are 0.6 and 0.8."""
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    assert [float(p.grad) for p in parameters[:2]] == pytest.approx([0.6, 0.8])  # type: ignore[arg-type]
    assert parameters[2].grad is None


def test_a_norm_that_is_not_finite_is_returned() -> None:
    """Scaling by it would turn every gradient into NaN and hide which one was bad."""
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([math.inf]), torch.tensor([4.0])
    assert clip_gradients(parameters, 1.0) == math.inf
    assert float(parameters[1].grad) == 4.0
