"""`backend=openai`: a model behind an OpenAI-compatible server, such as `vllm serve` or a hosted API.

`student=` is the model's name there. The server has its own chat format and its own limits; the `openai` package
retries what may pass. The key stands in the environment and nowhere else.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from orca2.errors import ConfigError, ModelError
from orca2.generation.protocol import Backend, Chat, FinishReason, Format, Reply, StudentFiles

CHARACTERS_PER_TOKEN = 3
"""For prompts that must fit into `max_len` while nobody here knows the server's tokenizer: on the safe side of the
4 or so of English text."""
TOO_LONG = ("context_length_exceeded", "context length", "context window", "maximum context", "too long")
"""Signs in a server's refusal that the prompt fills its context."""
# As vLLM and OpenAI count in their refusals, in lower case.
_CONTEXT = re.compile(r"(?:context|model) length (?:is|of) (?:only )?(\d+)")
_PROMPT = re.compile(r"(\d+) (?:input tokens|(?:tokens )?in the messages|(?:tokens )?from the input messages)")
FILTERED = "content_filter"
"""What OpenAI and Azure call it where a prompt, or an answer in the making, is not let through."""

_REASONS: Mapping[str, FinishReason] = {"length": "length", FILTERED: "refused"}
TokenLimitField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, kw_only=True)
class OpenAISpec:
    """Greedy chat completions over HTTP.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it for a missing key or package.
    """

    name: str
    base_url: str
    """Up to and including `/v1`."""
    api_key_env: str | None
    """The environment variable that holds the key; None where the server needs none."""
    concurrency: int
    retries: int
    timeout_s: float
    max_len: int | None
    """Tokens of a prompt and its answer, estimated from characters; None: the server alone decides."""
    token_limit_field: TokenLimitField
    temperature: float | None
    """0; None for models that take none."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            raise ConfigError(
                f"backend.base_url = {self.base_url!r}: give a URL such as http://127.0.0.1:8000/v1, without a password"
            )
        if self.concurrency < 1 or self.retries < 0 or not self.timeout_s > 0:
            raise ConfigError("backend.concurrency must be at least 1, retries at least 0, and timeout_s above 0")
        if self.token_limit_field not in get_args(TokenLimitField):
            raise ConfigError(f"backend.token_limit_field: choose from {get_args(TokenLimitField)}")

    def find(self, student: str | None) -> StudentFiles:
        if not student:
            raise ConfigError("student = null: backend=openai needs student=<name of the model on the server>")
        name = student.rstrip("/").rpartition("/")[2]
        return StudentFiles(name=name, location=student, fingerprint=student, own_messages={})

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        try:
            import openai
        except ImportError as error:
            raise ConfigError("backend=openai needs the package openai; install the extra `teacher`") from error
        secret = "none"
        if self.api_key_env is not None:
            secret = os.environ[self.api_key_env].strip() if self.api_key_env in os.environ else ""
            if not secret:
                raise ConfigError(
                    f"backend=openai takes its key from the environment variable {self.api_key_env}, which is not "
                    "set; set it, or set backend.api_key_env=null for a server without keys"
                )
        with openai.OpenAI(
            base_url=self.base_url, api_key=secret, max_retries=self.retries, timeout=self.timeout_s
        ) as client:
            yield OpenAIBackend(self, client, student.location, secret)


class OpenAIBackend:
    """See `Backend`. Each chat is one call."""

    def __init__(self, spec: OpenAISpec, client: Any, model: str, secret: str) -> None:
        self._spec, self._client, self._model, self._secret = spec, client, model, secret
        self.context = spec.max_len
        self.identity: Mapping[str, str] = {"backend": "openai", "server": spec.base_url, "student": model}

    def prompt_tokens(self, chat: Chat) -> int:
        return sum(len(message["content"]) for message in messages_of(chat)) // CHARACTERS_PER_TOKEN + 1

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        pool = ThreadPoolExecutor(self._spec.concurrency)
        try:
            calls = {pool.submit(self._ask, chat): index for index, chat in enumerate(chats)}
            refused = 0
            for call in as_completed(calls):
                reply = call.result()
                refused += reply.finish_reason == "refused"
                yield calls[call], reply
            if refused:
                logging.getLogger(__name__).warning("%d prompts were refused by the server's content filter", refused)
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, chat: Chat) -> Reply:
        began, messages = monotonic(), messages_of(chat)
        room = chat.max_new_tokens
        text, reasoning, reason, counts, said = self._call(messages, room)
        left = self._left(chat, said) if said else 0
        if 0 < left < room:  # the prompt fits, its longest answer does not
            text, reasoning, reason, counts, _ = self._call(messages, left)
        return Reply(
            text=text,
            reasoning=reasoning,
            finish_reason=_REASONS.get(reason, "stop"),
            prompt="\n\n".join(f"{message['role']}: {message['content']}" for message in messages),
            prompt_tokens=counts[0],
            answer_tokens=counts[1],
            seconds=monotonic() - began,
        )

    def _call(self, messages: Sequence[dict[str, str]], limit: int) -> tuple[str, str, str, tuple[int, int], str]:
        """Text, reasoning, reason of its end, tokens of prompt and answer, and what a server without room says."""
        import openai

        settings: dict[str, Any] = {self._spec.token_limit_field: limit}
        if self._spec.temperature is not None:
            settings["temperature"] = self._spec.temperature
        try:
            done = self._client.chat.completions.create(model=self._model, messages=messages, **settings)
            choice, usage = done.choices[0], done.usage
            counts = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
            message = choice.message
            # vLLM's name, then DeepSeek's; the package keeps fields that it does not know.
            reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None) or ""
            return message.content or "", reasoning, choice.finish_reason, counts, ""
        except openai.BadRequestError as error:
            said = f"{error.code} {error}".lower()
            if FILTERED in said:
                return "", "", FILTERED, (0, 0), ""
            if any(sign in said for sign in TOO_LONG):
                return "", "", "length", (0, 0), said
            raise self._failed(error) from None
        except (openai.OpenAIError, AttributeError, IndexError, TypeError) as error:
            raise self._failed(error) from None

    def _left(self, chat: Chat, said: str) -> int:
        """Tokens that the context leaves for the answer: as the refusal counts them, else estimated; 0: unknown."""
        context, prompt = _CONTEXT.search(said), _PROMPT.search(said)
        if context and prompt:
            return int(context[1]) - int(prompt[1])
        return self.context - self.prompt_tokens(chat) if self.context is not None else 0

    def _failed(self, error: Exception) -> ModelError:
        # Some servers quote the key in their errors.
        reason = f"{type(error).__name__}: {error}".replace(self._secret, "***")[:300]
        return ModelError(
            f"{self._spec.base_url} does not answer for model {self._model!r} after {self._spec.retries} more tries "
            f"({reason}); check the server, base_url and the model's name. What was answered is kept"
        )


def messages_of(chat: Chat) -> list[dict[str, str]]:
    """The chat in the interface's own form. An empty system message is left out: servers disagree about it."""
    messages = [{"role": "system", "content": chat.system}] if chat.system else []
    for turn in chat.history:
        messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
    return [*messages, {"role": "user", "content": chat.user}]
