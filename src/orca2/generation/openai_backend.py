"""`backend=openai`: a model behind an OpenAI-compatible server, such as `vllm serve` or a hosted API.

`student=` is the model's name there. The server has its own chat format and its own limits. It is asked by the same
rules as a teacher (`orca2.serving`): what may pass is asked again, what concerns one prompt costs one answer, and what
would fail for all ends the run. The key stands in the environment and nowhere else.

    chats ─▶ gate ▸ call ─▶ Reply                     the answer
                  ▲    ├──▶ Failure                   no answer, or half of one: counted as such, and warned of
                  │    ├──▶ invalid, or trouble to the last attempt: the others go on, then one error
                  └────┴──▶ Trouble: back off
"""

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import monotonic
from typing import Any

from orca2.errors import ConfigError, ModelError
from orca2.generation.protocol import Backend, Chat, ChatReply, FinishReason, Format, StudentFiles, Unanswered
from orca2.serving import outcomes
from orca2.serving.client import Call, Server, require_package
from orca2.serving.limits import Gate, Limits
from orca2.serving.outcomes import Failure, Trouble, Unusable, accepted
from orca2.serving.refusals import Speaker
from orca2.serving.retries import Retry
from orca2.serving.wire import TokenLimitField, api_key, body, messages

CHARACTERS_PER_TOKEN = 3
"""For prompts that must fit into `max_len` while nobody here knows the server's tokenizer: on the safe side of the
4 or so of English text."""
FAILED_IN_A_ROW = 8
"""After so many prompts without an answer the server counts as gone, and nothing more is asked; ours."""

_REASONS: Mapping[str, FinishReason] = {"truncated": "length", "too_long": "length", "refused": "stop"}
"""Kind of failure -> how the answer ended. A model's refusal is its answer; a filter's is not: `refused`."""
_UNANSWERED = frozenset({"invalid", "exhausted", "missing"})


@dataclass(frozen=True, kw_only=True)
class OpenAISpec:
    """Greedy chat completions over HTTP.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it for a missing key or package.
    """

    name: str
    base_url: str
    """The server's address, up to and including `/v1`."""
    api_key_env: str | None
    """The environment variable that holds the key; None where the server needs none."""
    concurrency: int
    """Most calls under way; fewer while the server complains."""
    requests_per_minute: float | None
    tokens_per_minute: float | None
    retries: int
    """Attempts after the first one."""
    first_wait_s: float
    longest_wait_s: float
    timeout_s: float
    max_len: int | None
    """Tokens of a prompt and its answer, estimated from characters; None: the server alone decides."""
    token_limit_field: TokenLimitField
    temperature: float | None
    """0; None for models that take none."""
    server: Server = field(init=False)
    limits: Limits = field(init=False)
    retry: Retry = field(init=False)

    def __post_init__(self) -> None:
        server = Server(
            group="backend",
            base_url=self.base_url,
            timeout_s=self.timeout_s,
            token_limit_field=self.token_limit_field,
        )
        limits = Limits(
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )
        retry = Retry(attempts=self.retries + 1, first_seconds=self.first_wait_s, longest_seconds=self.longest_wait_s)
        for name, value in (("server", server), ("limits", limits), ("retry", retry)):
            object.__setattr__(self, name, value)

    def find(self, student: str | None) -> StudentFiles:
        if not student:
            raise ConfigError("student = null: backend=openai needs student=<name of the model on the server>")
        name = student.rstrip("/").rpartition("/")[2]
        return StudentFiles(name=name, location=student, fingerprint=student, own_messages={})

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        require_package()
        name = f"backend={self.name}"
        speaker = Speaker(f"{name} (model {student.location!r})", "backend", api_key(self.api_key_env, name, "backend"))
        yield OpenAIBackend(self, student.location, speaker)


class OpenAIBackend:
    """See `Backend`. Each chat is one call."""

    def __init__(self, spec: OpenAISpec, model: str, speaker: Speaker) -> None:
        self._spec, self._model, self._speaker = spec, model, speaker
        self.context = spec.max_len
        self.identity: Mapping[str, str] = {"backend": "openai", "server": spec.base_url, "student": model}

    def prompt_tokens(self, chat: Chat) -> int:
        return sum(len(message["content"]) for message in messages_of(chat)) // CHARACTERS_PER_TOKEN + 1

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        """See `Backend.answer`. The calls run in a thread of their own, so that they go on while answers are scored."""
        answers = _Answers(self._spec, self, chats)
        thread = threading.Thread(target=answers.run, daemon=True)
        thread.start()
        try:
            while (found := answers.found.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            answers.stop()
            thread.join()

    def body_of(self, chat: Chat, limit: int) -> dict[str, Any]:
        """What is posted for a chat whose answer may have so many tokens."""
        field, temperature = self._spec.token_limit_field, self._spec.temperature
        return body(self._model, messages_of(chat), field, limit, temperature=temperature)

    def room(self, chat: Chat) -> int:
        """Tokens that `max_len` leaves for an answer, by the estimate; 0 where it is not set."""
        return 0 if self.context is None else self.context - self.prompt_tokens(chat)

    @property
    def speaker(self) -> Speaker:
        return self._speaker


class _Answers:
    """The calls for some chats: an event loop in one thread, whose finds another one takes."""

    def __init__(self, spec: OpenAISpec, backend: OpenAIBackend, chats: Sequence[Chat]) -> None:
        self._spec, self._backend, self._chats = spec, backend, chats
        self.found: SimpleQueue[tuple[int, ChatReply] | BaseException | None] = SimpleQueue()
        self._kinds = Counter[str]()
        self._failed: list[str] = []
        self._in_a_row = 0
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Answer all; the queue ends with None or with the error."""
        end: BaseException | None = None
        try:
            self._task = self._loop.create_task(self._all())
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # handed to the thread that waits for it
            end = error
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self.found.put(end)

    def stop(self) -> None:
        """End the calls under way; nothing happens where all are answered."""
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())

    async def _all(self) -> None:
        gate = Gate(self._spec.limits)
        async with self._spec.server.connected(self._backend.speaker, self._spec.concurrency) as call:
            try:
                async with asyncio.TaskGroup() as group:
                    for index in range(len(self._chats)):
                        group.create_task(self._one(index, call, gate))
            except* ModelError as errors:
                raise errors.exceptions[0] from None
        log = logging.getLogger(__name__)
        for kind, count in self._kinds.most_common():
            log.warning("%d prompts had no whole answer: %s", count, kind)
        if self._failed:
            raise Unanswered(self._message(f"{len(self._failed)} of {len(self._chats)} prompts have no answer"))

    async def _one(self, index: int, call: Call, gate: Gate) -> None:
        chat = self._chats[index]
        limit = chat.max_new_tokens
        expected = self._backend.prompt_tokens(chat) + chat.max_new_tokens
        began, attempt = monotonic(), 0
        while True:
            attempt += 1
            async with gate.call(expected) as passage:
                began = began if attempt > 1 else monotonic()
                outcome = await call(self._backend.body_of(chat, limit))
                # The server counts where it can; here it did not, or the prompt does not fit.
                if _too_long(outcome) and 0 < (room := self._backend.room(chat)) < limit:
                    outcome = await call(self._backend.body_of(chat, room))
                if isinstance(outcome, Unusable):
                    raise ModelError(f"{outcome.reason}. What was answered is kept")
                if not isinstance(outcome, Trouble):
                    passage.answered(outcome.usage.prompt_tokens + outcome.usage.completion_tokens)
                elif outcome.overload:
                    passage.complained(outcome.retry_after)
            if not isinstance(outcome, Trouble):
                break
            if attempt == self._spec.retry.attempts:
                reason = f"{attempt} attempts, the last: {outcome.kind}: {outcome.reason}"
                outcome = Failure(kind="exhausted", reason=reason)
                break
            await asyncio.sleep(self._spec.retry.wait(str(index), attempt, outcome.retry_after))
        reply = self._reply(chat, outcome, monotonic() - began)
        if reply is not None:
            self.found.put((index, reply))

    def _reply(self, chat: Chat, outcome: outcomes.Reply | Failure, seconds: float) -> ChatReply | None:
        """The answer for the evaluation; None if it failed, which is an error at the end. Raises ModelError."""
        asked = messages_of(chat)
        prompt = "\n\n".join(f"{message['role']}: {message['content']}" for message in asked)
        judged = accepted(outcome, prompt) if isinstance(outcome, outcomes.Reply) else outcome
        reason: FinishReason = "stop"
        if isinstance(judged, Failure):
            if judged.kind in _UNANSWERED:
                self._failed.append(judged.reason)
                self._in_a_row += 1
                if self._in_a_row >= FAILED_IN_A_ROW:
                    raise ModelError(self._message(f"{self._in_a_row} prompts in a row have no answer"))
                return None
            reason = _REASONS.get(judged.kind, "refused" if judged.kind == "filtered" else "stop")
            if judged.kind != "truncated":  # the report has a column for those
                self._kinds[f"{judged.kind}: {judged.reason}"[:200]] += 1
        self._in_a_row = 0
        text = judged.text or (judged.reason if isinstance(judged, Failure) and judged.kind == "refused" else "")
        return ChatReply(
            text=text,
            reasoning=next((one.reasoning for one in (judged, outcome) if isinstance(one, outcomes.Reply)), ""),
            finish_reason=reason,
            prompt=prompt,
            prompt_tokens=outcome.usage.prompt_tokens,
            answer_tokens=outcome.usage.completion_tokens,
            seconds=seconds,
        )

    def _message(self, what: str) -> str:
        return (
            f"{self._backend.speaker.name} at {self._spec.base_url}: {what}: {self._failed[-1]}; check the server, and "
            "give the same command again: what was answered is kept, only the rest is asked"
        )


def _too_long(outcome: outcomes.Outcome) -> bool:
    return isinstance(outcome, Failure) and outcome.kind == "too_long"


def messages_of(chat: Chat) -> list[dict[str, str]]:
    """The chat in the interface's own form."""
    return messages(chat.system, chat.history, chat.user)
