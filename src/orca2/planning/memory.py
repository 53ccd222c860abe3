"""Bytes that one rank holds at the peak of a training step, component by component.

    forward            activations grow; weights and optimizer state stay
    start of backward  all activations + what the loss needs            <- one peak
    end of backward    activations gone, all gradients there            <- the other
    optimizer          in place (fused AdamW)

What autograd keeps of a layer, in elements per token (H hidden, Q queries, K keys, I feed-forward), by reading the
model's forward pass (transformers' Llama and Qwen3):

    norms       its input, the normalised input (for the gradient of its weight), its output as input of linear layers
    attention   queries, keys and values after rotation, the result, and a log normaliser per head
    feed-forward  gate, its activation, up, and their product

Not counted: the CUDA context, communication buffers of NCCL, and unused parts of the allocator's blocks, for which
a share of the GPU is left free (`PlanSpec.free_share`).
"""

from dataclasses import dataclass
from typing import Literal

from orca2.modelling.loss import chunk_rows
from orca2.modelling.recompute import ActivationCheckpointing
from orca2.planning.shape import LoraSize, ModelShape

FP32, BF16 = 4, 2
ADAM_STATES = 2
"""Tensors of the weights' size: the running means of gradients and of their squares."""
GATHERED_LAYERS = 2
"""FSDP2 computes with one layer while it gathers the next."""
NF4 = 0.5 + 8 / (64 * 8)
"""Bytes of a 4-bit weight with its scales: one in 8 bits for 64 weights, plus scales of scales, which are negligible
(QLoRA, arXiv 2305.14314, section 3)."""

Parallelism = Literal["one", "ddp", "fsdp"]
"""How the weights lie: on the one device, whole on each, or cut over all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All that decides memory, beside the shape."""

    tokens: int
    """Tokens of one micro-batch, padding included."""
    label_tokens: int
    """Label tokens of one micro-batch."""
    micro_batches: int
    """Micro-batches of one step on one rank."""
    compute: Literal["fp32", "bf16"]
    master: Literal["fp32", "bf16"]
    """What weights, gradients and optimizer state are kept in."""
    parallelism: Parallelism
    shards: int
    """Ranks that share one copy of the weights; 1 without fsdp."""
    checkpointing: ActivationCheckpointing
    fused_attention: bool
    """Flash and varlen kernels write their result as the next layer reads it; SDPA's is copied once."""
    on_cuda: bool
    """Whether the run is on a GPU, where the loss is made in larger chunks."""
    lora: LoraSize | None = None
    """Size of the adapters; None: all weights are trained."""
    quantized: bool = False
    """Whether the layers' frozen matrices have 4 bits."""

    @property
    def autocast(self) -> bool:
        """Whether each operation casts its inputs; sharded weights are gathered in bf16 instead."""
        return self.compute != self.master and self.parallelism != "fsdp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one rank. The peak is below the sum where components are not alive together."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    """Logits, and gradients and casts of the output layer while the loss is differentiated."""
    buffers: int
    """Casts and gathered copies of weights, and gradients on their way to other ranks."""
    peak: int


def memory_of(shape: ModelShape, setting: Setting) -> Memory:
    """The plan for one rank."""
    kept = FP32 if setting.master == "fp32" else BF16
    trained = shape.trained(setting.lora)
    weights = _weights(shape, setting, kept) // setting.shards
    gradients = kept * trained // setting.shards
    optimizer = ADAM_STATES * kept * trained // setting.shards
    kept_activations, again = _activations(shape, setting)
    logits = _loss(shape, setting)
    buffers, reduction = _buffers(shape, setting)
    already = gradients if setting.micro_batches > 1 else 0
    # The output layer is differentiated before the last layer is made again.
    start = already + kept_activations + max(logits, again + _working(shape, setting))
    end = gradients + reduction + again + _working(shape, setting)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept_activations + again,
        logits=logits,
        buffers=buffers + reduction,
        peak=weights + optimizer + buffers + max(start, end),
    )


def _weights(shape: ModelShape, setting: Setting, kept: int) -> int:
    added = 0 if setting.lora is None else setting.lora.matrices
    if not setting.quantized:
        return kept * (shape.parameters + added)
    matrices = shape.layers * shape.layer_weights
    return int(NF4 * matrices) + kept * (shape.parameters - matrices + added)


def layer_bytes_per_token(shape: ModelShape, setting: Setting) -> int:
    """What autograd keeps of one layer without checkpointing."""
    hidden, queries, keys = shape.hidden, shape.queries, shape.keys
    half = setting.compute == "bf16"
    size = BF16 if half else FP32
    # Norms compute in fp32. Their input is the residual stream, which is fp32 under autocast; a bf16 stream is cast
    # first, and the normalised value cast back.
    normalised = FP32 + (FP32 if setting.autocast or not half else BF16)
    # Under autocast each linear layer casts the norm's output for itself: q, k, v; gate, up.
    outputs = size * (5 if setting.autocast else 2)
    norms = hidden * (2 * normalised + outputs)
    if shape.head_norms:
        norms += (queries + keys) * (FP32 + size)
    attention = size * (queries * (2 if setting.fused_attention else 3) + 2 * keys)
    feed_forward = size * 4 * shape.intermediate
    scalars = FP32 * (shape.heads + 2)
    return norms + attention + feed_forward + scalars


def _stream(setting: Setting) -> int:
    """Bytes of an element of the residual stream."""
    return FP32 if setting.autocast or setting.compute == "fp32" else BF16


def _activations(shape: ModelShape, setting: Setting) -> tuple[int, int]:
    """Kept from forward to backward; and the rest of the one layer that is being made again."""
    size = BF16 if setting.compute == "bf16" else FP32
    stream = _stream(setting)
    last_norm = shape.hidden * (FP32 + stream)
    rotations = 2 * shape.head_dim * stream
    outside = setting.tokens * (last_norm + rotations) + setting.label_tokens * shape.hidden * size
    layer = setting.tokens * layer_bytes_per_token(shape, setting)
    if setting.checkpointing == "none":
        return outside + shape.layers * layer, 0
    kept = shared = shape.hidden * stream
    if setting.checkpointing == "selective":
        # The results of the seven matrix products and of attention; of these the layer itself keeps values, the result
        # of attention, gate and up.
        shared += size * (shape.keys + shape.queries + 2 * shape.intermediate) + FP32 * shape.heads
        kept = shared + size * (shape.queries + shape.keys + 2 * shape.hidden)
    return outside + shape.layers * setting.tokens * kept, layer - setting.tokens * shared


def _working(shape: ModelShape, setting: Setting) -> int:
    """Gradients of activations beside the activations, where a layer's backward pass begins."""
    size = BF16 if setting.compute == "bf16" else FP32
    # d product, d silu and d up, while the product itself is no longer needed; the gradients of both streams.
    return setting.tokens * (2 * shape.intermediate * size + 2 * shape.hidden * _stream(setting))


def _loss(shape: ModelShape, setting: Setting) -> int:
    """Bytes while the loss is differentiated: a chunk's logits, gradients of its inputs and of the output layer."""
    elements = min(setting.label_tokens, chunk_rows(shape.vocabulary, setting.on_cuda)) * shape.vocabulary
    half = setting.compute == "bf16"
    cast = BF16 * shape.head_weights if setting.autocast else 0
    backward = elements * (FP32 + BF16 if half else FP32)
    backward += shape.hidden * (setting.label_tokens * (BF16 if half else FP32) + setting.tokens * _stream(setting))
    if setting.lora is None or setting.lora.embeddings:
        # The sum over chunks is fp32, its result in the compute dtype.
        backward += FP32 * shape.head_weights + (BF16 * shape.head_weights if half else 0)
    return cast + backward


def _buffers(shape: ModelShape, setting: Setting) -> tuple[int, int]:
    """Held through the step, and needed only while the last gradients are summed over ranks."""
    if setting.autocast:
        # torch keeps the cast of each trained matrix until the step ends. Frozen ones are cast anew at each use, and
        # autograd keeps those casts; 4-bit ones are unpacked at each use.
        again = setting.lora is not None and (setting.checkpointing != "none" or setting.quantized)
        return BF16 * shape.layer_weights * (1 if again else shape.layers), 0
    if setting.parallelism != "fsdp":
        return 0, 0
    size = BF16 if setting.compute == "bf16" else FP32
    gathered = size * (shape.root_parameters + GATHERED_LAYERS * shape.layer_parameters)
    if setting.lora is not None:
        return gathered, 0
    # Gradients come in the compute dtype and are summed in fp32.
    in_flight = (size + FP32) * shape.layer_parameters
    return gathered + in_flight, (size + FP32) * shape.root_parameters
