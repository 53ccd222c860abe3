"""Held-out questions with a scripted student, so that every figure can be worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orca2.data.procedural import ProceduralSource
from orca2.errors import ConfigError
from orca2.evaluation.held_out import HeldOutSpec, answer_questions, flat_metrics, held_out_questions, summarise
from orca2.generation import Generation
from orca2.modelling.build import build_tokenizer
from orca2.records import Example, Question
from orca2.rendering.renderer import Renderer
from orca2.settings import build, compose_config

QUESTIONS = [
    Question(id="q1", task="sums", user="What is 1+1?", gold="2", kind="number"),
    Question(id="q2", task="sums", user="What is 2+2?", gold="4", kind="number"),
    Question(id="q3", task="names", user="Who?", gold="Ann", kind="word"),
]
SPEC = HeldOutSpec(name="x", messages={}, questions_per_task=1, max_new_tokens=1, samples=0, sample_every_steps=1)
TEXTS = ["Step 1: 1+1=2\nAnswer: 2", "It is 4", "Answer: Bob"]


class ScriptedGenerator:
    """Answers with fixed texts, and remembers what it was asked."""

    def __init__(self, renderer: Renderer, texts: Sequence[str]) -> None:
        self.renderer, self.texts = renderer, texts
        self.prompts: list[list[int]] = []

    def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Generation]:
        self.prompts = list(prompts)
        prompt = self.renderer.prompt("", "")
        return [Generation(self.renderer.example("", "", text).ids[len(prompt) : -1], "stop") for text in self.texts]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    config = compose_config("train")
    chat = build(config.format)
    return Renderer(build_tokenizer(build(config.model), chat), chat)


def test_figures_of_three_answers(renderer: Renderer) -> None:
    """Accuracy and format-OK are different things, and the mean weighs tasks, not questions."""
    generator = ScriptedGenerator(renderer, TEXTS)
    answers = answer_questions(generator, renderer, QUESTIONS, "Be careful.", 20)
    assert generator.prompts == [renderer.prompt("Be careful.", question.user) for question in QUESTIONS]
    assert [answer.text for answer in answers] == TEXTS
    assert [(answer.correct, answer.format_ok) for answer in answers] == [(True, True), (False, False), (False, True)]
    assert [answer.strategy for answer in answers] == ["step_by_step", "none", "direct"]
    sums, names, mean = summarise(answers)
    assert (sums.task, sums.n, sums.accuracy, sums.format_ok) == ("sums", 2, 0.5, 0.5)
    assert (names.task, names.n, names.accuracy, names.format_ok) == ("names", 1, 0.0, 1.0)
    assert (mean.task, mean.n, mean.accuracy, mean.format_ok) == ("mean", 3, 0.25, 0.75)


def test_metric_names(renderer: Renderer) -> None:
    """Sweeps and dashboards read `<benchmark>/<system message>/<metric>`."""
    answers = answer_questions(ScriptedGenerator(renderer, TEXTS), renderer, QUESTIONS, "", 20)
    flat = flat_metrics({"empty": summarise(answers)})
    assert flat["held_out/empty/accuracy"] == 0.25
    assert flat["held_out.sums/empty/n"] == 2
    assert len(flat) == 3 * 4


def test_no_training_row_asks_a_held_out_question() -> None:
    """A leak between the splits would make every table of this project worthless."""
    source = ProceduralSource(name="procedural", size=3000, seed=17, split="train", level=1)
    questions = held_out_questions(replace(SPEC, questions_per_task=20), source)
    assert len(questions) == 20 * len({question.task for question in questions}) >= 200
    strategy = build(compose_config("train").strategy)
    rows = [source.read(row, strategy) for row in range(source.size)]
    trained = {row.user for row in rows if isinstance(row, Example)}
    assert len(trained) > 2000
    assert trained.isdisjoint(question.user for question in questions)


def test_a_source_without_questions_has_none() -> None:
    """GSM8K's training file has no held-out part; a made-up one would be a lie."""
    assert held_out_questions(SPEC, object()) == []


def test_a_spec_can_name_where_its_questions_come_from() -> None:
    """A student of stored examples would otherwise be trained and never asked."""
    source = ProceduralSource(name="procedural", size=1, seed=17, split="train", level=1)
    assert held_out_questions(replace(SPEC, source=source), object()) == source.questions(SPEC.questions_per_task)


def test_senseless_numbers_are_refused() -> None:
    """No question at all would be reported as an accuracy of 0."""
    with pytest.raises(ConfigError, match="questions_per_task"):
        replace(SPEC, questions_per_task=0)
