"""The student as training sees it: token ids of one row in, one loss per label token out.

ids_BT -> trunk -> hidden_BTH -> [label positions] -> hidden_NH -> chunked head -> losses_N
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from orca2.errors import ModelError
from orca2.modelling.attention import FUSED, Kernel, lay_out, use_document_attention
from orca2.modelling.loss import label_losses
from orca2.modelling.recompute import ActivationCheckpointing, recompute_activations

Head = Literal["chunked", "own"]


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Parameters to `dtype`, in place, and no buffers: rounded to bf16, rotary frequencies would turn far positions.

    transformers, too, keeps them in fp32 where it loads a model in bf16.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


class StudentForLoss(nn.Module):
    """A causal language model with document-exact attention and a loss on label positions only.

    Wrap this module, not the model inside, in DDP or FSDP: the head's weight is read directly, so it must
    belong to the sharding group of this root, which gathers it before `forward`.

    `head` is "chunked" where logits are a plain linear layer of the trunk's output. Models that alter theirs
    (caps, scales) need "own": the model makes them, at label positions only. `selftest.check_student` finds
    out which.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        kernel: Kernel,
        activation_checkpointing: ActivationCheckpointing = "none",
        compile: bool = False,
    ) -> None:
        """Raises `ModelError` where the model cannot keep documents apart or has no layers to recompute."""
        super().__init__()
        use_document_attention(model)
        self.model = model
        self.kernel: Kernel = kernel
        self.compute_dtype: torch.dtype | None = None
        """What weights are gathered in, where they are sharded; else None."""
        self.head: Head = "chunked" if _has_plain_head(model) else "own"
        if activation_checkpointing != "none":
            recompute_activations(decoder_layers(model), activation_checkpointing)
        if compile and kernel not in FUSED:
            raise ModelError(
                f"compile=true does not pay with attention={kernel}: the loop over documents would be "
                "compiled anew for the lengths of every micro-batch (minutes on a CPU); set compile=false"
            )
        self._trunk = torch.compile(_trunk) if compile else _trunk

    @override
    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor,
        lengths: Sequence[int],
        label_positions_N: Tensor,
        labels_N: Tensor,
    ) -> Tensor:
        """fp32 [N]: minus the log-probability of each label token; see `records.MicroBatch` for the layout.

        N may be 0: the sum is then 0 and its backward pass still gives every parameter a zero gradient, which
        DDP and FSDP wait for.
        """
        documents = lay_out(lengths, self.kernel, ids_BT.device)
        inputs = {
            "input_ids": ids_BT,
            "position_ids": positions_BT,
            "use_cache": False,
            "documents": documents,
        }
        if self.head == "own":
            logits_BNV = self.model(**inputs, logits_to_keep=label_positions_N).logits
            return F.cross_entropy(logits_BNV[0].float(), labels_N, reduction="none")
        hidden_BTH = self._trunk(self.model, inputs)
        output = self.model.get_output_embeddings()
        return label_losses(hidden_BTH[0].index_select(0, label_positions_N), output.weight, output.bias, labels_N)


def _has_plain_head(model: PreTrainedModel) -> bool:
    return type(model.get_output_embeddings()) is nn.Linear and model.base_model is not model


def _trunk(model: PreTrainedModel, inputs: dict[str, object]) -> Tensor:
    hidden_BTH: Tensor = model.base_model(**inputs).last_hidden_state
    return hidden_BTH


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The repeated blocks of the model, in order: the units to shard and to recompute.

    Raises `ModelError` for a family that does not name its blocks.
    """
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} does not name its layers (_no_split_modules): use trainer=ddp or one_gpu, and "
            "activation_checkpointing=none"
        )
    return layers
