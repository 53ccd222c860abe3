"""Chat markup in answers: what is cut, what is rejected, and what is a text about markup."""

import time

import pytest

from orca2.serving.markup import END_OF_TURN, clean


@pytest.mark.parametrize("marker", END_OF_TURN)
def test_an_end_of_turn_at_the_end_is_cut(marker: str) -> None:
    """A student would learn to write the teacher's markup."""
    assert clean(f"Answer: 4 {marker}\n") == ("Answer: 4", "")
    assert clean(f"Answer: 4{marker}{marker}") == ("Answer: 4", "")


@pytest.mark.parametrize(
    "text",
    [
        "Answer: 4<|im_end|>\n<|im_start|>user\nAnd 5?",
        "Answer: 4<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd 5?",
        "Answer: 4<end_of_turn>\n<start_of_turn>user\nAnd 5?",
        "Answer: 4</s>[INST] And 5? [/INST]",
        "Answer: 4<｜end▁of▁sentence｜><｜User｜>And 5?",
    ],
)
def test_turns_that_are_not_the_models_own_are_cut(text: str) -> None:
    """Fails if a whole answer is lost, or the question behind it kept, because a server does not stop."""
    assert clean(text) == ("Answer: 4", "")


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("<|channel|>analysis<|message|>2 + 2. Answer: 4", "<|channel|>"),
        ("Answer: <|im_end|> 4", "<|im_end|>"),
        ("<|im_start|>assistant\nAnswer: 4", "<|im_start|>"),
        ("[INST] 2 + 2? [/INST] Answer: 4", "[INST]"),
    ],
)
def test_markup_inside_is_named(text: str, marker: str) -> None:
    """Fails if an answer whose parts nobody can tell apart is kept."""
    assert clean(text) == (text, marker)


@pytest.mark.parametrize(
    "text",
    [
        "ChatML ends a turn with `<|im_end|>`.",
        "The token \"<|eot_id|>\" ends a turn; write '<|im_start|>' before it.",
        "```\n<|im_start|>user\nHi<|im_end|>\n```\nis a turn.",
        "HTML strikes <s>this</s> out, and <s>that</s>",
        "a < b | c > d, x <= y, <b>bold</b>, vector[INSTANCE]",
    ],
)
def test_a_text_about_markup_is_kept(text: str) -> None:
    """Fails if answers about chat formats, HTML or code are cut or thrown away."""
    assert clean(text) == (text, "")


def test_markup_that_the_question_names_is_kept() -> None:
    """Fails if the right answer to a question about a marker is lost."""
    text = "The turn ends at <|im_end|>"
    assert clean(text, "Which token ends the turn in Hi<|im_end|>?") == (text, "")
    assert clean(text, "Which token ends the turn?") == ("The turn ends at", "")


def test_long_texts_take_linear_time() -> None:
    """Fails if one hostile answer holds up all others."""
    for text in ("</s> a" * 200_000, "`<|im_end|>`" * 100_000, "</s>" + " " * 1_000_000 + "x", "</s>   x" * 100_000):
        began = time.perf_counter()
        clean(text, "x" * 100_000)
        assert time.perf_counter() - began < 2
