"""The trace of a reasoning model is told from its answer, whatever markers it writes, and from talk about markers."""

import time

import pytest

from orca2.reasoning import MARKERS, Split, opening_at_end, split

TRACE = "First 7. Answer: 7? No: 6 * 7 is 42."
ANSWER = "It is 42.\n\nAnswer: 42"
HARMONY = (
    f"<|channel|>analysis<|message|>{TRACE}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
    f"<|start|>assistant<|channel|>analysis<|message|>{TRACE}<|end|>\n<|start|>assistant<|channel|>final"
    f"<|message|>{ANSWER}",
    f"analysis{TRACE}assistantfinal{ANSWER}",
)


@pytest.mark.parametrize(("opening", "closing"), MARKERS.items())
@pytest.mark.parametrize("form", ["{o}{t}{c}{a}", "{o}\n{t}\n{c}\n\n{a}", "\n {o} {t} {c} {a}\n", "{o}\n{t}\n{c}\n{a}"])
def test_marked_traces(opening: str, closing: str, form: str) -> None:
    """The wrong candidate of a trace would be read as the answer, and traces trained on as answers."""
    text = form.format(o=opening, t=TRACE, c=closing, a=ANSWER)
    assert split(text) == Split(TRACE, ANSWER)


@pytest.mark.parametrize(("opening", "closing"), MARKERS.items())
@pytest.mark.parametrize("form", ["{t}{c}{a}", "{t}\n{c}\n\n{a}", "\n{t} {c}\n{a}", "{c}\n{a}", "{t}\n{c}{a}"])
def test_the_prompt_has_opened_the_trace(opening: str, closing: str, form: str) -> None:
    """The templates of R1, QwQ and Qwen3-Thinking give the opening marker, so that only the closing one is written."""
    text = form.format(t=TRACE, c=closing, a=ANSWER)
    assert split(text) == Split(TRACE if "{t}" in form else "", ANSWER)


@pytest.mark.parametrize("text", HARMONY)
def test_channels(text: str) -> None:
    """gpt-oss has channels in the place of markers; servers may remove the control tokens between them."""
    assert split(text) == Split(TRACE, ANSWER)


def test_channels_beside_the_analysis() -> None:
    """A preamble is not the answer, and an answer without analysis has no trace."""
    call = "<|channel|>commentary<|message|>I plan.<|end|><|start|>assistant"
    assert split(f"<|channel|>analysis<|message|>a<|end|><|start|>assistant{call}<|channel|>final<|message|>b") == (
        "a\n\nI plan.", "b", True,
    )  # fmt: skip
    assert split("<|channel|>final<|message|>b<|return|>") == ("", "b", True)


@pytest.mark.parametrize("opening", MARKERS)
def test_a_trace_that_was_cut_off_has_no_answer(opening: str) -> None:
    """The candidates of half a trace would be scored, and trained on."""
    assert split(f"{opening}\nAnswer: 7") == ("Answer: 7", "", False)
    assert split("<|channel|>analysis<|message|>Answer: 7") == ("Answer: 7", "", False)


@pytest.mark.parametrize(
    "text",
    [
        "Answer: 42",
        "",
        " \n",
        "The tag `</think>` ends a trace. Answer: 42",
        'It writes "</think>" and then the answer.\n\nAnswer: 42',
        "Models write <think> first,\n</think>\nafter that. Answer: 42",
        "The </think> tag ends it. Answer: 42",
        "A template:\n```\nwhat was thought\n</think>\nwhat is said\n```\nAnswer: 42",
        "First I write\n<think>\na\n</think>\nas you asked.",
        "analysis is the first word of this answer",
        "The channel is called <|channel|>analysis.",
        "I think [the] rest is thinking</thinker>",
    ],
)
def test_talk_about_markers_is_an_answer(text: str) -> None:
    """An explanation of chat markup, by a model that does not reason, would lose its first half."""
    assert split(text) == Split("", text)


def test_a_trace_may_speak_about_its_markers() -> None:
    """Cut at the first mention, the rest of a trace would stand in the answer."""
    trace = "The user wants `</think>`, or '</think>', explained."
    assert split(f"<think>{trace}</think>It ends a trace.") == Split(trace, "It ends a trace.")
    assert split(f"{trace}\n</think>\n\nIt ends a trace.") == Split(trace, "It ends a trace.")
    assert split("<think>a</think>The marker `</think>` ends it.") == Split("a", "The marker `</think>` ends it.")
    assert split("<think>I may not write `</think>` yet") == ("I may not write `</think>` yet", "", False)


def test_traces_in_a_row_and_empty_ones() -> None:
    """Qwen3 writes an empty trace where thinking is switched off; some students open a second one."""
    assert split("<think>\n\n</think>\n\n42") == Split("", "42")
    assert split("<think>a</think>\n<think>b</think>\n42") == Split("a\n\nb", "42")
    assert split("<think>a</think>\n<think>b") == ("a\n\nb", "", False)
    assert split("<think>a</think>") == Split("a", "")


def test_an_answer_in_a_wrapper() -> None:
    """R1-Zero's template and OpenThoughts mark the answer as well; without a trace such markup is the answer's own."""
    assert split("<think>a</think> <answer> 42 </answer>") == Split("a", "42")
    assert split("<think>a</think>Either <answer>42</answer>") == Split("a", "Either <answer>42</answer>")
    wrapped = "<|begin_of_thought|>\n\na\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n42\n\n<|end_of_solution|>"
    assert split(wrapped) == Split("a", "42")
    assert split("<answer>42</answer>") == Split("", "<answer>42</answer>")


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 40_000,
        "`</think>` " * 40_000,
        "<think>" + "`</think>`" * 40_000,
        "<think>a</think>" * 40_000,
        " </think> x" * 40_000,
        " </think>" + " " * 400_000 + "x",
        "<|channel|>" + "a" * 400_000,
        "<|channel|>analysis " * 40_000,
        "analysis" + "assistant" * 40_000,
        "```" * 100_000,
        "<think>a</think>" + "<answer>" * 40_000,
        " " * 400_000,
    ],
    ids=lambda text: text[:12],
)
def test_time_is_linear(text: str) -> None:
    """Models that repeat themselves write such texts; a pattern that goes back over them takes minutes."""
    start = time.process_time()
    split(text)
    assert time.process_time() - start < 1


def test_traces_that_stand_apart() -> None:
    """A server's trace would be said twice, or an answer about markers lose its head."""
    assert split("42", " a ") == Split("a", "42")
    assert split("<think>a</think>42", "a") == Split("a", "42")
    assert split("<think>b</think>42", "a") == Split("a\n\nb", "42")
    assert split("It ends with\n</think>\nand so on", "a") == Split("a", "It ends with\n</think>\nand so on")
    assert split("", "a") == Split("a", "")


def test_prompts_that_open_a_trace() -> None:
    """An answer to such a prompt that meets its limit shows no marker, and would be read as an answer."""
    assert opening_at_end("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opening_at_end("<|im_start|>assistant\n<think>\n\n</think>\n\n") == ""
    assert opening_at_end("<|im_start|>assistant\n") == opening_at_end("") == ""
