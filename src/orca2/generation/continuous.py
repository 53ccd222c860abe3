"""Continuous batching: a row that has its answer leaves at once, and the next prompt comes in with the same step.

    step      1        2          3
    slot 0    prompt   a          a a        -> ends
    slot 1    prompt   b          b b
    slot 2    prompt   c -> ends  prompt     a waiting prompt; where none waits, the last row moves into the gap

So no row waits for the longest answer of its batch, and a step never computes a token that nobody reads.
"""

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from orca2.errors import ModelError
from orca2.generation.choosing import Choice
from orca2.generation.protocol import FinishReason, Generation
from orca2.generation.slots import SlotCache, Step, slot_attention_of

PROMPT_TOKENS = 4_096
"""Tokens of new prompts in one step, unless a single one is longer; ours, bounds the activations of a step."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A prompt that waits for a slot."""

    index: int
    """The caller's number of it."""
    prompt: list[int]
    room: int
    """Tokens that its answer may have; at least 1."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer, and how long it took from the step in which its prompt came in."""

    index: int
    generation: Generation
    seconds: float


@dataclass(slots=True)
class _Row:
    waiting: Waiting
    began: float
    answer: list[int] = field(default_factory=list)
    """Tokens so far, with the newest one, whose keys are not in the cache yet."""

    @property
    def cached(self) -> int:
        return len(self.waiting.prompt) + len(self.answer) - 1


def answer_continuously(
    model: PreTrainedModel, waiting: Sequence[Waiting], end_ids: Collection[int], batch_tokens: int, choose: Choice
) -> Iterator[Finished]:
    """Answers as they end, their tokens taken by `choose`. `batch_tokens` bounds what the cache has room for.

    Raises:
        ModelError: the model's family cannot attend over slots, or memory runs out.
    """
    with slot_attention_of(model):
        for wave in _waves(waiting):
            # The longest first: what does not fit into memory fails at once, not after an hour.
            room = max(len(one.prompt) + one.room for one in wave)
            slots = min(len(wave), max(1, batch_tokens // room))
            yield from _answer_wave(model, deque(wave), frozenset(end_ids), SlotCache(slots, room), choose)


def _waves(waiting: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """Sorted by length, and cut so that no slot is more than twice as large as what it holds needs."""
    wave: list[Waiting] = []
    for one in sorted(waiting, key=lambda one: (-len(one.prompt) - one.room, -len(one.prompt), one.index)):
        if wave and 2 * (len(one.prompt) + one.room) < len(wave[0].prompt) + wave[0].room:
            yield wave
            wave = []
        wave.append(one)
    if wave:
        yield wave


def _answer_wave(
    model: PreTrainedModel, waiting: deque[Waiting], end_ids: frozenset[int], cache: SlotCache, choose: Choice
) -> Iterator[Finished]:
    rows: list[_Row] = []
    while rows or waiting:
        new = _admitted(waiting, cache.slots - len(rows))
        tokens = _next_tokens(model, cache, rows, new, choose)
        rows += new
        for row, token in zip(rows, tokens, strict=True):
            row.answer.append(token)
        for slot in reversed(range(len(rows))):
            row = rows[slot]
            ended = row.answer[-1] in end_ids
            if not ended and len(row.answer) < row.waiting.room:
                continue
            last = rows.pop()
            if last is not row:
                cache.move(len(rows), slot, last.cached)
                rows[slot] = last
            reason: FinishReason = "stop" if ended else "length"
            answer = row.answer[:-1] if ended else row.answer
            yield Finished(row.waiting.index, Generation(answer, reason), time.monotonic() - row.began)


def _admitted(waiting: deque[Waiting], free: int) -> list[_Row]:
    """Rows for the prompts that come in now."""
    new: list[_Row] = []
    tokens = 0
    while waiting and len(new) < free and (not new or tokens + len(waiting[0].prompt) <= PROMPT_TOKENS):
        tokens += len(waiting[0].prompt)
        new.append(_Row(waiting.popleft(), time.monotonic()))
    return new


def _next_tokens(
    model: PreTrainedModel, cache: SlotCache, rows: list[_Row], new: list[_Row], choose: Choice
) -> list[int]:
    """The next token of every row, the new ones last: one forward pass."""
    ids = [row.answer[-1] for row in rows]
    positions = [row.cached for row in rows]
    step = Step(cache, tuple(positions), [len(row.waiting.prompt) for row in new], model.device)
    ends = list(range(len(rows)))
    for row in new:
        ids += row.waiting.prompt
        positions += range(len(row.waiting.prompt))
        ends.append(len(ids) - 1)
    try:
        # Not inference_mode: what a module caches in it, such as rotary tables, could not be trained with later.
        with torch.no_grad():
            logits_1BV = model(
                input_ids=torch.tensor([ids], device=model.device),
                position_ids=torch.tensor([positions], device=model.device),
                use_cache=False,
                slots=step,
                logits_to_keep=torch.tensor(ends, device=model.device) if new else 0,
            ).logits
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"out of memory with {len(rows) + len(new)} rows being answered at once; lower batch_tokens"
        ) from error
    found: list[int] = choose(logits_1BV[0]).tolist()
    return found
