"""Every file of `conf/model/` that names weights, with a small model of its shape and its family's real tokenizer."""

from collections.abc import Callable
from pathlib import Path
from shutil import copy

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from orca2.settings import compose_config, plain
from tests.commands import ROOT
from tests.real.runs import TINY, losses, run_job

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
TOKENIZERS = {
    "Llama-2": "tiny_llama2",
    "Llama-3": "tiny_llama3",
    "Qwen3": "tiny_qwen3",
    "SmolLM2": "smollm2",
}
"""Real tokenizers by what stands in a hub id."""
WITH_SHAPE = sorted(
    path.stem for path in (ROOT / "conf" / "model").glob("*.yaml") if "\nshape:" in path.read_text(encoding="utf-8")
)


def test_there_are_model_files() -> None:
    """Fails if the test below runs on nothing."""
    assert {"7b", "13b", "smollm2_135m"} <= set(WITH_SHAPE)


@pytest.mark.parametrize("name", WITH_SHAPE)
def test_a_model_file_trains_with_its_real_tokenizer(
    name: str, real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Fails if a model that the project names cannot be trained because of its vocabulary, ties or shape."""
    spec = plain(compose_config("train", [f"model={name}"]))["model"]
    (tokenizer,) = [real_model(folder) for part, folder in TOKENIZERS.items() if part in spec["weights"]]
    shape = {key: value for key, value in spec["shape"].items() if value is not None}
    small = {key: value for key, value in SMALL.items() if key in shape or key == "head_dim"}
    config = CONFIG_MAPPING[shape.pop("model_type")](**shape | small, pad_token_id=None)
    torch.manual_seed(0)
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    for file in tokenizer.glob("tokenizer*.json"):
        copy(file, base)
    shrunk = [f"model.shape.{key}={value}" for key, value in small.items() if key in spec["shape"]]
    run = tmp_path / "run"
    ours = [text for text in TINY.overrides(base, tmp_path, run) if text not in ("model=hub", f"epochs={TINY.epochs}")]
    run_job([*ours, f"model={name}", *shrunk, "trainer=cpu", "epochs=1"])
    curve = losses(run)
    assert curve[-1] < curve[0]
    student = AutoModelForCausalLM.from_pretrained(run / "student")
    entries = len(AutoTokenizer.from_pretrained(run / "student"))
    assert student.config.vocab_size == max(entries, shape["vocab_size"])
    assert student.config.tie_word_embeddings == shape["tie_word_embeddings"]
