"""The check that every run makes before its first step: packed documents are isolated and the loss is right.

    reference   a b c      each document alone, transformers' own attention, the model's own logits
    packed      aaabbbccc  this project's attention and head
    disturbed   aaaxxxccc  the middle document replaced: a and c must not notice

Windows of attention are shrunk to a few tokens meanwhile (`windows`), for a realistic one would not be seen.
Everything goes through `StudentForLoss.forward`, so it also holds for a sharded student if all ranks run it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from orca2.errors import ModelError
from orca2.modelling.attention import HALF, standard_attention
from orca2.modelling.build import embedding_rows
from orca2.modelling.student_model import Head, StudentForLoss
from orca2.modelling.windows import changing_positions, shrunk_windows

LENGTHS = (5, 9, 6)
"""Three documents of different lengths; the middle one is disturbed."""

TOLERANCE = 1e-4
"""Largest relative difference of a loss between kernels in fp32: they differ in the order of sums."""
HALF_TOLERANCE = 5e-2
"""The same in half precision."""
LEAK = 1e-6
"""Largest relative change of a neighbour in fp32. Attention and mixtures of experts change by exactly 0; a
short convolution with fresh weights (lfm2) leaks 1e-5, pretrained weights leak far more."""
HALF_LEAK = 5e-3
"""The same in half precision, where a disturbed document can change how experts group the tokens."""


def check_student(student: StudentForLoss, longest: int | None = None) -> Head:
    """Prove isolation and loss on a row of 20 tokens; returns the head that `student` uses from now on.

    Windows of attention are shrunk for it, so that the tokens cross them; not those that a document of `longest` tokens
    never crosses. A model that caps, scales or otherwise alters its logits is moved to its own head.
    Raises `ModelError` where documents see each other or differ from their stand-alone forward pass.
    """
    if kind := changing_positions(student.model.config, longest):
        raise ModelError(
            f"{_name(student)}: its position embedding ({kind}) depends on the longest document of a row beyond "
            "original_max_position_embeddings; set model.max_len and packing.length to that number or less"
        )
    with shrunk_windows(student.model, longest):
        return _check(student)


def _check(student: StudentForLoss) -> Head:
    device = next(student.parameters()).device
    vocabulary = embedding_rows(student.model)
    ids_T = torch.arange(7, 7 + 31 * sum(LENGTHS), 31, device=device) % vocabulary
    with _evaluation(student), torch.no_grad():
        wanted = _reference(student, ids_T)
        if student.head == "chunked" and not _head_is_linear(student, ids_T):
            student.head = "own"
        packed = _losses(student, ids_T, LENGTHS)
        allowed = HALF_TOLERANCE if _is_half(student) else TOLERANCE
        if (difference := _difference(packed, wanted)) > allowed:
            raise ModelError(
                f"{_name(student)}: packed documents differ from their stand-alone forward pass by "
                f"{difference:.2g} (allowed {allowed}); {_remedy(student)}"
            )
        _check_disturbance(student, ids_T, packed)
    return student.head


def _head_is_linear(student: StudentForLoss, ids_T: Tensor) -> bool:
    """Whether the model's logits are exactly what its output layer returns.

    The layer's output is enlarged on the way: a cap is invisible on the small logits of fresh weights.
    """
    seen: list[Tensor] = []

    def enlarge(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        seen.append(output * (100 / output.abs().max()))
        return seen[0]

    hook = student.model.get_output_embeddings().register_forward_hook(enlarge)
    student.head = "own"
    try:
        losses_T = _losses(student, ids_T, LENGTHS)
    finally:
        hook.remove()
        student.head = "chunked"
    return torch.equal(losses_T, F.cross_entropy(seen[0][0].float(), ids_T.roll(-1), reduction="none"))


def _check_disturbance(student: StudentForLoss, ids_T: Tensor, packed_T: Tensor) -> None:
    first, middle, _ = LENGTHS
    inside = slice(first, first + middle)
    disturbed_T = ids_T.clone()
    disturbed_T[inside] = disturbed_T[inside].flip(0)
    # Labels stay those of the undisturbed row: the input is the only difference.
    losses_T = _losses(student, disturbed_T, LENGTHS, labels_T=ids_T.roll(-1))
    outside_T = torch.ones_like(ids_T, dtype=torch.bool)
    outside_T[inside] = False
    allowed = HALF_LEAK if _is_half(student) else LEAK
    if (leak := _difference(losses_T[outside_T], packed_T[outside_T])) > allowed:
        raise ModelError(
            f"{_name(student)}: changing one packed document changes its neighbours by {leak:.2g} "
            f"(allowed {allowed}); {_remedy(student)}"
        )
    if torch.equal(losses_T[inside], packed_T[inside]):
        raise ModelError(f"{_name(student)}: its outputs do not depend on its input tokens; are the weights all zero?")


def _reference(student: StudentForLoss, ids_T: Tensor) -> Tensor:
    head, student.head = student.head, "own"
    with standard_attention(student.model):
        labels = ids_T.roll(-1).split(LENGTHS)
        alone = [_losses(student, ids, (len(ids),), nxt) for ids, nxt in zip(ids_T.split(LENGTHS), labels, strict=True)]
    student.head = head
    return torch.cat(alone)


def _losses(student: StudentForLoss, ids_T: Tensor, lengths: tuple[int, ...], labels_T: Tensor | None = None) -> Tensor:
    positions_T = torch.cat([torch.arange(length) for length in lengths]).to(ids_T.device)
    everywhere_T = torch.arange(len(ids_T), device=ids_T.device)
    labels_T = ids_T.roll(-1) if labels_T is None else labels_T
    losses_T: Tensor = student(ids_T[None], positions_T[None], lengths, everywhere_T, labels_T)
    return losses_T


def _difference(got: Tensor, wanted: Tensor) -> float:
    return float(((got - wanted).abs() / wanted.abs().clamp(min=1.0)).max())


def _is_half(student: StudentForLoss) -> bool:
    parameter = next(student.parameters())
    dtype = student.compute_dtype or parameter.dtype
    return dtype in HALF or torch.is_autocast_enabled(parameter.device.type)


def _remedy(student: StudentForLoss) -> str:
    other = "" if student.kernel == "eager" else f"set attention=eager (not {student.kernel}) or "
    return other + (
        "choose a model of causal attention, whole or in a sliding window: recurrent layers, sinks and chunks cannot "
        "be packed"
    )


def _name(student: StudentForLoss) -> str:
    return type(student.model).__name__


@contextmanager
def _evaluation(student: StudentForLoss) -> Iterator[None]:
    training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(training)
