"""The chat template that an exported student carries, read by transformers as others read it."""

from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from orca2.records import Turn
from orca2.rendering import ChatFormat, Renderer

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is 12+3?"}
AGAIN = {"role": "user", "content": " Why?"}
LAST = {"role": "assistant", "content": "Because 12+3 is 15."}


def ids(tokenizer: PreTrainedTokenizerFast, *messages: dict[str, Any], **more: Any) -> list[int]:
    found: list[int] = tokenizer.apply_chat_template(list(messages), return_dict=False, **more)
    return found


def test_a_developer_speaks_as_the_system(prepared: PreTrainedTokenizerFast) -> None:
    """Fails if a client of newer servers, which say `developer`, gets an error or the default message."""
    assert ids(prepared, {**SYSTEM, "role": "developer"}, USER) == ids(prepared, SYSTEM, USER)


def test_contents_are_read_in_each_form(prepared: PreTrainedTokenizerFast) -> None:
    """Fails if null becomes the word "None", or a list of parts its Python text."""
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "12+3?"}]
    assert ids(prepared, SYSTEM, {**USER, "content": parts}) == ids(
        prepared, SYSTEM, {**USER, "content": "What is\n12+3?"}
    )
    assert ids(prepared, {**SYSTEM, "content": [parts[0]]}, USER) == ids(
        prepared, {**SYSTEM, "content": "What is"}, USER
    )
    for nothing in (None, []):
        assert ids(prepared, SYSTEM, {**USER, "content": nothing}) == ids(prepared, SYSTEM, {**USER, "content": ""})


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "tool", "content": "4"}, "trained without tools: give their results in a message by user"),
        ({"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}, "trained without tools"),
        ({"role": "developer", "content": "x"}, "others by user or assistant"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "only parts of type text"),
        ({"role": "user", "content": {"text": "x"}}, "not a mapping"),
    ],
)
def test_what_no_student_was_trained_on_is_an_error(
    prepared: PreTrainedTokenizerFast, turn: dict[str, Any], message: str
) -> None:
    """Fails if a prompt holds what no student has seen, or leaves a part of the message out in silence."""
    with pytest.raises(TemplateError, match=message):
        ids(prepared, USER, turn)


def test_tools_are_refused(prepared: PreTrainedTokenizerFast) -> None:
    """Fails if a caller's tools vanish without a word."""
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    with pytest.raises(TemplateError, match="trained without tools"):
        ids(prepared, USER, tools=[tool])


def test_assistant_masks_are_the_masks_of_training(prepared: PreTrainedTokenizerFast, chatml: ChatFormat) -> None:
    """Fails if TRL's `assistant_only_loss` trains other tokens than this project, such as no end of a turn."""
    found: Any = prepared.apply_chat_template(
        [SYSTEM, USER, {"role": "assistant", "content": "It is 15."}, AGAIN, LAST],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    history = [Turn(user=USER["content"], answer="It is 15.")]
    expected = Renderer(prepared, chatml).example(
        SYSTEM["content"], AGAIN["content"], LAST["content"], history, loss_on_history=True
    )
    assert found["input_ids"] == expected.ids
    assert [bool(each) for each in found["assistant_masks"]] == expected.loss_mask
    assert sum(expected.loss_mask) > 6
