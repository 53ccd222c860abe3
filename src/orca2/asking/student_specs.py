"""`backend=openai` and `backend=vllm`: students that are asked as any other model of `conf/teacher/` is.

openai   a model behind a server, such as `vllm serve` or a hosted API; `student=` is its name there, and the server
         has its own chat format and its own limits
vllm     a student in vLLM's engine, in this process; prompts are token ids of this project's renderer, so they are
         the same as with `backend=hf`
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from orca2.asking.asked_backend import AskedModel, asked_backend
from orca2.asking.models.batch import BatchTeacher
from orca2.asking.models.http import HttpTeacher
from orca2.asking.models.vllm import VllmTeacher
from orca2.asking.requests import Decoding
from orca2.asking.run_accounts import Share
from orca2.errors import ConfigError
from orca2.generation import Backend, Chat, Format, StudentFiles
from orca2.generation.students import find_student
from orca2.generation.tokens import PromptRenderer, context_of, load_renderer
from orca2.serving.client import require_package
from orca2.serving.retries import Retry
from orca2.serving.wire import messages

CHARACTERS_PER_TOKEN = 3
"""For prompts that must fit into `max_len` while nobody here knows the server's tokenizer: on the safe side of the
4 or so of English text."""


@dataclass(frozen=True, kw_only=True)
class ServedSpec:
    """A model behind an OpenAI-compatible server.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it for a missing key or package.
    """

    name: str
    model: HttpTeacher | BatchTeacher
    """How it is asked; what `student=` names takes the place of its `model`, each chat's limit that of its
    `max_tokens`."""
    max_len: int | None
    """Tokens of a prompt and its answer, estimated from characters; None: the server alone decides."""
    retries: int
    """Attempts after the first one."""
    first_wait_s: float
    longest_wait_s: float
    share: Share | None = field(default=None, init=False)
    """Place of the answers and caps on their cost; None: answers are kept while it is open, and nothing is capped."""
    retry: Retry = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, HttpTeacher | BatchTeacher):
            raise ConfigError(f"{type(self.model).__name__} asks no server; choose another file for backend.model")
        retry = Retry(attempts=self.retries + 1, first_seconds=self.first_wait_s, longest_seconds=self.longest_wait_s)
        object.__setattr__(self, "retry", retry)

    def find(self, student: str | None) -> StudentFiles:
        if not student:
            raise ConfigError(f"student = null: backend={self.name} needs student=<name of the model on the server>")
        name = student.rstrip("/").rpartition("/")[2]
        return StudentFiles(name=name, location=student, fingerprint=student, own_messages={})

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        require_package()
        model = replace(self.model, model=student.location)
        identity = {"backend": self.name, "student": model.model, "decoding": decoding_text(model.decoding)}
        asked = AskedModel(
            title=f"backend={self.name} (model {model.model!r} at {model.base_url})",
            model=model,
            prompts=EstimatedPrompts(self.max_len),
            retry=self.retry,
            identity=identity,
        )
        with asked_backend(asked, self.share) as backend:
            yield backend


@dataclass(frozen=True, kw_only=True)
class VllmSpec:
    """Greedy decoding by `vllm.LLM`. vLLM pins its own torch, so it lives in an environment of its own.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it where vLLM is not installed.
    """

    name: str
    model: VllmTeacher
    """How it is asked; what `student=` names takes the place of its `path`."""
    max_len: int | None
    """Context in tokens; None: the student's own."""
    share: Share | None = field(default=None, init=False)
    """The same as `ServedSpec.share`."""

    def find(self, student: str | None) -> StudentFiles:
        return find_student(student)

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        renderer = load_renderer(student, format)
        context = context_of(student, self.max_len)
        model = self.model.of_student(student.location, renderer, context)
        asked = AskedModel(
            title=f"backend={self.name} (student {student.name})",
            model=model,
            prompts=RenderedPrompts(renderer, context),
            retry=Retry(),
            identity={
                **{key: str(value) for key, value in renderer.identity.items()},
                "backend": self.name,
                "student": student.fingerprint,
                "engine": repr(sorted(model.engine.items())),
                "decoding": decoding_text(model.decoding),
            },
        )
        with asked_backend(asked, self.share) as backend:
            yield backend


AskedSpec = ServedSpec | VllmSpec
"""The backends that can keep answers and caps."""


def with_share(spec: AskedSpec, share: Share) -> AskedSpec:
    """The backend within a share; not an argument, because no config can hold one."""
    spec = replace(spec)
    object.__setattr__(spec, "share", share)
    return spec


@dataclass(frozen=True, slots=True)
class EstimatedPrompts:
    """Prompts of a server whose tokenizer is not known here."""

    context: int | None
    exact: bool = field(default=False, init=False)

    def tokens(self, chat: Chat) -> int:
        contents = (message["content"] for message in messages(chat.system, chat.history, chat.user))
        return sum(map(len, contents)) // CHARACTERS_PER_TOKEN + 1

    def text(self, chat: Chat) -> str:
        """What was sent: the markup is the server's."""
        sent = messages(chat.system, chat.history, chat.user)
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in sent)


@dataclass(frozen=True, slots=True)
class RenderedPrompts:
    """Prompts of this project's renderer."""

    renderer: PromptRenderer
    context: int
    exact: bool = field(default=True, init=False)

    def tokens(self, chat: Chat) -> int:
        return len(self.renderer.prompt(chat.system, chat.user, chat.history))

    def text(self, chat: Chat) -> str:
        return self.renderer.decode_marked(self.renderer.prompt(chat.system, chat.user, chat.history))


def decoding_text(decoding: Decoding) -> str:
    """What of a decoding changes answers and is the same for every chat."""
    values = {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed}
    return json.dumps({**values, "extra": dict(decoding.extra)}, sort_keys=True)
