"""Attention that changes with distance: the start-up check crosses each window, however large it is."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from orca2.errors import ModelError
from orca2.generation.hf import slots_obstacle
from orca2.modelling import attention
from orca2.modelling.selftest import check_student
from orca2.modelling.student_model import StudentForLoss
from orca2.modelling.windows import NAMES, shrunk_windows

REAL = {
    "gemma3_text": {"sliding_window": 512, "head_dim": 8},
    "mistral": {"sliding_window": 4096},
    "qwen2": {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 1},
    "llama4_text": {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48},
}
"""Windows as the families' own configs have them (Llama 4: chunks of 8,192); all else is small."""


def shrunk(family: str, **fields: Any) -> PreTrainedModel:
    common = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**common, **REAL.get(family, {}), **fields})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh weights are so small that attention hardly matters.
            parameter.mul_(4) if parameter.ndim == 2 else None
    return model.eval()


def sizes(model: PreTrainedModel) -> list[tuple[str, Any]]:
    owners = [model.config, *model.modules()]
    return [(name, getattr(owner, name)) for owner in owners for name in NAMES if hasattr(owner, name)]


@pytest.mark.parametrize("family", ["gemma3_text", "mistral", "qwen2"])
def test_a_kernel_without_windows_is_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the check passes below the window only: training on longer texts would be of another model."""
    model = shrunk(family)
    before = sizes(model)
    check_student(StudentForLoss(model, "sdpa"))
    assert sizes(model) == before and any(size and size >= 512 for _, size in before)
    kernel: Callable[..., Any] = attention._KERNELS["sdpa"]

    def without(q: Any, k: Any, v: Any, documents: Any, options: attention._Options) -> Any:
        return kernel(q, k, v, documents, attention._Options(options.scaling, options.dropout, None, options.softcap))

    monkeypatch.setitem(attention._KERNELS, "sdpa", without)
    with pytest.raises(ModelError, match="packed documents differ"):
        check_student(StudentForLoss(shrunk(family), "sdpa"))
    # Texts that never leave the window are the same without it.
    check_student(StudentForLoss(shrunk(family), "sdpa"), longest=512)


def test_chunks_are_refused_where_texts_cross_them() -> None:
    """Fails if Llama 4 trains on texts whose chunks see each other, which is wrong by several nats."""
    with pytest.raises(ModelError, match=r"Llama4ForCausalLM: packed documents differ.*chunks cannot be packed"):
        check_student(StudentForLoss(shrunk("llama4_text"), "sdpa"), longest=16_384)
    within = shrunk("llama4_text", attn_temperature_tuning=False)
    check_student(StudentForLoss(within, "sdpa"), longest=8_192)


def test_a_scale_by_the_place_in_the_row_is_refused() -> None:
    """Fails if Llama 4's scale, which counts a row's tokens and not a document's, passes with short documents."""
    large = shrunk("llama4_text", attn_scale=5.0)
    with pytest.raises(ModelError, match="packed documents differ"):
        check_student(StudentForLoss(large, "sdpa"), longest=4_096)


def test_positions_that_change_with_the_row_are_refused() -> None:
    """Fails if Phi-3's long factors, taken for all documents of a row with one long one, go unnoticed."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 4096, "factor": 32.0}
    factors = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    model = shrunk("phi3", rope_parameters={**rope, **factors}, max_position_embeddings=131_072)
    with pytest.raises(ModelError, match=r"longrope.*set model\.max_len"):
        check_student(StudentForLoss(model, "sdpa"), longest=8_192)
    check_student(StudentForLoss(model, "sdpa"), longest=4_096)


def test_slots_are_tried_beyond_the_window() -> None:
    """Fails if Llama 4 answers over slots, which know no chunks, because two short prompts agree."""
    assert slots_obstacle(shrunk("mistral")) is None
    assert "differ" in str(slots_obstacle(shrunk("llama4_text")))


def test_windows_come_back_after_an_error() -> None:
    """Fails if a refused model is left with windows of four tokens."""
    model = shrunk("mistral")
    before = sizes(model)
    with contextlib.suppress(KeyboardInterrupt), shrunk_windows(model):
        assert sizes(model) != before
        raise KeyboardInterrupt
    assert sizes(model) == before
