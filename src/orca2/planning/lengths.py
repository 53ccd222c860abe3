"""How long the examples of a source are: measured on a sample, or what a config states of a source elsewhere."""

import math
from collections.abc import Iterator

from orca2.data.hub import HubSource, HubStream
from orca2.data.mixture import Mixture
from orca2.data.rows import Rendered, RowRenderer
from orca2.data.source import MapSource, PreparedSource, Source, order_of
from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.planning.plan import Assumptions
from orca2.planning.work import Lengths, StageOutline
from orca2.records import Example
from orca2.strategies import StrategyChoice

BYTES_PER_TOKEN = 3.6
"""Of English text in LLaMA-2's vocabulary: the middle of 3.1 to 4.2, ours. Only where the tokenizer is not here."""
MARKUP_TOKENS = 15
"""Of a ChatML example: three turns of two control tokens, a role and line breaks."""
TYPICAL_TOKENS = 475
"""Of an example, where only tokens are stated: as of OpenOrca, see conf/source/openorca.yaml."""
STATED_LABEL_SHARE = 0.5
"""Tokens that carry loss, where nothing is measured; ours. It moves the output layer's part of the arithmetic only."""


def is_elsewhere(source: Source) -> bool:
    """Whether reading one row may download."""
    if isinstance(source, Mixture):
        return any(is_elsewhere(member) for member in source.members.values())
    return isinstance(source, (HubSource, HubStream))


def outline(
    name: str,
    source: Source,
    choice: StrategyChoice,
    erasing: Erasing,
    render: RowRenderer | None,
    epochs: float,
    tokens_per_step: int,
    assumptions: Assumptions,
    seed: int = 0,
    expected_tokens: int | None = None,
    tokens: int | None = None,
) -> StageOutline:
    """One stage, from its source. `render` is None where the tokenizer is not on this machine.

    `expected_tokens`: of an epoch, as stated by a stage whose source is elsewhere and does not say its rows.
    `tokens`: after which the stage ends, instead of `epochs`, however many rows its source has.
    Raises `ConfigError` for a source elsewhere of which nothing is stated, and `DataError` for one that cannot be
    read.
    """
    rows, stated = assumptions.rows, assumptions.tokens_per_example
    elsewhere = is_elsewhere(source)
    if elsewhere:
        total = tokens or expected_tokens
        stated = stated or getattr(source, "tokens_per_example", None) or (None if total is None else TYPICAL_TOKENS)
        rows = rows or getattr(source, "rows", None)
        if rows is None and stated is not None and expected_tokens is not None:
            rows = round(expected_tokens / stated)
    else:
        rows = rows or source.size
    missing = [
        f"planning.{key}=…"
        for key, absent in (
            ("rows", rows is None and tokens is None),
            ("tokens_per_example", elsewhere and stated is None),
        )
        if absent
    ]
    if missing:
        raise ConfigError(
            f"source {source.name!r} is not on this machine, and a plan downloads nothing: state "
            f"{' and '.join(missing)}"
        )
    if stated is not None:
        lengths, kept = _stated(stated), 1.0
    else:
        assert isinstance(source, MapSource)  # the only streams are on the hub
        lengths, kept = _sampled(source, choice, erasing, render, assumptions.sample_rows, seed)
    if tokens is not None:
        rows, kept, epochs = math.ceil(tokens / lengths.mean), 1.0, 1
    assert rows is not None
    return StageOutline(
        name=name, rows=round(rows * kept), epochs=epochs, lengths=lengths, tokens_per_step=tokens_per_step
    )


def _stated(tokens: int) -> Lengths:
    # Of equal lengths, so a lower bound of attention, which is a few per cent of the arithmetic.
    origin = f"{tokens} tokens an example, as stated"
    return Lengths(mean=tokens, mean_square=tokens**2, label_share=STATED_LABEL_SHARE, origin=origin)


def _sampled(
    source: MapSource, choice: StrategyChoice, erasing: Erasing, render: RowRenderer | None, rows: int, seed: int
) -> tuple[Lengths, float]:
    """Lengths of a sample, and the share of its rows that are trained on."""
    if isinstance(source, PreparedSource):
        source.prepare()
    rows = min(rows, source.size)
    counts = list(_measured(source, choice, erasing, render, rows, seed))
    if not counts:
        raise ConfigError(f"none of {rows} rows of source {source.name!r} can be trained on")
    total, kept = sum(tokens for tokens, _ in counts), len(counts) / rows
    how = "measured" if render is not None else f"estimated at {BYTES_PER_TOKEN} bytes a token (no tokenizer here)"
    lengths = Lengths(
        mean=total / len(counts),
        mean_square=sum(tokens**2 for tokens, _ in counts) / len(counts),
        label_share=sum(labels for _, labels in counts) / total,
        origin=f"{total / len(counts):,.0f} tokens an example, {how} on {rows:,} rows of {source.name}, of which "
        f"{kept:.0%} are trained on",
    )
    return lengths, kept


def _measured(
    source: MapSource, choice: StrategyChoice, erasing: Erasing, render: RowRenderer | None, rows: int, seed: int
) -> Iterator[tuple[float, float]]:
    """(tokens, label tokens) of the first rows of the first epoch that are kept."""
    for row in order_of(source, seed, 0).rows(0, rows).tolist():
        example = source.read(row, choice)
        if not isinstance(example, Example):
            continue
        if render is None:
            answer = len(example.answer.encode()) / BYTES_PER_TOKEN
            prompt = (
                erasing.system(example, 0) + example.user + "".join(turn.user + turn.answer for turn in example.history)
            )
            yield len(prompt.encode()) / BYTES_PER_TOKEN + answer + MARKUP_TOKENS, answer + 1
        else:
            rendered = render(example, 0)
            if isinstance(rendered, Rendered):
                yield rendered.info.useful_tokens, rendered.info.label_tokens
