"""Held-out questions answered greedily by the student, and what to say about the answers.

    Question --Renderer.prompt--> ids --Generator--> ids --Renderer.decode--> text --grade--> Answered
    list[Answered] --summarise--> one Score per task, and their mean

Training, this evaluation and chat use the same renderer, so a prompt here is a prefix of a training example.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orca2.answers.grading import detect_strategy, grade
from orca2.erasing import Erasing
from orca2.errors import ConfigError
from orca2.generation import Generator
from orca2.reasoning import split
from orca2.records import Question
from orca2.rendering.renderer import Renderer
from orca2.rows.source import AskingSource

MEAN = "mean"
"""Name of the row that averages the tasks, each with the same weight."""


@dataclass(frozen=True, kw_only=True)
class HeldOutSpec:
    """How a finished student is asked, and how it is sampled while it trains."""

    name: str
    messages: Mapping[str, Erasing]
    """Name in the results -> the rule whose inference message is used."""
    questions_per_task: int
    max_new_tokens: int
    samples: int
    """Questions answered while training; 0 switches that off."""
    sample_every_steps: int
    source: AskingSource | None = None
    """Source of the questions; None: the training source, if it has any."""

    def __post_init__(self) -> None:
        for field in ("questions_per_task", "max_new_tokens", "sample_every_steps"):
            if getattr(self, field) < 1:
                raise ConfigError(f"held_out.{field} = {getattr(self, field)}: must be at least 1")
        if self.samples < 0:
            raise ConfigError(f"held_out.samples = {self.samples}: must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question with the student's answer and its verdict."""

    id: str
    task: str
    user: str
    gold: str
    text: str
    """The answer, without a reasoning trace before it."""
    answer_tokens: int
    """All that the student wrote, its trace included, without the end token."""
    finish_reason: str
    """`length` also where a trace never ended."""
    value: str | None
    correct: bool
    format_ok: bool
    strategy: str
    """The strategy that the text shows, by its section labels."""
    reasoning: str = ""
    """The trace before the answer, without markers."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """What the answers to one task amount to."""

    task: str
    n: int
    accuracy: float
    format_ok: float
    """Share of answers with one well-formed final value."""
    answer_tokens: float
    """Mean number of generated tokens, those of a trace included, without the end token."""
    strategies: Mapping[str, int]
    """How many answers used which strategy."""


def held_out_questions(spec: HeldOutSpec, source: object) -> list[Question]:
    """The questions that `spec` names, else those of the training source; none where it has only training rows."""
    asking = spec.source if spec.source is not None else source
    return asking.questions(spec.questions_per_task) if isinstance(asking, AskingSource) else []


def answer_questions(
    generator: Generator, renderer: Renderer, questions: Sequence[Question], system: str, max_new_tokens: int
) -> list[Answered]:
    """Greedy answers in the order of `questions`, under the system message `system`."""
    prompts = [renderer.prompt(system, question.user) for question in questions]
    generations = generator.generate(prompts, max_new_tokens)
    answered = []
    for question, generation in zip(questions, generations, strict=True):
        said = split(renderer.decode(generation.ids))
        verdict = grade(question.gold, question.kind, said.answer)
        answered.append(
            Answered(
                id=question.id,
                task=question.task,
                user=question.user,
                gold=question.gold,
                text=said.answer,
                answer_tokens=len(generation.ids),
                finish_reason=generation.finish_reason if said.closed else "length",
                value=verdict.value,
                correct=verdict.correct,
                format_ok=verdict.format_ok,
                strategy=detect_strategy(said.answer),
                reasoning=said.reasoning,
            )
        )
    return answered


def summarise(answers: Sequence[Answered]) -> list[TaskScore]:
    """One score per task in order of appearance, then their unweighted mean."""
    by_task: dict[str, list[Answered]] = {}
    for answer in answers:
        by_task.setdefault(answer.task, []).append(answer)
    scores = [_score(task, group) for task, group in by_task.items()]
    if not scores:
        return []
    count = len(scores)
    mean = TaskScore(
        task=MEAN,
        n=sum(score.n for score in scores),
        accuracy=sum(score.accuracy for score in scores) / count,
        format_ok=sum(score.format_ok for score in scores) / count,
        answer_tokens=sum(score.answer_tokens for score in scores) / count,
        strategies=dict(Counter(answer.strategy for answer in answers)),
    )
    return [*scores, mean]


def _score(task: str, answers: Sequence[Answered]) -> TaskScore:
    n = len(answers)
    return TaskScore(
        task=task,
        n=n,
        accuracy=sum(answer.correct for answer in answers) / n,
        format_ok=sum(answer.format_ok for answer in answers) / n,
        answer_tokens=sum(answer.answer_tokens for answer in answers) / n,
        strategies=dict(Counter(answer.strategy for answer in answers)),
    )


def flat_metrics(scores_by_message: Mapping[str, Sequence[TaskScore]]) -> dict[str, float]:
    """`<benchmark>/<system message>/<metric>` to number; the benchmark is `held_out` or `held_out.<task>`."""
    flat: dict[str, float] = {}
    for message, scores in scores_by_message.items():
        for score in scores:
            benchmark = "held_out" if score.task == MEAN else f"held_out.{score.task}"
            for metric in ("accuracy", "format_ok", "n", "answer_tokens"):
                flat[f"{benchmark}/{message}/{metric}"] = getattr(score, metric)
    return flat
