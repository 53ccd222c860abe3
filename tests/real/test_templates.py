"""The exported chat template on real tokenizers: ids and masks as in training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from orca2.records import Turn
from orca2.rendering import ChatFormat, Renderer, prepare_tokenizer
from orca2.settings import build, compose_config

NAMES = ("smollm2", "tiny_llama2", "tiny_llama3", "tiny_qwen3", "tiny_gemma3", "tiny_deepseek_v3")


@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
def test_assistant_masks_are_the_masks_of_training(name: str, real_model: Callable[[str], Path]) -> None:
    """Fails if another trainer, by the markers of the template, puts the loss on other tokens than this project."""
    chatml: ChatFormat = build(compose_config("train").format)
    tokenizer = AutoTokenizer.from_pretrained(real_model(name))
    prepare_tokenizer(tokenizer, chatml, "Be careful.")
    turns = [
        ("What is 12 + 3?", "It is 15.\n\n15 = 12 + 3."),
        ("naïve 日本語 🙂?", "It is: 日本語 🙂\n\n  Indented."),
        ("Why?", "1"),
    ]
    messages = [{"role": "system", "content": "Be brief."}]
    for user, answer in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    found: Any = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    history = [Turn(user=user, answer=answer) for user, answer in turns[:-1]]
    expected = Renderer(tokenizer, chatml).example("Be brief.", *turns[-1], history, loss_on_history=True)
    assert found["input_ids"] == expected.ids
    assert [bool(each) for each in found["assistant_masks"]] == expected.loss_mask
