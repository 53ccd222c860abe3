"""What a terminal is sent of text that a model or a data set wrote."""

import io

import pytest
from rich.console import Console

from orca2.display import example_panels, token_text
from orca2.erasing import Erasing
from orca2.errors import DataError
from orca2.records import Example, Tokens
from orca2.rendering.renderer import Renderer
from orca2.settings import build, compose_config
from orca2.terminal import visible

RECOLOURED = "red \x1b[31m, a title \x1b]0;owned\x07, C1 \x9b2J, turned \u202etxet\u202c, rewritten \r, nul \x00"


def test_control_characters_are_shown() -> None:
    """Fails if a terminal obeys what an answer says."""
    assert visible(RECOLOURED) == (
        "red ␛[31m, a title ␛]0;owned␇, C1 \\x9b2J, turned \\u202etxet\\u202c, rewritten ␍, nul ␀"
    )
    assert visible("one\n\ttwo é 数 🙂") == "one\n\ttwo é 数 🙂"
    assert visible(visible(RECOLOURED)) == visible(RECOLOURED)


def test_errors_show_what_they_quote() -> None:
    """A message that quotes a row must not send its control characters to the terminal."""
    assert str(DataError(f"row 3: {RECOLOURED}")) == f"row 3: {visible(RECOLOURED)}"
    assert str(DataError()) == ""


def test_examples_are_shown_without_control_characters(tiny_renderer: Renderer) -> None:
    """Fails if `show.py` obeys a data set."""
    example = Example(
        id=RECOLOURED,
        source="s",
        task=RECOLOURED,
        strategy="direct",
        system=RECOLOURED,
        user=RECOLOURED,
        answer=RECOLOURED,
        teacher="t",
    )
    erasing: Erasing = build(compose_config("show").erasing)
    printed = io.StringIO()
    Console(file=printed, width=100).print(example_panels(example, erasing, tiny_renderer))
    assert not set(printed.getvalue()) & set("\x1b\x07\x9b\u202e\r\x00")
    ids = tiny_renderer.example("", RECOLOURED, "4").ids
    assert "␛" in token_text(Tokens(ids, [False] * len(ids)), tiny_renderer).plain


@pytest.fixture
def tiny_renderer() -> Renderer:
    """The renderer of the demo's student."""
    from orca2.modelling.build import build_tokenizer

    config = compose_config("show")
    return Renderer(build_tokenizer(build(config.model), build(config.format)), build(config.format))
