"""`backend=lm_eval`: any model class of lm-evaluation-harness, such as `sglang`, `gguf` or its own `hf`.

`student=` becomes its `pretrained`. Only the model is lm-eval's: prompts are those of `backend=hf`, as text, and
reading and scores stay ours.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from transformers import PreTrainedTokenizerBase

from orca2.errors import ConfigError, ModelError
from orca2.generation.protocol import Backend, Chat, ChatReply, Format, StudentFiles
from orca2.generation.students import find_student
from orca2.generation.tokens import PromptRenderer, load_renderer


@dataclass(frozen=True, kw_only=True)
class LmEvalSpec:
    """A model of lm-eval, asked greedily through `generate_until`.

    Raises:
        ConfigError: `open` raises it where lm-eval is not installed, or knows no such model.
    """

    name: str
    model: str
    """The model's name in lm-eval's registry."""
    model_args: Mapping[str, Any]
    """Further arguments of its class, such as `batch_size`."""
    batch_prompts: int
    """Prompts per call; what a crash can lose."""

    def __post_init__(self) -> None:
        if self.batch_prompts < 1:
            raise ConfigError(f"backend.batch_prompts = {self.batch_prompts}: must be at least 1")
        if "trust_remote_code" in self.model_args:
            raise ConfigError("backend.model_args.trust_remote_code would run the model's own code; remove it")

    def find(self, student: str | None) -> StudentFiles:
        return find_student(student)

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        try:
            from lm_eval.api.registry import get_model
        except ImportError as error:
            raise ConfigError(
                "backend=lm_eval needs the package lm-eval: pip install 'orca2-lightning[lm-eval]'"
            ) from error
        try:
            kind: Any = get_model(self.model)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"backend.model = {self.model!r}: lm-eval knows no such model") from error
        renderer = load_renderer(student, format)
        try:
            lm = kind(pretrained=student.location, **self.model_args)
        except TypeError as error:
            raise ConfigError(f"backend.model_args do not fit lm-eval's {self.model!r}: {error}") from error
        identity = {
            "backend": f"lm_eval/{self.model}",
            "student": student.fingerprint,
            "model_args": repr(sorted(self.model_args.items())),
        }
        yield LmEvalBackend(lm, renderer, identity, self.batch_prompts)


class LmEvalBackend:
    """See `Backend`. `lm` is an `lm_eval.api.model.LM`."""

    def __init__(self, lm: Any, renderer: PromptRenderer, identity: Mapping[str, str], batch_prompts: int) -> None:
        self._lm = lm
        self._renderer = renderer
        self._batch_prompts = batch_prompts
        self.identity = {key: str(value) for key, value in renderer.identity.items()} | dict(identity)
        self.context: int | None = getattr(lm, "max_length", None)

    def prompt_tokens(self, chat: Chat) -> int:
        return len(self._renderer.prompt(chat.system, chat.user, chat.history))

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        """Ask in calls of `batch_prompts`: lm-eval gives nothing back before all of a call is done.

        lm-eval cuts the beginning off a prompt that is too long; such a one is answered with the empty text here.
        """
        indexes = list(range(len(chats)))
        for start in range(0, len(chats), self._batch_prompts):
            yield from self._answer(chats, indexes[start : start + self._batch_prompts])

    def _answer(self, chats: Sequence[Chat], indexes: Sequence[int]) -> Iterator[tuple[int, ChatReply]]:
        from lm_eval.api.instance import Instance

        ids = {i: self._renderer.prompt(chats[i].system, chats[i].user, chats[i].history) for i in indexes}
        prompts = {index: self._renderer.decode_marked(prompt) for index, prompt in ids.items()}
        lengths = {index: len(prompt) for index, prompt in ids.items()}
        rooms = {
            index: min(chats[index].max_new_tokens, (self.context or 2**31) - length)
            for index, length in lengths.items()
        }
        altered = {index for index in indexes if not self._arrives_whole(prompts[index], ids[index])}
        if altered:
            logging.getLogger(__name__).warning(
                "%d prompts hold the text of a control token, which lm-eval would send as the token; not asked",
                len(altered),
            )
        asked = [index for index in indexes if rooms[index] > 0 and index not in altered]
        requests = [
            Instance(
                request_type="generate_until",
                doc={},
                arguments=(prompts[index], {"until": [], "do_sample": False, "max_gen_toks": rooms[index]}),
                idx=index,
            )
            for index in asked
        ]
        began = monotonic()
        try:
            texts = self._lm.generate_until(requests, disable_tqdm=True) if requests else []
        except Exception as error:  # foreign code on foreign models raises what it likes
            raise ModelError(f"lm-eval's model failed: {type(error).__name__}: {error}") from error
        answered = dict(zip(asked, texts, strict=True))
        for index in indexes:
            text = answered.get(index, "")
            tokens = self._count(text) if text else 0
            yield (
                index,
                ChatReply(
                    text=text,
                    # lm-eval does not say why an answer ended.
                    finish_reason="refused" if index in altered else "length" if tokens >= rooms[index] else "stop",
                    prompt=prompts[index],
                    prompt_tokens=lengths[index],
                    answer_tokens=tokens,
                    seconds=monotonic() - began,
                ),
            )

    def _arrives_whole(self, prompt: str, ids: list[int]) -> bool:
        """Whether lm-eval makes the same tokens of a prompt; True where it does not show a local tokenizer."""
        if not isinstance(getattr(self._lm, "tokenizer", None), PreTrainedTokenizerBase):
            return True
        return list(self._lm.tok_encode(prompt, add_special_tokens=False)) == ids

    def _count(self, text: str) -> int:
        """Tokens of an answer; 0 where the model does not show its tokenizer."""
        return len(self._lm.tok_encode(text, add_special_tokens=False)) if hasattr(self._lm, "tok_encode") else 0
