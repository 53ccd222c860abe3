"""The interfaces that evaluation and chat know.

    Generator   token ids in, token ids out     a model in memory
    Backend     chats in, replies out           whatever can answer: a model, a server, another library, a stand-in
    BackendSpec what a config says of a backend; opens it when everything else has been checked

All answers are greedy, and do not depend on what a prompt is batched with.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from orca2.errors import ModelError
from orca2.records import Turn
from orca2.rendering import ChatFormat, TemplateFormat

Format = ChatFormat | TemplateFormat

FinishReason = Literal["stop", "length", "refused"]
"""`stop`: the model ended its answer; `length`: it ran into the limit or the context; `refused`: the backend did not
let it answer, such as a server's content filter."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One greedy answer."""

    ids: list[int]
    """The answer's tokens, without the end token."""
    finish_reason: FinishReason


class Generator(Protocol):
    """A model that answers. Equal prompts give equal answers, whatever they are batched with."""

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Generation]:
        """One greedy answer of at most `max_new_tokens` tokens per prompt, in the order of `prompts`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation that waits for its next answer."""

    system: str
    """The empty text is a message like any other."""
    user: str
    history: tuple[Turn, ...] = ()
    max_new_tokens: int
    about: object = None
    """What the chat was made from, for backends that answer without a model; others ignore it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """The answer to one chat."""

    text: str
    """The model's text, with any trace that stands between markers; `orca2.reasoning.split` takes that out."""
    finish_reason: FinishReason
    prompt: str
    """The prompt as the model saw it, markup included; what was sent, where that cannot be known."""
    prompt_tokens: int
    """Tokens of the prompt as the backend counts them; 0 if it does not count."""
    answer_tokens: int
    """Tokens of the answer without the end token, counted the same way."""
    seconds: float
    """Time since work on this chat began; chats that are answered together overlap."""
    reasoning: str = ""
    """What the model thought before it answered, where a server sends it apart from the text; no part of `text`."""


class Unanswered(ModelError):
    """Some chats have no answer, and all others were yielded: what else there is to ask can still be asked."""


class Backend(Protocol):
    """Something that answers chats."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything that decides the answers apart from the chat: weights, tokenizer, format, precision."""
        ...

    @property
    def context(self) -> int | None:
        """Most tokens of a prompt and its answer together; None where that is unknown or has no limit."""
        ...

    def prompt_tokens(self, chat: Chat) -> int:
        """Length of the chat's prompt; an estimate where the backend cannot know. Asked only where `context` is."""
        ...

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        """(index in `chats`, reply) for every chat, as soon as it is there, in any order.

        Raises:
            Unanswered: a server has no answer to some chats.
            ModelError: the model cannot answer at all, such as a server that does not come back. Replies that were
                yielded before stay valid.
            Orca2Error: what it may take is used up.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFiles:
    """A student that was found, before its weights are read."""

    name: str
    """Name for people: the last part of its path or hub id."""
    location: str
    """Its folder in the Hugging Face format; for a server, the model's name there."""
    fingerprint: str
    """Changes when the weights or the tokenizer do."""
    own_messages: Mapping[str, str]
    """Erasing -> the system message it was trained to be asked under; empty for others' models."""


class BackendSpec(Protocol):
    """A backend as a config describes it."""

    @property
    def name(self) -> str: ...

    def find(self, student: str | None) -> StudentFiles:
        """The student that `student=` names, without loading it.

        Raises:
            ConfigError, ModelError: none is given where one is needed, or it is not there.
        """
        ...

    def open(self, student: StudentFiles, format: Format, local_rank: int) -> AbstractContextManager[Backend]:
        """The backend, ready to answer. `format`: how the student was trained to be asked, this project's or others'.
        `local_rank`: number of this process on its machine, which picks the device.

        Raises:
            ConfigError, ModelError: a package is missing, or the student cannot be loaded.
        """
        ...
