"""The pass of a judge over one evaluation's records.

    record ──▶ questions for the judge: each turn, each order of two answers, each run of the judge
           ──▶ asked through the teacher's cache, gate and budget ──▶ Verdict, also where there is none

A plan is run again after a crash, and the cache answers what was paid for. Verdicts are written at the end, or when
a cap stops the run; questions not asked by then have a verdict that says so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from orca2.asking.budget import Budget, BudgetStop, Spending
from orca2.asking.cache import Cache
from orca2.asking.engine import asking
from orca2.asking.model import Model
from orca2.asking.requests import Ask, Request
from orca2.errors import ConfigError
from orca2.evaluation.judging.rubrics import (
    GRADE,
    GROUNDING,
    PREFERENCE,
    SAFETY,
    Rubric,
    grade_request,
    grounding_request,
    preference_request,
    safety_request,
)
from orca2.evaluation.sample_records import SampleRecord
from orca2.evaluation.verdicts import NOT_ASKED, JudgeVerdict
from orca2.serving.outcomes import Failure
from orca2.serving.retries import Retry

UNPARSABLE = "unparsable"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeQuestion:
    """One thing to find out about one answer."""

    record: SampleRecord
    rubric: Rubric
    turn: int
    judge_run: int
    texts: tuple[str, ...]
    """The requests whose replies decide: one, or the two orders of a comparison. None: there is nothing to judge."""
    against: str = ""
    """Folder of the evaluation that the answer is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """What a pass brought."""

    verdicts: tuple[JudgeVerdict, ...]
    """One for each question."""
    spending: Spending
    stop: str
    """Why it ended early; empty if it did not."""


def questions(
    records: Iterable[SampleRecord],
    judge_runs: int,
    against: Sequence[SampleRecord] | None = None,
    folder: str = "",
) -> list[JudgeQuestion]:
    """Everything to ask about the records that a judge can judge; with `against`, which of two answers is better.

    `folder` is the one that `against` comes from.

    Raises:
        ConfigError: there is nothing for a judge.
    """
    judged = [record for record in records if record.judgement != "none"]
    if against is None:
        found = [question for record in judged for question in _alone(record, judge_runs)]
    else:
        others = {(other.benchmark, other.version, other.message, other.sample): other for other in against}
        pairs = [
            (record, others.get((record.benchmark, record.version, record.message, record.sample))) for record in judged
        ]
        found = [
            JudgeQuestion(
                record=record,
                rubric=PREFERENCE,
                turn=0,
                judge_run=judge_run,
                texts=(preference_request(record, other), preference_request(other, record)),
                against=folder,
            )
            for record, other in pairs
            if other is not None
            for judge_run in range(judge_runs)
        ]
    if not found:
        reason = "no sample that both have is" if against is not None else "none of its samples is"
        raise ConfigError(f"{reason} for a judge: mt_bench, aci_bench, ms_marco, qmsum and conversations are")
    return found


def _alone(record: SampleRecord, judge_runs: int) -> list[JudgeQuestion]:
    asked: list[tuple[Rubric, int, tuple[str, ...]]]
    if record.judgement == "grade":
        asked = [(GRADE, turn, (grade_request(record, turn),)) for turn in range(len(record.turns))]
    elif record.judgement == "grounding":
        # An empty text has nothing unsupported, and would make silence look truthful.
        asked = [(GROUNDING, 0, (grounding_request(record),) if record.output.strip() else ())]
    else:
        asked = [(SAFETY, len(record.turns) - 1, (safety_request(record),))]
    return [
        JudgeQuestion(record=record, rubric=rubric, turn=turn, judge_run=judge_run, texts=texts)
        for judge_run in range(judge_runs)
        for rubric, turn, texts in asked
    ]


def judge(
    asked: Sequence[JudgeQuestion],
    teacher: Model,
    cache: Path,
    budget: Budget,
    on_done: Callable[[], None],
    retry: Retry | None = None,
) -> Judging:
    """Ask the judge everything that the cache does not hold yet; blocking.

    Raises:
        ConfigError, TeacherError: the teacher cannot be used. The answers so far are in the cache.
    """
    return asyncio.run(_judge(asked, teacher, cache, budget, on_done, retry))


async def _judge(
    asked: Sequence[JudgeQuestion],
    teacher: Model,
    path: Path,
    budget: Budget,
    on_done: Callable[[], None],
    retry: Retry | None,
) -> Judging:
    answered: dict[int, JudgeVerdict] = {}
    stop = ""

    async def plan(question: JudgeQuestion, ask: Ask) -> JudgeVerdict:
        return await _verdict(question, teacher, ask)

    with Cache(path) as cache:
        async with asking(teacher, cache, budget, run="judge", retry=retry) as asker:
            try:
                results: AsyncIterator[tuple[JudgeQuestion, JudgeVerdict | Failure]]
                async with aclosing(asker.map(asked, plan)) as results:
                    async for question, verdict in results:
                        assert isinstance(verdict, JudgeVerdict)  # the plan turns failures into verdicts
                        answered[id(question)] = verdict
                        on_done()
            except BudgetStop as cap:
                stop = str(cap)
            verdicts = tuple(
                answered.get(id(question)) or _said(question, teacher, None, NOT_ASKED, "") for question in asked
            )
            return Judging(verdicts=verdicts, spending=asker.spending, stop=stop)


async def _verdict(question: JudgeQuestion, teacher: Model, ask: Ask) -> JudgeVerdict:
    values: list[float] = []
    problem, said = "" if question.texts else "empty", []
    for place, text in enumerate(question.texts):
        reply = await ask(
            Request(
                model=teacher.model,
                decoding=teacher.decoding,
                system=question.rubric.system,
                user=text,
                sample=question.judge_run,
            )
        )
        said.append(reply.text)
        value = None if isinstance(reply, Failure) else question.rubric.parse(reply.text)
        if value is None:
            problem = reply.kind if isinstance(reply, Failure) else UNPARSABLE
        else:
            values.append(value if place == 0 else 1 - value)  # the second order is seen from the other side
    return _said(question, teacher, None if problem else _agreed(values), problem, "\n\n".join(said))


def _said(question: JudgeQuestion, teacher: Model, value: float | None, problem: str, text: str) -> JudgeVerdict:
    record = question.record
    return JudgeVerdict(
        key=record.key,
        benchmark=record.benchmark,
        task=record.task,
        message=record.message,
        sample=record.sample,
        rubric=question.rubric.name,
        rubric_version=question.rubric.version,
        judge=teacher.model,
        judge_run=question.judge_run,
        turn=question.turn,
        value=value,
        problem=problem,
        text=text,
        against=question.against,
    )


def _agreed(values: Sequence[float]) -> float:
    """The value of one reply, or the one that both orders give; they tie if they differ."""
    return values[0] if len(set(values)) == 1 else 0.5
