"""What was read out of an answer: its parts, and the rule that found them."""

from typing import NamedTuple


class Extraction(NamedTuple):
    """What was read out of an answer."""

    value: tuple[str, ...]
    """The answer's parts; empty where nothing could be read."""
    ok: bool
    """Format-OK: exactly one final answer of the right form was found. False means wrong."""
    rule: str
    """Name of the rule that decided, such as `marker`, `boxed`, `none` or `conflict`."""
    span: tuple[int, int] | None = None
    """Character span of the value in the text."""


NOTHING = Extraction((), False, "none")
