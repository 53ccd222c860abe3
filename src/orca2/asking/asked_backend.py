"""A model that is asked through the engine, as a `Backend`: one cache, one budget and one set of rules for all.

    answer(chats) ─▶ queue ◀─ the thread of an event loop: Asking.map ─▶ Reply | Failure
                                                                            │
    ChatReply   the answer, also one that was cut off, refused or filtered ◀┤
    an error    after all others: there is no answer ◀──────────────────────┘

The calls go on in their thread while answers are scored. One loop, one gate and one opened model serve all calls of
`answer`.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from time import monotonic
from typing import Any, Protocol, get_args

from orca2.asking.cache import IN_MEMORY, Cache
from orca2.asking.engine import Asking, asking
from orca2.asking.model import Model
from orca2.asking.requests import Ask, Request, TeacherError
from orca2.asking.run_accounts import Share
from orca2.errors import ModelError
from orca2.generation import Chat, ChatReply, FinishReason, Unanswered
from orca2.serving.outcomes import Failure, FailureKind, Reply, Usage
from orca2.serving.retries import Retry

FAILED_IN_A_ROW = 8
"""After so many prompts without an answer the server counts as gone, and nothing more is asked; ours."""

_REASONS: Mapping[str, FinishReason] = {"truncated": "length", "too_long": "length", "filtered": "refused"}
"""Kind of failure -> how the answer ended. A model's refusal is its answer; a filter's is not: `refused`."""
_UNANSWERED = frozenset({"invalid", "exhausted", "missing"})


class Prompts(Protocol):
    """What is known of a chat's prompt before it is asked."""

    @property
    def context(self) -> int | None:
        """The same as `Backend.context`."""
        ...

    @property
    def exact(self) -> bool:
        """Whether `tokens` counts; an estimate is used only where the server says that a prompt does not fit."""
        ...

    def tokens(self, chat: Chat) -> int: ...
    def text(self, chat: Chat) -> str:
        """The prompt for people."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """A model with what turns it into a backend."""

    title: str
    """For messages."""
    model: Model
    prompts: Prompts
    retry: Retry
    identity: Mapping[str, str]
    """The same as `Backend.identity`."""


@contextmanager
def asked_backend(asked: AskedModel, share: Share | None) -> Iterator["AskedBackend"]:
    """The backend, open. Without a share nothing is kept when it closes, and nothing is capped.

    Raises:
        ConfigError, BudgetStop, DataError: the model, what is left of the caps or the cache cannot be used.
    """
    with _event_loop() as loop:
        opened: Future[Asking] = Future()
        over = asyncio.Event()

        async def hold() -> None:
            try:
                async with _asking(asked, share) as asker:
                    opened.set_result(asker)
                    await over.wait()
            except BaseException as error:
                if opened.done():
                    raise
                opened.set_exception(error)

        held = asyncio.run_coroutine_threadsafe(hold(), loop)
        backend = AskedBackend(asked, opened.result(), loop)
        try:
            yield backend
        finally:
            loop.call_soon_threadsafe(over.set)
            held.result()


@asynccontextmanager
async def _asking(asked: AskedModel, share: Share | None) -> AsyncIterator[Asking]:
    # What kinds of failures end an evaluation is decided below, not by the engine: filtered answers are answers.
    settings: dict[str, Any] = {"retry": asked.retry, "evidence": get_args(FailureKind)}
    if share is None:
        with Cache(IN_MEMORY) as cache:
            async with asking(asked.model, cache, **settings) as asker:
                yield asker
        return
    with share.opened() as bought:
        async with asking(
            asked.model, bought.cache, bought.budget, bought.run, ended=bought.ended, **settings
        ) as asker:
            yield asker


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own; at the end its tasks are cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def end_all() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await loop.shutdown_asyncgens()

    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(end_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class AskedBackend:
    """See `Backend`. Each chat is one request, or a second one with the room that an estimate leaves."""

    def __init__(self, asked: AskedModel, asker: Asking, loop: asyncio.AbstractEventLoop) -> None:
        self._asked, self._asker, self._loop = asked, asker, loop
        self.context = asked.prompts.context
        self.identity = asked.identity

    def prompt_tokens(self, chat: Chat) -> int:
        return self._asked.prompts.tokens(chat)

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        """See `Backend.answer`. Raises BudgetStop, too, when all calls under way have ended."""
        answers = _Answers(self._asked, chats)

        async def begun() -> asyncio.Task[None]:
            return asyncio.get_running_loop().create_task(answers.run(self._asker))

        task = asyncio.run_coroutine_threadsafe(begun(), self._loop).result()
        try:
            while (found := answers.found.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            asyncio.run_coroutine_threadsafe(_ended(task), self._loop).result()


async def _ended(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end; nothing happens where it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a chat."""

    outcome: Reply | Failure
    seconds: float


@dataclass(slots=True)
class _Answers:
    """The answers to some chats, on their way from the loop's thread to another one."""

    asked: AskedModel
    chats: Sequence[Chat]
    found: SimpleQueue[tuple[int, ChatReply] | BaseException | None] = field(default_factory=SimpleQueue)
    """Ends with None or with the error."""
    kinds: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    in_a_row: int = 0

    async def run(self, asker: Asking) -> None:
        end: BaseException | None = None
        try:
            await self._all(asker)
        except TeacherError as error:
            end = ModelError(f"{error}. What was answered is kept")
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # handed to the thread that waits for it
            end = error
        finally:
            self.found.put(end)

    async def _all(self, asker: Asking) -> None:
        # No more plans than calls: the time of an answer begins with its plan.
        results = asker.map(range(len(self.chats)), self._plan, ordered=False, window=1)
        async with aclosing(results):
            async for index, result in results:
                assert isinstance(result, _Outcome)
                reply = self._reply(self.chats[index], result)
                if reply is not None:
                    self.found.put((index, reply))
        log = logging.getLogger(__name__)
        for kind, count in self.kinds.most_common():
            log.warning("%d prompts had no whole answer: %s", count, kind)
        if self.failed:
            raise Unanswered(self._message(f"{len(self.failed)} of {len(self.chats)} prompts have no answer"))

    async def _plan(self, index: int, ask: Ask) -> _Outcome:
        chat, prompts, began = self.chats[index], self.asked.prompts, monotonic()
        room = None if prompts.context is None else prompts.context - prompts.tokens(chat)
        limit = chat.max_new_tokens
        if room is not None and prompts.exact:
            if room <= 0:
                usage = Usage(prompt_tokens=prompts.tokens(chat), completion_tokens=0)
                return _Outcome(Failure(kind="too_long", reason="the prompt fills the context", usage=usage), 0.0)
            limit = min(limit, room)
        outcome = await ask(self._request(chat, limit))
        # The server counts where it can; here it did not, or the prompt does not fit.
        if isinstance(outcome, Failure) and outcome.kind == "too_long" and room is not None and 0 < room < limit:
            outcome = await ask(self._request(chat, room))
        return _Outcome(outcome, monotonic() - began)

    def _request(self, chat: Chat, limit: int) -> Request:
        return Request(
            model=self.asked.model.model,
            decoding=replace(self.asked.model.decoding, max_tokens=limit),
            system=chat.system,
            user=chat.user,
            history=chat.history,
        )

    def _reply(self, chat: Chat, done: _Outcome) -> ChatReply | None:
        """The answer for the evaluation; None where there is none, which is an error at the end. Raises ModelError."""
        outcome = done.outcome
        reason: FinishReason = "stop"
        if isinstance(outcome, Failure):
            if outcome.kind in _UNANSWERED:
                self.failed.append(outcome.reason)
                self.in_a_row += 1
                if self.in_a_row >= FAILED_IN_A_ROW:
                    raise ModelError(self._message(f"{self.in_a_row} prompts in a row have no answer"))
                return None
            reason = _REASONS.get(outcome.kind, "stop")
            if outcome.kind != "truncated":  # the report has a column for those
                self.kinds[f"{outcome.kind}: {outcome.reason}"[:200]] += 1
        self.in_a_row = 0
        refusal = outcome.reason if isinstance(outcome, Failure) and outcome.kind == "refused" else ""
        return ChatReply(
            text=outcome.text or refusal,
            reasoning=outcome.reasoning,
            finish_reason=reason,
            prompt=self.asked.prompts.text(chat),
            prompt_tokens=outcome.usage.prompt_tokens,
            answer_tokens=outcome.usage.completion_tokens,
            seconds=done.seconds,
        )

    def _message(self, what: str) -> str:
        return (
            f"{self.asked.title}: {what}: {self.failed[-1]}; check the server, and give the same command again: what "
            "was answered is kept, only the rest is asked"
        )
