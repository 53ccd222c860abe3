"""The choice of a kernel and its reason, and the arguments of each version of flash-attn; no GPU needed."""

import importlib.metadata
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, LlamaConfig

from orca2.errors import ModelError
from orca2.modelling import attention_choice
from orca2.modelling.attention import document_attention, lay_out
from orca2.modelling.attention_choice import AttentionNeeds, attention_needs, choose_attention

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NEEDS = AttentionNeeds(head_dim=64)
MODULES = {"flash2": "flash_attn_2_cuda", "flash3": "flash_attn_interface"}


def pretend(patch: pytest.MonkeyPatch, capability: tuple[int, int], *installed: str) -> None:
    """A machine whose GPU has `capability` and where these versions of flash-attn are installed."""
    patch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    for kernel, name in MODULES.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        if kernel in installed:
            patch.setitem(sys.modules, name, module)
    real = importlib.metadata.version
    patch.setattr(
        importlib.metadata,
        "version",
        lambda name: "4.0" if name == "flash-attn-4" and "flash4" in installed else real(name),
    )


def test_auto_on_cpu_is_sdpa_with_a_reason() -> None:
    """Fails if a kernel that cannot run is chosen, or nobody learns why."""
    name, reason = choose_attention("auto", CPU, torch.float32, NEEDS)
    assert name == "sdpa"
    assert reason == "one call per document; flash3, flash4, flash2, varlen: needs a CUDA device, not cpu"


@pytest.mark.parametrize("kernel", ["flash", "varlen"])
def test_a_kernel_that_cannot_run_is_refused(kernel: str) -> None:
    """Fails if a run silently uses another kernel than it names."""
    with pytest.raises(ModelError, match=f"attention={kernel} cannot run here: .*CUDA.*attention=auto"):
        choose_attention(kernel, CPU, torch.bfloat16, NEEDS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capability", "installed", "chosen"),
    [
        ((8, 0), (), "varlen"),
        ((8, 0), ("flash2", "flash3", "flash4"), "flash2"),
        ((9, 0), ("flash2", "flash3", "flash4"), "flash3"),
        ((9, 0), ("flash2", "flash4"), "flash4"),
        ((10, 0), ("flash2", "flash3", "flash4"), "flash4"),
        ((12, 0), ("flash3", "flash4"), "varlen"),
        ((7, 5), ("flash2",), "sdpa"),
    ],
)
def test_auto_takes_the_best_installed(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: tuple[str, ...], chosen: str
) -> None:
    """Fails if a faster kernel lies unused, or one is chosen that is not made for the GPU."""
    pretend(monkeypatch, capability, *installed)
    name, reason = choose_attention("auto", CUDA, torch.bfloat16, NEEDS)
    assert name == chosen
    assert ("7.5" if chosen == "sdpa" else "fastest that is installed for bfloat16 on cuda") in reason


def test_missing_flash_names_every_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a user who asks for flash-attn is not told which installation would do."""
    pretend(monkeypatch, (8, 6))
    with pytest.raises(ModelError, match=r"flash3: made for .*9.x.*flash4: made .*flash2: .*not installed.*`flash`"):
        choose_attention("flash", CUDA, torch.bfloat16, NEEDS)


@pytest.mark.parametrize(
    ("dtype", "needs", "chosen"),
    [
        (torch.float32, NEEDS, "sdpa"),
        (torch.bfloat16, AttentionNeeds(head_dim=512), "sdpa"),
        (torch.bfloat16, AttentionNeeds(head_dim=60), "sdpa"),
        (torch.bfloat16, AttentionNeeds(head_dim=192), "flash3"),
        (torch.bfloat16, AttentionNeeds(head_dim=64, dropout=0.1), "flash2"),
        (torch.bfloat16, AttentionNeeds(head_dim=64, softcap=True), "flash3"),
    ],
)
def test_the_model_decides_too(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, needs: AttentionNeeds, chosen: str
) -> None:
    """Fails if a kernel is chosen that cannot compute what the model or the precision asks for."""
    pretend(monkeypatch, (9, 0), "flash2", "flash3", "flash4")
    assert choose_attention("auto", CUDA, dtype, needs)[0] == chosen


def test_capped_scores_without_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a model that caps its scores is trained without the cap, or stops only at its first step."""
    pretend(monkeypatch, (8, 0))
    needs = attention_needs(Gemma2Config(head_dim=64, attention_dropout=0.0))
    assert needs.softcap
    assert choose_attention("auto", CUDA, torch.bfloat16, needs)[0] == "eager"
    for request in ("sdpa", "varlen"):
        with pytest.raises(ModelError, match="cap attention scores"):
            choose_attention(request, CUDA, torch.bfloat16, needs)  # type: ignore[arg-type]


def test_needs_of_a_llama() -> None:
    """Fails if the width of a head is not the one the kernels will see."""
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, attention_dropout=0.1)
    assert attention_needs(config) == AttentionNeeds(head_dim=16, dropout=0.1, softcap=False)


def test_varlen_of_this_torch_is_recognized() -> None:
    """Fails if the signature probe rejects the tested torch, whose varlen is then never used."""
    assert attention_choice._varlen_missing() is None


LENGTHS = (3, 5)


class Recorded:
    """A stand-in for `flash_attn_varlen_func` that keeps its arguments and returns its first tensor."""

    def __init__(self, pair: bool) -> None:
        self.pair = pair

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        return (args[0], "normalisers") if self.pair else args[0]


CALLED = {
    "flash2": ("flash_attn", {"dropout_p": 0.1, "softcap": 2.0}, (2, 0), (-1, -1)),
    "flash3": ("flash_attn_interface", {"softcap": 2.0}, (2, 0), (-1, -1)),
    "flash4": ("flash_attn.cute", {"softcap": 2.0}, (2, 0), (None, None)),
}


@pytest.mark.parametrize("kernel", CALLED)
@pytest.mark.parametrize("window", [3, None])
@pytest.mark.parametrize("pair", [False, True])
def test_flash_is_called_as_its_version_wants(
    monkeypatch: pytest.MonkeyPatch, kernel: str, window: int | None, pair: bool
) -> None:
    """Fails if documents, window, cap or dropout reach a version in another version's order or not at all."""
    name, extra, with_window, without = CALLED[kernel]
    function = Recorded(pair and kernel != "flash2")
    for module in ("flash_attn", name):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setattr(sys.modules[name], "flash_attn_varlen_func", function, raising=False)
    query, key, value = torch.randn(1, 4, 8, 16), torch.randn(1, 2, 8, 16), torch.randn(1, 2, 8, 16)
    documents = lay_out(LENGTHS, kernel, CPU)  # type: ignore[arg-type]
    out, weights = document_attention(
        nn.Identity(),
        query,
        key,
        value,
        None,
        scaling=0.5,
        dropout=extra.get("dropout_p", 0.0),
        sliding_window=window,
        softcap=2.0,
        documents=documents,
    )
    assert weights is None
    assert torch.equal(out, query.transpose(1, 2))
    assert [tensor.shape for tensor in function.args[:3]] == [(8, 4, 16), (8, 2, 16), (8, 2, 16)]
    layout = [*function.args[3:]] or [
        function.kwargs.pop(key) for key in ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
    ]
    assert [ends.tolist() for ends in layout[:2]] == [[0, 3, 8], [0, 3, 8]]
    assert layout[2:] == [5, 5]
    wanted = {"softmax_scale": 0.5, "causal": True, "window_size": without if window is None else with_window}
    assert function.kwargs == wanted | extra
    # What versions 3 and 4 take in another place than version 2 does must come by keyword.
    assert len(function.args) == (3 if kernel == "flash4" else 7)


@pytest.mark.parametrize(
    ("kernel", "options"), [("flash3", {"dropout": 0.1}), ("varlen", {"dropout": 0.1}), ("sdpa", {"softcap": 1.0})]
)
def test_what_a_kernel_lacks_is_never_left_out(kernel: str, options: dict[str, float]) -> None:
    """Fails if dropout or a cap is dropped in silence where the choice was passed by."""
    one = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ModelError, match=f"attention={kernel} has no (dropout|capped scores)"):
        document_attention(nn.Identity(), one, one, one, None, documents=lay_out((4,), kernel, CPU), **options)  # type: ignore[arg-type]
