"""How long the examples of a source are: measured on a sample, or what a config states of a source elsewhere."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orca2.data.mixture import Mixture
from orca2.data.procedural import ProceduralSource
from orca2.data.rendered_rows import Rendered, RowRenderer
from orca2.data.validation_rows import ValidationSpec
from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.planning.plan import Assumptions
from orca2.planning.work import Lengths, StageOutline
from orca2.records import Example, Rejected
from orca2.rows.hub import HubSource, HubStream
from orca2.rows.source import MapSource, PreparedSource, Source, SurveyedSource, order_of
from orca2.strategies import StrategyChoice

BYTES_PER_TOKEN = 3.6
"""Ratio for English text in LLaMA-2's vocabulary: the middle of 3.1 to 4.2, ours. Used if the tokenizer is not here."""
MARKUP_TOKENS = 15
"""Markup of a ChatML example: three turns of two control tokens, a role and line breaks."""
TYPICAL_TOKENS = 475
"""Length of an example if only total tokens are stated: OpenOrca's, see conf/source/openorca.yaml."""
STATED_LABEL_SHARE = 0.5
"""Tokens that carry loss, where nothing is measured; ours. It moves the output layer's part of the arithmetic only."""
GENERATED = "\n  these rows are generated toy tasks for small students; source=… names your own data"
"""What a plan says of them, since they are the default of every model."""


@dataclass(frozen=True, kw_only=True)
class SourceToCome:
    """A source that is not made yet, in plans: another command writes it first."""

    name: str
    rows: int | None = None
    tokens_per_example: int | None = None

    @property
    def size(self) -> int:
        """Nobody knows it. Raises ConfigError."""
        raise ConfigError(f"source {self.name!r} is not made yet")

    def read(self, row: int, choice: StrategyChoice) -> Example | Rejected:
        """There is nothing to read. Raises ConfigError."""
        raise ConfigError(f"source {self.name!r} is not made yet, so it has no row {row}")


def is_elsewhere(source: Source) -> bool:
    """Whether reading one row may download, or is not possible yet."""
    if isinstance(source, Mixture):
        return any(is_elsewhere(member) for member in source.members.values())
    return isinstance(source, (HubSource, HubStream, SourceToCome))


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
    parts = _parts(source, choice, erasing, render, assumptions, seed) if rows is None and stated is None else None
    if elsewhere and parts is None:
        total = tokens or expected_tokens
        stated = stated or getattr(source, "tokens_per_example", None) or (None if total is None else TYPICAL_TOKENS)
        rows = rows or _stated_rows(source)
        if rows is None and stated is not None and expected_tokens is not None:
            rows = round(expected_tokens / stated)
    missing = [
        f"planning.{key}=…"
        for key, absent in (
            ("rows", rows is None and tokens is None),
            ("tokens_per_example", stated is None),
        )
        if elsewhere and parts is None and absent
    ]
    if missing:
        raise ConfigError(
            f"source {source.name!r} is not on this machine, and a plan downloads nothing: state "
            f"{' and '.join(missing)}"
        )
    if parts is not None:
        lengths, rows = _together(parts)
    elif stated is not None:
        lengths = _stated(stated)
        if isinstance(source, SourceToCome):
            lengths = replace(lengths, origin=f"{lengths.origin}; the set is not made yet")
    else:
        assert isinstance(source, MapSource)  # the only streams are on the hub
        lengths, counted = _sampled(source, choice, erasing, render, assumptions.sample_rows, seed)
        rows = counted if rows is None else round(rows * counted / source.size)
    if tokens is not None:
        rows, epochs = math.ceil(tokens / lengths.mean), 1
    assert rows is not None
    return StageOutline(name=name, rows=rows, epochs=epochs, lengths=lengths, tokens_per_step=tokens_per_step)


def with_validation(stage: StageOutline, source: Source, spec: ValidationSpec, by_tokens: bool) -> StageOutline:
    """The stage with the rows that `spec` holds out; one that ends `by_tokens` trains on as many others instead."""
    held_out = _held_out_rows(source, spec)
    rows = stage.rows if by_tokens else max(0, stage.rows - held_out)
    return replace(stage, rows=rows, validation_rows=held_out, validation_every_steps=spec.every_steps)


def _held_out_rows(source: Source, spec: ValidationSpec) -> int:
    """Held-out rows of all sources together; `spec` states those of one."""
    if isinstance(source, Mixture):
        return sum(_held_out_rows(member, spec) for member in source.members.values())
    return spec.rows


def _stated_rows(source: Source) -> int | None:
    """Rows of an epoch that a source elsewhere states of itself."""
    rows: int | None = getattr(source, "expected_rows", None) or getattr(source, "rows", None)
    return rows


def _parts(
    source: Source,
    choice: StrategyChoice,
    erasing: Erasing,
    render: RowRenderer | None,
    assumptions: Assumptions,
    seed: int,
) -> list[tuple[Lengths, int]] | None:
    """Lengths and rows of each member of a mixture that is elsewhere in part; members that are here are counted.

    None for any other source, for a mixture that does not take all of each member, and where a member elsewhere
    states too little.
    """
    if not isinstance(source, Mixture) or source.when_exhausted != "continue" or not is_elsewhere(source):
        return None
    parts = []
    for member in source.members.values():
        if not is_elsewhere(member):
            parts.append(_sampled(member, choice, erasing, render, assumptions.sample_rows, seed))
            continue
        rows, tokens = _stated_rows(member), getattr(member, "tokens_per_example", None)
        if rows is None or tokens is None:
            return None
        stated = _stated(tokens)
        parts.append((replace(stated, origin=f"{rows:,} rows of {member.name} of {stated.origin}"), rows))
    return parts


def _together(parts: Sequence[tuple[Lengths, int]]) -> tuple[Lengths, int]:
    """The lengths over the rows of all parts, and how many those are."""
    rows = sum(count for _, count in parts)
    tokens = sum(lengths.mean * count for lengths, count in parts)
    lengths = Lengths(
        mean=tokens / rows,
        mean_square=sum(lengths.mean_square * count for lengths, count in parts) / rows,
        label_share=sum(lengths.label_share * lengths.mean * count for lengths, count in parts) / tokens,
        origin="; ".join(lengths.origin for lengths, _ in parts),
    )
    return lengths, rows


def _stated(tokens: int) -> Lengths:
    # Of equal lengths, so a lower bound of attention, which is a few per cent of the arithmetic.
    origin = f"{tokens} tokens an example, as stated"
    return Lengths(mean=tokens, mean_square=tokens**2, label_share=STATED_LABEL_SHARE, origin=origin)


def _sampled(
    source: MapSource, choice: StrategyChoice, erasing: Erasing, render: RowRenderer | None, rows: int, seed: int
) -> tuple[Lengths, int]:
    """Lengths of a sample, and how many rows of an epoch are trained on: counted, except for the sample's share of
    broken and long ones.
    """
    if isinstance(source, PreparedSource):
        source.prepare()
    sampled = min(rows, source.size)
    counts = list(_measured(source, choice, erasing, render, sampled, seed))
    measured = [count for count in counts if count is not None]
    if not measured:
        raise ConfigError(f"none of {sampled} rows of source {source.name!r} can be trained on")
    surveyed = source.survey(choice).kept if isinstance(source, SurveyedSource) else None
    chosen = round(source.size * len(counts) / sampled) if surveyed is None else surveyed
    kept = round(chosen * len(measured) / len(counts))
    total = sum(tokens for tokens, _ in measured)
    how = "measured" if render is not None else f"estimated at {BYTES_PER_TOKEN} bytes a token (no tokenizer here)"
    lengths = Lengths(
        mean=total / len(measured),
        mean_square=sum(tokens**2 for tokens, _ in measured) / len(measured),
        label_share=sum(labels for _, labels in measured) / total,
        origin=f"{kept:,} of the {source.size:,} rows of {source.name} are trained on; {total / len(measured):,.0f} "
        f"tokens an example, {how} on {len(measured):,} of them{GENERATED if _is_generated(source) else ''}",
    )
    return lengths, kept


def _is_generated(source: Source) -> bool:
    members = source.members.values() if isinstance(source, Mixture) else [source]
    return any(isinstance(member, ProceduralSource) for member in members)


def _measured(
    source: MapSource, choice: StrategyChoice, erasing: Erasing, render: RowRenderer | None, rows: int, seed: int
) -> Iterator[tuple[float, float] | None]:
    """(tokens, label tokens) of each row that `choice` keeps among the first of an epoch; None: broken or too long."""
    for row in order_of(source, seed, 0).rows(0, rows).tolist():
        example = source.read(row, choice)
        if isinstance(example, Rejected):
            if example.kind != "left_out":
                yield None
            continue
        if render is None:
            answer = len(example.answer.encode()) / BYTES_PER_TOKEN
            prompt = (
                erasing.system(example, 0) + example.user + "".join(turn.user + turn.answer for turn in example.history)
            )
            yield len(prompt.encode()) / BYTES_PER_TOKEN + answer + MARKUP_TOKENS, answer + 1
        else:
            rendered = render(example, 0)
            info = rendered.info if isinstance(rendered, Rendered) else None
            yield None if info is None else (info.useful_tokens, info.label_tokens)
