"""Answers behind reasoning traces are read as if the trace were not there; a trace without an end is not an answer."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pytest

from orca2.asking.budget import Budget
from orca2.asking.cache import Cache
from orca2.asking.requests import Answer, Request
from orca2.evaluation.benchmark import Sample
from orca2.evaluation.held_out import answer_questions, summarise
from orca2.evaluation.judging.judge_pass import judge, questions
from orca2.evaluation.judging.rules import RuleJudge
from orca2.evaluation.lm_eval_tasks import process_results
from orca2.evaluation.runner import answer_missing, expand, merge
from orca2.evaluation.sample_plan import SamplePlan, make_plan
from orca2.evaluation.sample_records import AnsweredTurn, SampleRecord, from_line, to_line
from orca2.generation import Chat, Generation
from orca2.generation.continuous import Finished
from orca2.generation.tokens import TokenBackend
from orca2.modelling.build import build_tokenizer
from orca2.processes.ranks import ALONE
from orca2.records import Question, Turn
from orca2.rendering.renderer import Renderer
from orca2.serving.outcomes import Reply
from orca2.settings import build, compose_config
from tests.fake_reasoning_model import CUT_OFF, FORMS, TRACE, FakeReasoningBackend, FakeReasoningModel

OPTIONS = {"A": "hotel", "B": "music store", "C": "blue", "D": "bird nest"}


def samples_of(benchmark: str, count: int = 60) -> list[Sample]:
    if benchmark == "gsm8k":
        more: dict[str, object] = {"kind": "number", "gold": (("1234",),)}
    elif benchmark == "arc_easy":
        more = {"kind": "choice", "gold": (("D",),), "choices": OPTIONS}
    else:
        more = {"kind": "chat", "gold": (), "metadata": {"reference": []}}
    turns = ("Which one?", "And why?") if benchmark == "mt_bench" else ("Which one?",)
    common = {"benchmark": benchmark, "task": "x", "turns": turns}
    return [Sample(id=f"{benchmark}/x/{i}", **(common | more)) for i in range(count)]  # type: ignore[arg-type]


def evaluated(benchmark: str, backend: FakeReasoningBackend, folder: Path) -> list[SampleRecord]:
    one = build(compose_config("evaluate", [f"benchmark={benchmark}"]).benchmark)
    if benchmark == "procedural":
        plan = make_plan({one.name: replace(one, questions_per_family=9)}, None, None, 0, False)
    else:
        planned = make_plan({"procedural": build(compose_config("evaluate", ["benchmark=procedural"]).benchmark)},
                            None, 1, 0, False).benchmarks["procedural"]  # fmt: skip
        plan = SamplePlan(
            benchmarks={one.name: replace(planned, benchmark=one, samples=tuple(samples_of(benchmark)))}, absent={}
        )
    asked = expand(plan, {"empty": ""}, backend.identity)
    answer_missing(asked, {}, backend, folder, ALONE, lambda: None)
    return merge(asked, folder)


@pytest.mark.parametrize("benchmark", ["gsm8k", "arc_easy", "procedural"])
def test_right_answers_behind_traces_score_all(benchmark: str, tmp_path: Path) -> None:
    """20 of 20 right answers scored 0 %: the candidates of the trace were read, or stood against the answer."""
    records = evaluated(benchmark, FakeReasoningModel().backend(), tmp_path)
    assert len(records) >= 2 * len(FORMS)
    assert [record.sample for record in records if record.scores["accuracy"] != 1 or not record.extraction.ok] == []
    for record in records:
        turn = record.turns[0]
        assert turn.reasoning == TRACE and TRACE not in turn.output
        assert turn.raw == "" or (TRACE in turn.raw and turn.output in turn.raw)
        assert turn.answer_tokens >= len(TRACE.split())
        assert from_line(to_line(record)) == record


def test_a_trace_without_an_end_is_not_an_answer(tmp_path: Path) -> None:
    """The candidate `Answer: 7` of half a trace would be scored."""
    for record in evaluated("gsm8k", FakeReasoningModel((CUT_OFF,)).backend(), tmp_path):
        turn = record.turns[0]
        assert (turn.output, turn.finish_reason, turn.reasoning) == ("", "length", TRACE)
        assert not record.extraction.ok and record.scores["accuracy"] == 0 and record.truncated


def test_old_records_are_read() -> None:
    """A resumed evaluation would ask again what was answered before records knew of traces."""
    turn = {"user": "u", "prompt": "p", "output": "Answer: 1", "finish_reason": "stop", "prompt_tokens": 1,
            "answer_tokens": 2, "truncated_tokens": 0, "seconds": 0.0}  # fmt: skip
    read = AnsweredTurn(**turn)  # type: ignore[arg-type]
    assert (read.reasoning, read.raw) == ("", "")


def test_later_turns_are_asked_without_traces(tmp_path: Path) -> None:
    """Reasoning models are trained on histories without traces, which also fill the context."""
    backend = FakeReasoningModel().backend()
    records = evaluated("mt_bench", backend, tmp_path)
    second = [chat for chat in backend.chats if chat.history]
    assert len(second) == len(records) and all(TRACE not in turn.answer for chat in second for turn in chat.history)
    assert all(turn.reasoning == TRACE for record in records for turn in record.turns)


@dataclass(frozen=True, kw_only=True)
class FakeReasoningJudge(RuleJudge):
    """The rule judge, wrapped: its traces weigh other grades first."""

    fake: FakeReasoningModel = field(default_factory=FakeReasoningModel)

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        async with RuleJudge(name=self.name).open(cache, runs) as answer:
            asked = 0

            async def wrapped(request: Request) -> object:
                nonlocal asked
                reply = await answer(request)
                assert isinstance(reply, Reply)
                text, reasoning = self.fake.says(reply.text, asked)
                asked += 1
                weighed = "A [[1]]? Rather [[2]] or [[supported]].\n"
                return replace(reply, text=text.replace(TRACE, weighed + TRACE), reasoning=reasoning)

            yield wrapped  # type: ignore[misc]


def test_a_judge_that_reasons_gives_the_same_verdicts(tmp_path: Path) -> None:
    """A judge with a trace gave no verdict: several `[[…]]` stood in its text."""
    asked = questions(evaluated("mt_bench", FakeReasoningModel().backend(), tmp_path / "e"), 1)
    assert len(asked) > 2 * len(FORMS) and not any(TRACE in text for one in asked for text in one.texts)
    plain = judge(asked, RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), lambda: None)
    traced = judge(asked, FakeReasoningJudge(name="rule_judge"), tmp_path / "d", Budget(), lambda: None)
    assert [one.value for one in traced.verdicts] == [one.value for one in plain.verdicts]
    assert not any(one.problem or TRACE in one.text for one in traced.verdicts)


def test_scores_within_lm_eval(tmp_path: Path) -> None:
    """The same answers would have another score in lm-eval than here."""
    sample = samples_of("gsm8k", 1)[0]
    document = {"sample": json.dumps({**{key: getattr(sample, key) for key in sample.__dataclass_fields__}})}
    for number in range(len(FORMS)):
        text, _ = FakeReasoningModel().says("Answer: 1234", number)
        assert process_results(document, [text])["accuracy"] == 1, text


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    config = compose_config("train")
    chat = build(config.format)
    return Renderer(build_tokenizer(build(config.model), chat), chat)


def ids_of(renderer: Renderer, text: str) -> list[int]:
    return renderer.example("", "", text).ids[len(renderer.prompt("", "")) : -1]


def test_held_out_questions_of_a_training(renderer: Renderer) -> None:
    """A student of `thinking=keep` would look like one that has learnt nothing."""

    class Generator:
        """Every form in turn, then a trace without an end."""

        def generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Generation]:
            fake = FakeReasoningModel(FORMS[1:])
            texts = [fake.says("Answer: 1234", number)[0] for number in range(len(prompts) - 1)]
            return [Generation(ids_of(renderer, text), "stop") for text in [*texts, CUT_OFF.format(trace=TRACE)]]

    asked = [Question(id=f"q{i}", task="t", user="u", gold="1234", kind="number") for i in range(len(FORMS))]
    *whole, cut = answer_questions(Generator(), renderer, asked, "", 99)
    assert all(one.correct and one.format_ok and (one.text, one.reasoning) == ("Answer: 1234", TRACE) for one in whole)
    assert (cut.correct, cut.format_ok, cut.finish_reason, cut.text) == (False, False, "length", "")
    assert summarise(whole)[0].answer_tokens > len(TRACE.split())


def test_a_prompt_that_opens_the_trace(renderer: Renderer) -> None:
    """Templates as R1's open the trace; an answer that met its limit then shows no marker at all."""

    class Opened:
        identity: Mapping[str, str] = MappingProxyType({})

        def prompt(self, system: str, user: str, history: Sequence[Turn] = ()) -> list[int]:
            return ids_of(renderer, f"{user}<think>\n")

        decode, decode_marked = renderer.decode, renderer.decode

    def stream(waiting: Sequence[object]) -> list[Finished]:
        texts = ["Answer: 7", "Answer: 7\n</think>\n\nAnswer: 8"]
        return [Finished(i, Generation(ids_of(renderer, text), "length"), 0.0) for i, text in enumerate(texts)]

    backend = TokenBackend(Opened(), stream, 1000, {})  # type: ignore[arg-type]
    chat = Chat(system="", user="u", max_new_tokens=99)
    turns = [AnsweredTurn.of(chat, reply) for _, reply in backend.answer([chat, chat])]
    assert [(turn.output, turn.reasoning) for turn in turns] == [("", "Answer: 7"), ("Answer: 8", "Answer: 7")]
