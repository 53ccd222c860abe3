"""The layout of documents, and the kernels against a dense reference. The choice: test_attention_choice.py."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from orca2.errors import ModelError
from orca2.modelling.attention import (
    NAME,
    Documents,
    document_attention,
    lay_out,
    standard_attention,
    use_document_attention,
)
from orca2.modelling.attention_choice import AttentionNeeds, _obstacle

CPU = torch.device("cpu")
LENGTHS = (70, 1, 33)


def test_layout() -> None:
    """Fails if boundaries shift by one or the dense reference lets documents see each other."""
    layout = lay_out((2, 1, 3), "varlen", CPU)
    assert (layout.longest, layout.lengths, layout.dense_mask) == (3, (2, 1, 3), None)
    assert layout.cumulative is not None
    assert layout.cumulative.tolist() == [0, 2, 3, 6]
    assert layout.cumulative.dtype == torch.int32
    assert lay_out((2, 1), "sdpa", CPU).cumulative is None
    dense = lay_out((2, 1), "eager", CPU).dense_mask
    assert dense is not None
    assert dense.tolist() == [[True, False, False], [True, True, False], [False, False, True]]


def test_missing_layout_or_present_mask_is_refused() -> None:
    """Fails if attention over a whole row can happen by accident."""
    one = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ModelError, match="hand `documents` down"):
        document_attention(nn.Identity(), one, one, one, None)
    with pytest.raises(ModelError, match="without a mask"):
        document_attention(nn.Identity(), one, one, one, torch.ones(1), documents=lay_out((4,), "sdpa", CPU))


def test_standard_attention_comes_back_after_an_error() -> None:
    """Fails if training goes on with transformers' attention after a failed evaluation."""
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    )
    use_document_attention(model)
    try:
        with standard_attention(model):
            assert model.config._attn_implementation == "sdpa"
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert model.config._attn_implementation == NAME


def attend(kernel: str, device: str, window: int | None) -> list[torch.Tensor]:
    """Output and gradients of grouped attention (4 query heads, 2 key heads) in one kernel."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, sum(LENGTHS), 4, 32)
    dtype = torch.float32 if kernel == "eager" else torch.bfloat16
    if device == "cpu":
        dtype = torch.float32
    made = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4)]
    query, key, value = (
        x[:, :, :heads].transpose(1, 2).requires_grad_() for x, heads in zip(made[:3], (4, 2, 2), strict=True)
    )
    layout: Documents = lay_out(LENGTHS, kernel, torch.device(device))
    out, _ = document_attention(
        nn.Identity(), query, key, value, None, scaling=0.2, sliding_window=window, documents=layout
    )
    return [out, *torch.autograd.grad((out * made[3]).sum(), (query, key, value))]


@pytest.mark.parametrize("window", [None, 20])
def test_sdpa_equals_dense(window: int | None) -> None:
    """Fails if windows, grouped heads or document borders differ from the dense block-causal reference."""
    for got, wanted in zip(attend("sdpa", "cpu", window), attend("eager", "cpu", window), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", ["flash2", "flash3", "flash4", "varlen", "sdpa"])
@pytest.mark.parametrize("window", [None, 20])
def test_gpu_kernels_equal_dense(kernel: str, window: int | None) -> None:
    """Fails if a GPU kernel mixes documents up; bf16 keeps 8 bits, hence the tolerance."""
    obstacle = _obstacle(kernel, torch.device("cuda"), torch.bfloat16, AttentionNeeds(head_dim=32))
    if obstacle is not None:
        pytest.skip(obstacle)
    for got, wanted in zip(attend(kernel, "cuda", window), attend("eager", "cuda", window), strict=True):
        torch.testing.assert_close(got.float(), wanted, rtol=5e-2, atol=5e-2)
