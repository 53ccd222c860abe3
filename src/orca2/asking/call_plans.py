"""Plans of several calls for one example, each call cached on its own.

    draft then check      say(question) -> draft      say(check instruction) -> answer
    conversation, note    say(opening) -> dialogue    say(note instruction)  -> note

A plan is any coroutine `plan(item, ask) -> result`. It is deterministic given the replies, so after a crash
it is run again from its first call, and the calls that were already paid for are answered by the cache.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from orca2.asking.requests import Ask, Failed, Request
from orca2.serving.outcomes import NO_USAGE, Failure, Reply, Usage

Item = TypeVar("Item")
Result = TypeVar("Result")

Plan = Callable[[Item, Ask], Awaitable[Result]]


@dataclass(slots=True)
class Conversation:
    """A chat under one system message. `start` gives model, decoding, system message and history."""

    ask: Ask
    start: Request
    replies: list[Reply] = field(default_factory=list)

    async def say(self, user: str) -> str:
        """The teacher's answer to `user`; both become history. Raises Failed where there is no answer."""
        request = replace(self.start, user=user)
        reply = await self.ask(request)
        if isinstance(reply, Failure):
            # What was paid before the failure belongs to the row that failed.
            raise Failed(replace(reply, usage=reply.usage + self.usage))
        self.replies.append(reply)
        self.start = request.then(reply.text, user="")
        return reply.text

    @property
    def usage(self) -> Usage:
        """Tokens of all calls so far."""
        return sum((reply.usage for reply in self.replies), NO_USAGE)

    @property
    def usage_known(self) -> bool:
        """Whether the server counted the tokens of each call."""
        return all(reply.usage_known for reply in self.replies)


async def answer_once(request: Request, ask: Ask) -> Reply | Failure:
    """The plan of a single call."""
    return await ask(request)


def draft_then_check(instruction: str) -> Plan[Request, Reply | Failure]:
    """The plan that has the teacher check its own draft, under `instruction`; the second reply is the answer.

    The result's usage is that of both calls.
    """

    async def plan(request: Request, ask: Ask) -> Reply | Failure:
        conversation = Conversation(ask, request)
        await conversation.say(request.user)
        await conversation.say(instruction)
        return replace(conversation.replies[-1], usage=conversation.usage, usage_known=conversation.usage_known)

    return plan
