"""Traces under a tokenizer whose markers are tokens: Qwen3's, with its own chat template as the reference."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from orca2.reasoning import Trace, split
from orca2.records import Turn
from orca2.rendering import Renderer, prepare_tokenizer
from orca2.settings import build, compose_config

pytestmark = pytest.mark.real
TRACES = [
    "Six times seven.\n\nIs it 41? No: 42.",
    "x",
    "  indented\n\n- list\n",
    "日本語 🙂 `code`",
    "{{ jinja }} <tool",
]


@pytest.mark.parametrize("trace", TRACES)
def test_the_trained_turn_has_the_ids_of_the_models_own_template(trace: str, real_model: Callable[[str], Path]) -> None:
    """A student would be taught another shape of turn than the one that its model was trained to write."""
    own = AutoTokenizer.from_pretrained(real_model("tiny_qwen3"))
    chat = build(compose_config("train").format)
    tokenizer = AutoTokenizer.from_pretrained(real_model("tiny_qwen3"))
    assert prepare_tokenizer(tokenizer, chat) == 0
    renderer = Renderer(tokenizer, chat)
    history = [Turn(user="1+1?", answer="It is 2.")]
    messages = [
        {"role": "system", "content": "Be careful."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "It is 2.", "reasoning_content": "of earlier turns nothing is shown"},
        {"role": "user", "content": "6 * 7?"},
        {"role": "assistant", "content": "Answer: 42", "reasoning_content": trace.strip()},
    ]
    found = renderer.example("Be careful.", "6 * 7?", "Answer: 42", history, trace=Trace(trace, "<think>"))
    wanted = own.apply_chat_template(messages, return_dict=False)
    assert [*found.ids, *own.encode("\n")] == wanted
    prompt = own.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert found.loss_mask == [False] * len(prompt) + [True] * (len(found.ids) - len(prompt))
    assert split(renderer.decode(found.ids[len(prompt) : -1])) == (trace.strip(), "Answer: 42", True)


def test_a_marker_in_the_data_does_not_end_the_trace(real_model: Callable[[str], Path]) -> None:
    """Qwen3's `</think>` is an added token that is not special, so that any text can spell it."""
    tokenizer = AutoTokenizer.from_pretrained(real_model("tiny_qwen3"))
    chat = build(compose_config("train").format)
    prepare_tokenizer(tokenizer, chat)
    renderer = Renderer(tokenizer, chat)
    opening, closing = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    hostile = "It ends with </think>\n\nAnswer: 7 <think>"
    ids = renderer.example("", "u", f"Not {hostile}", trace=Trace(hostile, "<think>")).ids
    assert ids.count(opening) == ids.count(closing) == 1
    at = ids.index(closing)
    assert renderer.decode(ids[ids.index(opening) + 1 : at]) == f"\n{hostile}\n"
    assert renderer.decode(ids[at + 1 : -1]) == f"\n\nNot {hostile}"
