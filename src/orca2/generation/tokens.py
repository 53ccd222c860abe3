"""Backends that speak token ids: chats are rendered here, answered by a model, and decoded here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from orca2.errors import ModelError
from orca2.generation.continuous import Finished, Waiting
from orca2.generation.protocol import Chat, ChatReply, Format, Generation, StudentFiles
from orca2.generation.students import prompt_info
from orca2.modelling.build import READ_ERRORS
from orca2.reasoning import opening_at_end
from orca2.rendering import ChatFormat, Renderer, TemplateRenderer, prepare_tokenizer

PromptRenderer = Renderer | TemplateRenderer


class TokenBackend:
    """See `Backend`. `stream` answers prompts of token ids; `context` is in tokens."""

    def __init__(
        self,
        renderer: PromptRenderer,
        stream: Callable[[Sequence[Waiting]], Iterator[Finished]],
        context: int,
        identity: Mapping[str, str],
    ) -> None:
        self._renderer = renderer
        self._stream = stream
        self._context = context
        self.context: int | None = context
        asked = {key: str(value) for key, value in renderer.identity.items()}
        self.identity: Mapping[str, str] = {**asked, **identity, "context": str(context)}

    def prompt_tokens(self, chat: Chat) -> int:
        return len(self._renderer.prompt(chat.system, chat.user, chat.history))

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        """A prompt that fills the context gets an empty answer with reason `length`."""
        prompts = [self._renderer.prompt(chat.system, chat.user, chat.history) for chat in chats]
        waiting = []
        for index, (chat, prompt) in enumerate(zip(chats, prompts, strict=True)):
            room = min(chat.max_new_tokens, self._context - len(prompt))
            if room > 0:
                waiting.append(Waiting(index, prompt, room))
            else:
                yield index, self._reply(prompt, Generation([], "length"), 0.0)
        for done in self._stream(waiting):
            yield done.index, self._reply(prompts[done.index], done.generation, done.seconds)

    def _reply(self, prompt: list[int], generation: Generation, seconds: float) -> ChatReply:
        asked = self._renderer.decode_marked(prompt)
        return ChatReply(
            # A trace that the prompt has opened would not be seen as one where it is cut off.
            text=opening_at_end(asked) + self._renderer.decode(generation.ids),
            finish_reason=generation.finish_reason,
            prompt=asked,
            prompt_tokens=len(prompt),
            answer_tokens=len(generation.ids),
            seconds=seconds,
        )


def load_renderer(student: StudentFiles, format: Format) -> PromptRenderer:
    """The renderer that asks the student as it was trained.

    Raises:
        ModelError: the tokenizer cannot be read, or the student was not trained with `format`.
    """
    folder = Path(student.location)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except READ_ERRORS as error:
        raise ModelError(f"the tokenizer of {student.name} cannot be read: {error}") from error
    info = prompt_info(folder)
    if info is not None:
        if not isinstance(format, ChatFormat):
            trained = info["renderer"]["format"]
            raise ModelError(f"{student.name} was trained with format={trained}, not {format.name}; leave format= out")
        renderer = Renderer(tokenizer, format)
        renderer.check_identity(info["renderer"])
        return renderer
    if not isinstance(format, ChatFormat):
        return TemplateRenderer(tokenizer, format)
    if prepare_tokenizer(tokenizer, format) > 0:
        raise ModelError(
            f"{student.name} does not know the control tokens of format={format.name}, so it was not tuned with it; "
            "choose its own: format=own, or one of conf/format"
        )
    return Renderer(tokenizer, format)


def context_of(student: StudentFiles, asked: int | None) -> int:
    """Tokens of a prompt and its answer: `asked`, or what the student was made for.

    Raises:
        ModelError: the model has fewer positions than asked, or does not say how many.
    """
    folder = Path(student.location)
    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except READ_ERRORS as error:
        raise ModelError(f"{student.name} cannot be read: {error}") from error
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    # A student that was trained on shorter texts than its model has positions for says so in its tokenizer.
    limits = [limit for limit in (asked, positions, tokenizer.model_max_length) if limit is not None and limit < 1e9]
    if not limits:
        raise ModelError(f"{student.name} does not say how long its context is; set backend.max_len=<tokens>")
    if asked is not None and positions is not None and asked > positions:
        raise ModelError(f"backend.max_len = {asked} is over the {positions} positions of {student.name}")
    return int(asked if asked is not None else min(limits))
