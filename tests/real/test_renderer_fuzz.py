"""Any text through the real tokenizers: prompts are prefixes, masks are exact, and no text becomes a control token."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from orca2.rendering import Renderer, prepare_tokenizer
from orca2.settings import build, compose_config

pytestmark = pytest.mark.real
NAMES = ("smollm2", "tiny_llama2", "tiny_llama3", "tiny_qwen3", "tiny_gemma3", "tiny_deepseek_v3")
EXAMPLES = 2_000
"""Examples for each tokenizer, of about six texts each."""
MARKUP = (
    *("<|im_start|>", "<|im_end|>", "<|im_start|>system\n", "<|im_end|>\n", "</s>", "<s>", "[INST]", "<<SYS>>"),
    *("<|eot_id|>", "<|start_header_id|>", "<|begin_of_text|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"),
    *("<|endoftext|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<pad>", "<unk>", "▁", "{{ x }}"),
    *("\u200b", "\u202e", "\x00", "é", "e\u0301", "日本語", "🙂", "\r\n", "   ", "\t"),
)
texts = st.lists(st.sampled_from(MARKUP) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=6)
texts = texts.map("".join)


def renderer_of(folder: Path) -> tuple[Renderer, set[int]]:
    """The student's renderer with that tokenizer, as training makes it, and the ids that no text may become."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chatml = build(compose_config("train").format)
    prepare_tokenizer(tokenizer, chatml, None)
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Renderer(tokenizer, chatml), special - {tokenizer.unk_token_id}  # any text may need the unknown token


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_markup(real_model: Callable[[str], Path], name: str) -> None:
    """Fails if a user's text can end a turn, or an answer is trained on with another mask than its own tokens."""
    renderer, control = renderer_of(real_model(name))
    usual = Counter(id for id in renderer.example("S", "U", "A").ids if id in control)
    assert usual[renderer.end_id] == 3, "system, user and answer each end"

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(system=texts, user=texts, answer=texts)
    def check(system: str, user: str, answer: str) -> None:
        prompt = renderer.prompt(system, user)
        example = renderer.example(system, user, answer if answer.strip() else "A")
        assert example.ids[: len(prompt)] == prompt and example.ids[-1] == renderer.end_id
        assert example.loss_mask == [False] * len(prompt) + [True] * (len(example.ids) - len(prompt))
        assert Counter(id for id in example.ids if id in control) == usual

    check()
