"""One item's way to one example: instruction, calls of the teacher, verdicts, the best answer kept.

    Asked(item, instruction) ──ask──▶ sample 0: wrong ──ask──▶ sample 1: right ─▶ Answered(kept = sample 1,
                                                                                           others = sample 0)

Asking stops at the first answer of the best outcome that verification keeps.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Protocol

from orca2.answers.verification.checkers import Verdict, Verifier
from orca2.answers.verification.presets import AnswerSample, Verification
from orca2.asking.model import Model
from orca2.asking.requests import Ask, Failed, Generated, Request
from orca2.errors import DataError
from orca2.records import Example, Rejected
from orca2.rows.collections.procedural_tasks import is_generated, problem_of
from orca2.rows.items import TaskItem
from orca2.serving.outcomes import Failure, FailureKind
from orca2.synthesis.builders.plans import WrittenExample, plan_of
from orca2.synthesis.instructions import Instruction

FINAL: frozenset[FailureKind] = frozenset({"too_long", "invalid", "missing", "exhausted"})
"""Failures of the question or the server: another sample of the same request would meet them, too."""
SLOW_KINDS = frozenset({"expression", "gym"})
"""Kinds of answers whose check may take seconds, so that it must not hold up the other calls; it is safe in threads."""


class AnswerStep(Protocol):
    """A check of an answer before it is kept, such as for quotes of a benchmark."""

    def __call__(self, item: TaskItem, example: Example) -> Rejected | None: ...


class AskedItem(NamedTuple):
    """An item with what its teacher is told."""

    item: TaskItem
    instruction: Instruction


class DroppedAnswer(NamedTuple):
    """An answer that was not kept, as an example, and why."""

    example: Example
    sample: int
    reason: str


class Failing(NamedTuple):
    """A request that got no answer."""

    sample: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOutcome:
    """What became of an item."""

    item: TaskItem
    strategy: str
    kept: Example | None = None
    others: tuple[DroppedAnswer, ...] = ()
    failures: tuple[Failing, ...] = ()
    broken: str | None = None
    """Why the item cannot be sent at all."""


class Answering:
    """The plan that `Asking.map` runs for each item."""

    def __init__(
        self, teacher: Model, verification: Verification, verifier: Verifier, steps: Sequence[AnswerStep]
    ) -> None:
        self._teacher, self._verification, self._verifier, self._steps = teacher, verification, verifier, steps

    async def __call__(self, asked: AskedItem, ask: Ask) -> ItemOutcome:
        """Raises ConfigError where a check needs an extra that is not installed, and what `ask` raises."""
        item, strategy = asked.item, asked.instruction.strategy
        try:
            request = request_of(asked, self._teacher)
        except DataError as error:
            return ItemOutcome(item=item, strategy=strategy, broken=str(error))
        plan = plan_of(asked.instruction)
        examples: list[Example] = []
        samples: list[AnswerSample] = []
        refused: list[DroppedAnswer] = []
        failures: list[Failing] = []
        for number in range(self._verification.samples):
            written = await _written(plan(replace(request, sample=number) if number else request, ask))
            if isinstance(written, Failure):
                failures.append(Failing(number, written))
                if written.kind in FINAL:
                    break
                continue
            verdict = await self._check(item, written.reply.text)
            example = _example(asked, written, verdict)
            if reason := self._reason_against(item, example):
                refused.append(DroppedAnswer(example, number, reason))
                continue
            examples.append(example)
            samples.append(AnswerSample(number=number, answer=example.answer, verdict=verdict))
            if self._verification.enough(samples):
                break
        chosen = self._verification.choose(samples)
        by_number = {sample.number: example for sample, example in zip(samples, examples, strict=True)}
        others = [DroppedAnswer(by_number[one.sample.number], one.sample.number, one.reason) for one in chosen.rejected]
        return ItemOutcome(
            item=item,
            strategy=strategy,
            kept=by_number[chosen.kept.number] if chosen.kept is not None else None,
            others=(*others, *refused),
            failures=tuple(failures),
        )

    async def _check(self, item: TaskItem, answer: str) -> Verdict:
        if item.answer_kind in SLOW_KINDS:
            return await asyncio.to_thread(self._verifier.check, item, answer)
        return self._verifier.check(item, answer)

    def _reason_against(self, item: TaskItem, example: Example) -> str | None:
        for step in self._steps:
            if rejected := step(item, example):
                return rejected.reason
        return None


def request_of(asked: AskedItem, teacher: Model) -> Request:
    """The first call for an item. Raises DataError for a text that cannot be sent."""
    item, instruction = asked
    generated = None
    if is_generated(item):
        generated = Generated(problem=problem_of(item), strategy=instruction.strategy)
    return Request(
        model=teacher.model,
        decoding=teacher.decoding,
        system=instruction.system,
        user=item.user,
        generated=generated,
    )


async def _written(calls: Awaitable[WrittenExample | Failure]) -> WrittenExample | Failure:
    try:
        return await calls
    except Failed as failed:
        return failed.failure


def _example(asked: AskedItem, written: WrittenExample, verdict: Verdict) -> Example:
    item, reply = asked.item, written.reply
    return Example(
        id=item.id,
        source=item.collection,
        task=item.task,
        strategy=asked.instruction.strategy,
        system=written.system,
        user=written.user,
        answer=reply.text.strip(),
        teacher=reply.model,
        reasoning=reply.reasoning,
        suggested=asked.instruction.suggested,
        gold=item.gold[0] if item.gold else None,
        verdict=verdict.outcome,
        lineage=item.lineage,
        usage=asdict(reply.usage) if reply.usage_known else None,
    )
