"""A fake, for what no small real model shows on demand: right answers behind traces, in every form that occurs.

FakeReasoningModel   wraps an answer; each trace names wrong candidates in the form of final answers
.backend()           answers benchmarks rightly
.teacher()           a rule teacher that reasons first; its answers are cached as a server's are
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from orca2.asking.cache import Cache
from orca2.asking.models.rule import RuleTeacher
from orca2.asking.requests import Answer, Request
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.stand_ins import GoldAnswers
from orca2.generation import Chat, ChatReply
from orca2.reasoning import MARKERS
from orca2.serving.outcomes import Failure, Reply

TRACE = "Let me try 7.\n\nAnswer: 7\n\nNo: the answer is B. Or **Answer:** (C)? Then yes.\nThe final answer is 1,000."
APART = "apart"
FORMS = (
    APART,
    *(f"{opening}\n{{trace}}\n{closing}\n\n{{answer}}" for opening, closing in MARKERS.items()),
    *(f"{opening}{{trace}}{closing}{{answer}}" for opening, closing in MARKERS.items()),
    *(f"{{trace}}\n{closing}\n\n{{answer}}" for closing in MARKERS.values()),
    "<|channel|>analysis<|message|>{trace}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|return|>",
    "analysis{trace}assistantfinal{answer}",
)
"""`apart`: the trace in a field of its own, as servers with a reasoning parser give it."""
CUT_OFF = "<think>\n{trace}"


@dataclass(frozen=True)
class FakeReasoningModel:
    """Answers come from elsewhere; this wraps them. `forms` are taken in turn."""

    forms: Sequence[str] = FORMS

    def says(self, answer: str, number: int) -> tuple[str, str]:
        """The text, and the trace where it stands apart."""
        form = self.forms[number % len(self.forms)]
        return (answer, TRACE) if form == APART else (form.format(trace=TRACE, answer=answer), "")

    def backend(self) -> "FakeReasoningBackend":
        return FakeReasoningBackend(self)

    def teacher(self) -> "FakeReasoningTeacher":
        return FakeReasoningTeacher(name="rule", seed=0, error_rate=0.0, fake=self)


@dataclass
class FakeReasoningBackend:
    """See `Backend`. A token is a word."""

    fake: FakeReasoningModel
    identity: Mapping[str, str] = field(default_factory=lambda: {"stand_in": "fake reasoning model"})
    context: int | None = None
    chats: list[Chat] = field(default_factory=list)
    """Every chat that was asked."""

    def prompt_tokens(self, chat: Chat) -> int:
        return 0

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        for index, chat in enumerate(chats):
            assert isinstance(chat.about, Sample)
            text, reasoning = self.fake.says(GoldAnswers().answer(chat.about, len(chat.history)), len(self.chats))
            self.chats.append(chat)
            yield (
                index,
                ChatReply(
                    text=text,
                    reasoning=reasoning,
                    finish_reason="stop",
                    prompt=chat.user,
                    prompt_tokens=0,
                    answer_tokens=len((reasoning + " " + text).split()),
                    seconds=0.0,
                ),
            )


@dataclass(frozen=True, kw_only=True)
class FakeReasoningTeacher(RuleTeacher):
    """A rule teacher whose replies look like those of a reasoning model. The form follows the request's key."""

    fake: FakeReasoningModel
    model: str = field(default="fake-reasoner", init=False)
    cached: bool = field(default=True, init=False)

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        async def answer(request: Request) -> Reply | Failure:
            reply = self.solve(request)
            if isinstance(reply, Failure):
                return reply
            text, reasoning = self.fake.says(reply.text, int(request.key[:8], 16))
            thought = len(TRACE.split())
            spent = replace(
                reply.usage, completion_tokens=reply.usage.completion_tokens + thought, reasoning_tokens=thought
            )
            return replace(reply, text=text, reasoning=reasoning, usage=spent, model=self.model)

        yield answer
