"""Greedy generation with the Hugging Face model that is in memory, also in the middle of training.

    slots agree with the model's own attention -> continuous batching
    they do not (caps, sinks, state spaces)    -> one prompt at a time, by transformers' `generate`

Which of the two is found out by trying, once for each generator. The second is also the reference that tests hold
the first to.
"""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from orca2.errors import ModelError
from orca2.generation.choosing import Choice, ChosenOnly, first_ranks, greedy, lockstep
from orca2.generation.continuous import Finished, Waiting, answer_continuously
from orca2.generation.protocol import FinishReason, Generation
from orca2.generation.slots import SlotCache, Step, slot_attention_of
from orca2.modelling.attention import standard_attention
from orca2.modelling.windows import changing_positions, shrunk_windows

LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Difference of logits between slots and own attention, as a share of the largest logit; rounding is 1e-6."""
LARGEST_DIFFERENCE_HALF = 0.05
"""The same for 16-bit weights, whose rounding is near 0.01."""

_PROBES = ((5, 6, 7, 8, 9, 10, 11), (12, 13, 14))
"""Token ids; any vocabulary has them."""


class HFGenerator:
    """Generates with `model` as it is now, on the device and in the dtype (or autocast) it is in.

    The model's attention and its training mode are set for the call and restored after it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pad_id: int,
        end_ids: Collection[int],
        max_len: int,
        batch_tokens: int = 8_192,
        together: bool = False,
    ) -> None:
        """`max_len`: context in tokens. `batch_tokens`: what the cache has room for, prompts and answers together;
        more is faster until memory ends. `together`: every rank asks for the same, and all go on with the tokens of
        the first, whatever rounding would choose; a sharded model wants it.

        Raises `ModelError` without an end token: every answer would run to the limit.
        """
        if not end_ids:
            raise ModelError("generation needs at least one end token; give the tokenizer's end-of-turn id")
        self._model = model
        self._pad_id = pad_id
        self._end_ids = frozenset(end_ids)
        self._max_len = max_len
        self._batch_tokens = batch_tokens
        self._together = together
        self._choose: Choice = lockstep if together else greedy

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Generation]:
        """See `Generator`. A prompt that fills the context gets an empty answer with reason `length`."""
        answers = [Generation([], "length")] * len(prompts)
        rooms = [min(max_new_tokens, self._max_len - len(prompt)) for prompt in prompts]
        waiting = [Waiting(i, prompts[i], room) for i, room in enumerate(rooms) if room > 0]
        for finished in self.stream(waiting):
            answers[finished.index] = finished.generation
        return answers

    def stream(self, waiting: Sequence[Waiting]) -> Iterator[Finished]:
        """Greedy answers, each as soon as it ends."""
        with _evaluating(self._model):
            if self.batches:
                yield from answer_continuously(self._model, waiting, self._end_ids, self._batch_tokens, self._choose)
            else:
                yield from answer_one_by_one(self._model, waiting, self._end_ids, self._pad_id, self._choose)

    @cached_property
    def batches(self) -> bool:
        """Whether several prompts are answered at once."""
        with _evaluating(self._model):
            obstacle = slots_obstacle(self._model)
        batches = obstacle is None
        if self._together:  # the two ways differ in their forward passes, and a rounding could decide
            batches = first_ranks(batches, self._model.device)
        if not batches:
            reason = obstacle or "the first rank's logits differ over slots"
            logging.getLogger(__name__).warning("prompts are answered one by one: %s", reason)
        return batches


def answer_one_by_one(
    model: PreTrainedModel,
    waiting: Sequence[Waiting],
    end_ids: Collection[int],
    pad_id: int,
    choose: Choice = greedy,
) -> Iterator[Finished]:
    """The reference: transformers' `generate`, one prompt at a time, with the model's own attention and cache."""
    chosen = LogitsProcessorList([ChosenOnly(choose)])
    generate: Any = model.generate  # transformers' types hide its arguments
    with standard_attention(model):
        for one in waiting:
            began = time.monotonic()
            settings = GenerationConfig(
                do_sample=False,
                max_new_tokens=one.room,
                eos_token_id=sorted(end_ids),
                pad_token_id=pad_id,
                bos_token_id=None,
            )
            ids_1T = torch.tensor([one.prompt], device=model.device)
            with torch.no_grad():
                found = generate(
                    ids_1T,
                    attention_mask=torch.ones_like(ids_1T),
                    generation_config=settings,
                    logits_processor=chosen,
                )
            answer = found[0, len(one.prompt) :].tolist()
            reason: FinishReason = "stop" if answer[-1] in end_ids else "length"
            yield Finished(
                one.index, Generation(answer[:-1] if reason == "stop" else answer, reason), time.monotonic() - began
            )


def end_ids_of(model: PreTrainedModel) -> frozenset[int]:
    """The tokens that end an answer by the model's own account; chat models often name several."""
    ends = None if model.generation_config is None else model.generation_config.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def slots_obstacle(model: PreTrainedModel) -> str | None:
    """Why the model cannot be asked over slots, or None: two prompts and a token after the first are tried."""
    if changing := changing_positions(model.config):
        return f"its position embedding ({changing}) depends on the longest text that is asked at once"
    first, second = map(list, _PROBES)
    with torch.no_grad(), shrunk_windows(model):
        with standard_attention(model):
            wanted = [_logits(model, ids) for ids in (first[:-1], first, second)]
        try:
            with slot_attention_of(model):
                cache = SlotCache(2, len(first))
                length = len(first) - 1
                prompt = Step(cache, (), [length], model.device)
                mixed = Step(cache, [length], [len(second)], model.device)
                found = [
                    _logits(model, first[:-1], list(range(length)), prompt),
                    _logits(model, [first[-1], *second], [length, *range(len(second))], mixed),
                ]
        except (ModelError, TypeError, RuntimeError) as error:  # whatever a foreign attention makes of the layout
            return str(error).partition("\n")[0]
    got = torch.stack([found[0][-1], found[1][0], found[1][-1]])
    right = torch.stack([logits[-1] for logits in wanted])
    share = float((got - right).abs().max() / right.abs().max())
    largest = LARGEST_DIFFERENCE.get(model.dtype, LARGEST_DIFFERENCE_HALF)
    return None if share <= largest else f"{type(model).__name__} gives logits that differ by {share:.1%} over slots"


def _logits(
    model: PreTrainedModel, ids: list[int], positions: list[int] | None = None, step: Step | None = None
) -> Tensor:
    """fp32 [T, V]."""
    device = model.device
    more = {} if step is None else {"slots": step, "position_ids": torch.tensor([positions], device=device)}
    logits_1TV: Tensor = model(input_ids=torch.tensor([ids], device=device), use_cache=False, **more).logits
    return logits_1TV[0].float()


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
