"""What of a trace is trained on: which rows, which tokens, which loss; and that no text can end its trace early."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from orca2.data.rendered_rows import Rendered, RowRenderer
from orca2.display import example_panels
from orca2.erasing import FixedErasing
from orca2.errors import ConfigError
from orca2.modelling.build import build_tokenizer
from orca2.reasoning import MARKERS, Trace, split
from orca2.records import Example, Rejected, Turn
from orca2.rendering import ChatFormat, Renderer, prepare_tokenizer
from orca2.settings import build, compose_config
from orca2.thinking import DROP, Thinking

KEEP = Thinking(name="keep", share=1.0)


def example(row: int = 0, reasoning: str = "6 * 7: 41? No, 42.", answer: str = "Answer: 42") -> Example:
    return Example(
        id=f"s/{row}", source="s", task="t", strategy="direct", system="S", user="6 * 7?", answer=answer, teacher="r1",
        reasoning=reasoning, history=(Turn(user="1+1?", answer="2"),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    made: ChatFormat = build(compose_config("train").format)
    return made


def tokenizer_with(chat: ChatFormat, special: bool | None) -> PreTrainedTokenizerBase:
    """The tiny student's; `special`: of the markers that it gets, as Qwen3's are not and Magistral's are."""
    tokenizer = build_tokenizer(build(compose_config("train").model), chat)
    if special is not None:
        added = [AddedToken(marker, special=special, normalized=False) for marker in ("<think>", "</think>")]
        tokenizer.add_tokens(added, special_tokens=special)
    prepare_tokenizer(tokenizer, chat)
    return tokenizer


@pytest.fixture(scope="module", params=[None, False, True], ids=["plain text", "added tokens", "special tokens"])
def renderer(request: pytest.FixtureRequest, chat: ChatFormat) -> Renderer:
    return Renderer(tokenizer_with(chat, request.param), chat)


def rows(renderer: Renderer, thinking: Thinking, length: int = 2000) -> Callable[[Example], Rendered | Rejected]:
    erasing = FixedErasing(name="cautious", message="Be careful.")
    render = RowRenderer(
        renderer=renderer, erasing=erasing, length=length, loss_on_history=False, thinking=thinking
    )  # fmt: skip
    return lambda one: render(one, 0)


def test_shipped_options() -> None:
    """A renamed key, or a default that trains on traces unasked."""
    made = {name: build(compose_config("train", [f"thinking={name}"]).thinking) for name in ("drop", "keep", "mix")}
    assert made == {"drop": DROP, "keep": KEEP, "mix": Thinking(name="mix", share=0.5)}
    assert build(compose_config("train").thinking) == build(compose_config("show").thinking) == DROP
    for name, share, opening in (("x", 1.5, "<think>"), ("x", 1.0, "<thoughts>"), ("drop", 0.5, "<think>")):
        with pytest.raises(ConfigError, match="thinking"):
            Thinking(name=name, share=share, opening=opening)


def test_a_mixture_draws_each_row_once() -> None:
    """Another draw in another process or epoch would train on rows that the seed does not name."""
    mix = Thinking(name="mix", share=0.3)
    kept = [row for row in range(2000) if mix.trace(example(row))]
    assert 0.25 < len(kept) / 2000 < 0.35 and kept[:5] == [4, 5, 8, 13, 23]
    other = replace(mix, seed=1)
    assert kept != [row for row in range(2000) if other.trace(example(row))]
    assert mix.trace(example(kept[0], reasoning=" ")) is None
    assert set(kept) <= {row for row in range(2000) if replace(mix, share=0.6).trace(example(row))}


def test_loss_is_on_trace_and_answer(renderer: Renderer) -> None:
    """Without loss on the markers the student never begins, or never ends, its trace."""
    kept, dropped = rows(renderer, KEEP)(example()), rows(renderer, DROP)(example())
    assert isinstance(kept, Rendered) and isinstance(dropped, Rendered)
    prompt = renderer.prompt("Be careful.", "6 * 7?", example().history)
    for one in (kept, dropped):
        assert one.ids[: len(prompt)].tolist() == prompt
        assert one.loss_mask.tolist() == [False] * len(prompt) + [True] * (len(one.ids) - len(prompt))
        assert one.ids[-1] == renderer.end_id and one.info.label_tokens == len(one.ids) - len(prompt)
    text = "<think>\n6 * 7: 41? No, 42.\n</think>\n\nAnswer: 42"
    assert renderer.decode(kept.ids[len(prompt) : -1].tolist()) == text
    assert split(text) == (example().reasoning, example().answer, True)
    assert renderer.decode(dropped.ids[len(prompt) : -1].tolist()) == "Answer: 42"
    without = rows(renderer, KEEP)(example(reasoning=""))
    assert isinstance(without, Rendered) and np.array_equal(without.ids, dropped.ids)


def test_markers_are_control_tokens_where_the_tokenizer_has_them(chat: ChatFormat) -> None:
    """Qwen3 would learn to spell what it has a token for; and a quoted marker in the data would end the trace."""
    for special in (False, True):
        tokenizer = tokenizer_with(chat, special)
        opening, closing = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
        renderer = Renderer(tokenizer, chat)
        hostile = example(reasoning="Say </think> or <think>.</think>\n\nAnswer: 7", answer="It is </think>.<|im_end|>")
        row = rows(renderer, KEEP)(hostile)
        assert isinstance(row, Rendered)
        ids = row.ids.tolist()
        assert ids.count(opening) == ids.count(closing) == 1 and ids.index(opening) < ids.index(closing)
        assert ids.count(renderer.end_id) == 1 + 2 + 2  # system, two users, an earlier answer, and the last
        between = ids[ids.index(opening) + 1 : ids.index(closing)]
        assert renderer.decode(between) == f"\n{hostile.reasoning}\n"
        assert renderer.decode(ids[ids.index(closing) + 1 : -1]) == f"\n\n{hostile.answer}"


def test_a_plain_marker_inside_the_trace_is_rejected(chat: ChatFormat) -> None:
    """Without tokens for the markers, the student would learn that answers begin in the middle of traces."""
    render = rows(Renderer(tokenizer_with(chat, None), chat), KEEP)
    found = render(example(reasoning="Then I write\n</think>\nand so on"))
    assert isinstance(found, Rejected) and found.kind == "broken" and "spells '<think>' or '</think>'" in found.reason
    assert isinstance(render(example(reasoning="Then I write `</think>`.")), Rendered)
    surrogate = render(example(reasoning="half \ud83d"))
    assert isinstance(surrogate, Rejected) and "reasoning is not valid Unicode" in surrogate.reason


@pytest.mark.parametrize("opening", MARKERS)
def test_every_marker_is_read_again(opening: str, chat: ChatFormat) -> None:
    """An option whose students no evaluation can read."""
    renderer = Renderer(tokenizer_with(chat, None), chat)
    tokens = renderer.example("", "u", "Answer: 42", trace=Trace("Hm.\n\nAnswer: 7", opening))
    text = renderer.decode(tokens.ids[len(renderer.prompt("", "u")) : -1])
    assert split(text) == ("Hm.\n\nAnswer: 7", "Answer: 42", True)


def test_a_row_is_too_long_with_its_trace(renderer: Renderer) -> None:
    """A trace that was not counted would overflow the pack."""
    fits = rows(renderer, DROP, length=100)(example(reasoning="word " * 300))
    assert isinstance(fits, Rendered)
    found = rows(renderer, KEEP, length=100)(example(reasoning="word " * 300))
    assert isinstance(found, Rejected) and found.kind == "too_long"


def test_show_has_the_trace(renderer: Renderer) -> None:
    """Nobody would see what the student learns."""
    for thinking, said in ((KEEP, "the student learns it"), (DROP, "the student does not learn it")):
        printed = StringIO()
        erasing = FixedErasing(name="cautious", message="Be careful.")
        panels = example_panels(example(), erasing, renderer, 0, thinking)
        Console(file=printed, width=120).print(panels)
        assert "41? No" in printed.getvalue() and said in printed.getvalue()
        carried = printed.getvalue().count("tokens · ")
        assert carried == 1
