"""Negative log-likelihood of label tokens without ever holding all their logits.

    hidden_NH --chunk--> logits_CV --> losses_N          forward: keeps only the log normaliser of each token
                         logits_CV --> d hidden, d head  backward: makes each chunk's logits again

Forward and backward, N=1000 label tokens, V=32,003, H=256, fp32, 2 threads, medians: this 300 ms and 148 MiB
above the start; all logits at once 418 ms and 429 MiB; `torch.utils.checkpoint` over chunks 387 ms and 484
MiB; `F.linear_cross_entropy` of torch 2.13 with the same chunks 291 ms and 197 MiB (with its default chunks
1,275 ms). At N=800, V=2,048, H=128 (one chunk) this takes 11 ms, all logits at once 10 ms: no second path is
worth its code.
"""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

CHUNK_LOGITS = 4 * 2**20
"""Logits made at a time: 16 MiB in fp32. A cache-sized chunk is also the fastest on CPU."""

CUDA_ROWS = 1024
"""Label tokens at a time on a GPU, at least. Computed, not measured: backward, a chunk of N rows takes 6 N operations
for each element of the head and moves 10 bytes of it (bf16 read, fp32 gradient read and written), and an H100 makes
about 300 bf16 operations while it moves a byte (NVIDIA's data sheet: 989 TFLOPS, 3.35 TB/s). So from 500 rows on it
computes longer than it waits."""


def chunk_rows(vocabulary: int, on_cuda: bool) -> int:
    """Label tokens whose logits are made at a time."""
    return max(CUDA_ROWS if on_cuda else 1, CHUNK_LOGITS // vocabulary)


class _LabelNLL(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
        chunk = chunk_rows(weight_VH.shape[0], weight_VH.is_cuda)
        normaliser_N = hidden_NH.new_empty(len(labels_N), dtype=torch.float32)
        chosen_N = torch.empty_like(normaliser_N)
        for start in range(0, len(labels_N), chunk):
            part = slice(start, start + chunk)
            logits_CV = _logits(hidden_NH[part], weight_VH, bias_V)
            normaliser_N[part] = logits_CV.logsumexp(1)
            chosen_N[part] = logits_CV.gather(1, labels_N[part, None])[:, 0]
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, labels_N, normaliser_N)
        ctx.chunk = chunk
        return normaliser_N - chosen_N

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        (grad_N,) = grads
        hidden_NH, weight_VH, bias_V, labels_N, normaliser_N = ctx.saved_tensors
        d_hidden_NH = torch.empty_like(hidden_NH)
        # Sums over chunks stay in fp32: half precision would lose small chunks to large ones.
        # None where the output layer is frozen, as beside adapters: it is the largest gradient of all.
        d_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=torch.float32)
        for start in range(0, len(labels_N), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            d_logits_CV = _logits(hidden_NH[part], weight_VH, bias_V).sub_(normaliser_N[part, None]).exp_()
            d_logits_CV.scatter_add_(1, labels_N[part, None], d_logits_CV.new_full((len(d_logits_CV), 1), -1.0))
            d_logits_CV.mul_(grad_N[part, None])
            if d_bias_V is not None:
                d_bias_V += d_logits_CV.sum(0)
            d_low_CV = d_logits_CV.to(hidden_NH.dtype)
            d_hidden_NH[part] = d_low_CV @ weight_VH
            if d_weight_VH is None:
                continue
            if weight_VH.dtype == torch.float32:
                d_weight_VH.addmm_(d_low_CV.T, hidden_NH[part])
            else:
                d_weight_VH += d_low_CV.T @ hidden_NH[part]
        d_bias = None if d_bias_V is None or bias_V is None else d_bias_V.to(bias_V.dtype)
        d_weight = None if d_weight_VH is None else d_weight_VH.to(weight_VH.dtype)
        return d_hidden_NH, d_weight, d_bias, None


def _logits(hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Tensor:
    logits_CV = hidden_CH @ weight_VH.T
    return (logits_CV if bias_V is None else logits_CV + bias_V).float()


def label_losses(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
    """fp32 [N]: minus the log-probability of each label. N may be 0; the graph still reaches every input.

    Matrix products run in the autocast dtype where autocast is on, sums and losses always in fp32.
    """
    device = hidden_NH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VH.dtype
    bias_V = None if bias_V is None else bias_V.to(dtype)
    with torch.autocast(device, enabled=False):
        losses_N: Tensor = _LabelNLL.apply(hidden_NH.to(dtype), weight_VH.to(dtype), bias_V, labels_N)  # type: ignore[no-untyped-call]
    return losses_N
