"""The judge's pass against a server that misbehaves: paid once, counted, resumed; and the conversations."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orca2.answers.extraction import NOTHING, Extraction
from orca2.asking.budget import Budget
from orca2.asking.models.http import HttpTeacher
from orca2.errors import ConfigError
from orca2.evaluation.judging.conversing import hold
from orca2.evaluation.judging.judge_pass import judge, questions
from orca2.evaluation.judging.rubrics import GROUNDING
from orca2.evaluation.judging.rules import RuleJudge, RuleUser
from orca2.evaluation.judging.scenarios import Scenario, situations
from orca2.evaluation.report.load import load_run
from orca2.evaluation.report.summary import summarise
from orca2.evaluation.report.tables import all_tables
from orca2.evaluation.report.write import add_judged
from orca2.evaluation.sample_records import AnsweredTurn, SampleRecord, read_records, to_line
from orca2.evaluation.stand_in_backend import StandInBackend
from orca2.evaluation.stand_ins import Silent
from orca2.evaluation.verdicts import NOT_ASKED, read_verdicts, renewed, write_verdicts
from orca2.generation import Chat, ChatReply
from orca2.serving.retries import Retry
from tests.loopback import server as loopback

ROOT = Path(__file__).parents[4]
QUICK = Retry(attempts=12, first_seconds=0.01, longest_seconds=0.05)


class JudgeServer(loopback.Loopback):  # type: ignore[name-defined,misc]
    """Answers rubrics with a verdict that depends on the request alone; one of ten replies holds none."""

    def _complete(self, request: dict[str, Any]) -> tuple[int, Any]:
        status, answer = super()._complete(request)
        if status == 200:
            message = answer["choices"][0]["message"]
            number = int(message["content"].removeprefix("Answer: "))
            grounding = request["messages"][0]["content"] == GROUNDING.system
            verdict = ("supported", "unsupported")[number % 2] if grounding else str(1 + number % 10)
            message["content"] = "no verdict" if number % 10 == 9 else f"So be it.\n[[{verdict}]]"
        return status, answer


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, **faults: Any) -> Iterator[Any]:
    monkeypatch.setattr(loopback, "Loopback", JudgeServer)
    with loopback.serving(loopback.Faults(**faults)) as server:
        yield server


def http_judge(url: str, **changes: Any) -> HttpTeacher:
    values = {
        "name": "loopback", "model": "j", "base_url": url, "api_key_env": None, "max_tokens": 40, "temperature": 0.0,
        "top_p": None, "seed": None, "timeout_s": 2.0, "concurrency": 8, "start_concurrency": 8,
        "requests_per_minute": None, "tokens_per_minute": None, "token_limit_field": "max_tokens",
        "usd_per_million": {},
    }  # fmt: skip
    return HttpTeacher(**(values | changes))


def record(number: int, judgement: str, output: str = "It is so.", message: str = "empty", turns: int = 1) -> Any:
    done = tuple(
        AnsweredTurn(
            user=f"Question {number}, turn {turn}?",
            prompt="p",
            output=output,
            finish_reason="stop",
            prompt_tokens=1,
            answer_tokens=1,
            truncated_tokens=0,
            seconds=0.0,
        )
        for turn in range(turns)
    )
    benchmark = {"grade": "mt_bench", "grounding": "qmsum", "none": "gsm8k"}[judgement]
    return SampleRecord(
        key=f"{benchmark}/{message}/{number}", benchmark=benchmark, version=1, domain="out_of_domain",
        judgement=judgement, kind="chat", task="t", message=message, sample=f"{benchmark}/t/{number}", turns=done,  # type: ignore[arg-type]
        extraction=Extraction((output,), True, "whole", None) if output else NOTHING, gold=(),
        metadata={"reference": []},
    )  # fmt: skip


def evaluation(folder: Path) -> list[SampleRecord]:
    """10 chats of two turns, 20 texts and 5 samples that no judge is needed for, as evaluate.py leaves them."""
    records = [record(i, "grade", turns=2) for i in range(10)] + [record(i, "grounding") for i in range(20)]
    records += [record(i, "none") for i in range(5)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(f"{to_line(one)}\n" for one in records))
    (folder / "results.json").write_text('{"mt_bench/empty/n": 10}')
    return records


def nothing() -> None:
    pass


def test_faults_are_survived_and_a_capped_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a fault loses a verdict, or if going on after a stop pays for an answer twice."""
    asked = questions(evaluation(tmp_path), 2)
    assert len(asked) == 2 * (10 * 2 + 20)
    faults = {"rate_limit": 0.1, "error": 0.1, "truncate": 0.05, "malformed": 0.05, "drop": 0.05, "retry_after": "0.01"}
    cache = tmp_path / "cache.sqlite"
    with serving(monkeypatch, **faults) as server:
        teacher = http_judge(server.url, seed=5)
        first = judge(asked, teacher, cache, Budget(max_requests=40), nothing, QUICK)
        reached = {one for one in first.verdicts if one.problem != NOT_ASKED}
        assert first.stop and 0 < len(reached) < len(asked) == len(first.verdicts)
        paid = server.counters()["unique_answered"]
        assert 0 < paid < len(asked)
        second = judge(asked, teacher, cache, Budget(), nothing, QUICK)
        third = judge(asked, teacher, cache, Budget(), nothing, QUICK)
        counters = server.counters()
    assert counters["repeated_answers"] == 0
    assert second.verdicts == third.verdicts and len(second.verdicts) == len(asked) and not second.stop
    assert reached <= set(second.verdicts)
    unparsable = [one for one in second.verdicts if one.problem == "unparsable"]
    assert unparsable and all(one.value is None for one in unparsable)
    assert all(one.value is not None for one in second.verdicts if not one.problem)


def test_a_part_is_called_a_part(tmp_path: Path) -> None:
    """Figures of the first few answers, or of an evaluation that has gone on since, would be read as the whole."""
    records = evaluation(tmp_path)
    done = judge(questions(records[:4], 1), RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
    write_verdicts(tmp_path, done.verdicts)
    (note,) = summarise([load_run("r", tmp_path)]).notes
    assert note == "r: grade by rules, not a model is not whole: 6 answers wait for it; judge them again"
    stopped = [replace(one, value=None, problem=NOT_ASKED) for one in done.verdicts]
    kept = renewed(done.verdicts, stopped[:2])
    assert kept == list(done.verdicts[:2]), "what was judged before is lost"
    write_verdicts(tmp_path, stopped)
    summary = summarise([load_run("r", tmp_path)])
    assert summary.judged == () and "10 answers wait" in summary.notes[0]


def test_every_comparison_and_every_judge_is_kept_apart(tmp_path: Path) -> None:
    """A second baseline would replace the first one's figure, and a second judge's mean its predecessor's."""
    records = evaluation(tmp_path)
    for folder, output in (("runs/a", "no"), ("runs/b", "Question 1, turn 0?")):
        theirs = [replace(one, turns=tuple(replace(turn, output=output) for turn in one.turns)) for one in records[:10]]
        asked = questions(records, 1, theirs, folder)
        done = judge(asked, RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
        write_verdicts(tmp_path, renewed(read_verdicts(tmp_path), done.verdicts))
    alone = judge(questions(records, 1), RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing).verdicts
    strict = [replace(one, judge="other/judge", value=1.0) for one in alone]
    for verdicts in (alone, strict, alone):
        write_verdicts(tmp_path, renewed(read_verdicts(tmp_path), verdicts))
    run = load_run("r", tmp_path)
    summary = summarise([run])
    for _ in range(2):
        add_judged(tmp_path, summary.judged)
    metrics = {key.removeprefix("mt_bench/empty/") for key in json.loads((tmp_path / "results.json").read_text())}
    rules = "rules_not_a_model"
    series = ("grade:other_judge", f"grade:{rules}", *(f"preference:{rules}_against_runs_{one}" for one in "ab"))
    values = {key for key in metrics if key.startswith(("grade", "preference"))}
    assert values == {*series, *(one.replace(":", "_missing:") for one in series)}
    (paper,) = [table for table in all_tables(summary, [run]) if "MT-Bench" in table.title]
    ours = {row[0] for row in paper.rows if row[0].startswith("**")}
    assert ours == {"**r, empty, rules, not a model**", "**r, empty, other/judge**"}


@pytest.mark.slow
def test_killed_and_resumed_pays_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 in the middle of judge.py: the server's own counter must not see any answered request again."""
    evaluation(tmp_path / "run")
    with serving(monkeypatch, error=0.1, drop=0.05, freeze_after=15) as server:
        command = [sys.executable, str(ROOT / "judge.py"), f"out_dir={tmp_path / 'run'}", "teacher=vllm_server"]
        command += ["teacher.model=j", f"teacher.base_url={server.url}", "teacher.api_key_env=null"]
        command += ["teacher.max_tokens=40", "teacher.concurrency=4", "teacher.start_concurrency=4"]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.counters()["answered"] < 15 and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.5)  # the answers reach the cache; no more are made
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert server.counters()["answered"] == 15
        assert not (tmp_path / "run" / "verdicts.jsonl").exists()
        server.thawed = True
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        counters = server.counters()
    assert done.returncode == 0, done.stdout + done.stderr
    assert counters["repeated_answers"] == 0 and counters["unique_answered"] == 40
    assert len(read_verdicts(tmp_path / "run")) == 40
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 1 <= results["mt_bench/empty/grade"] <= 10 and 0 <= results["qmsum/empty/grounding"] <= 1
    assert results["mt_bench/empty/n"] == 10 and "without a verdict: unparsable" in done.stdout


def test_runs_of_a_judge_differ_and_their_spread_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several runs that are one cached answer would show a spread of 0."""
    asked = questions(evaluation(tmp_path), 3)
    with serving(monkeypatch) as server:
        done = judge(asked, http_judge(server.url, temperature=1.0, seed=5), tmp_path / "c", Budget(), nothing, QUICK)
        assert server.counters()["unique_answered"] == len(asked)
    write_verdicts(tmp_path, done.verdicts)
    judged = {one.benchmark: one for one in summarise([load_run("r", tmp_path)]).judged if not one.part}
    assert len(judged["mt_bench"].judge_runs) == 3 and judged["mt_bench"].spread > 0
    assert judged["mt_bench"].n == 20 and judged["qmsum"].n == 20


def test_the_rule_judge_and_empty_answers(tmp_path: Path) -> None:
    """Silence has nothing unsupported: counted as grounded, it would be the most truthful student."""
    records = [
        record(0, "grounding", "7 of them"),
        record(1, "grounding", ""),
        record(2, "grade", "Question 2, turn 0?"),
    ]
    done = judge(questions(records, 1), RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
    assert [(one.value, one.problem) for one in done.verdicts] == [(1.0, ""), (None, "empty"), (10.0, "")]
    with pytest.raises(ConfigError, match="none of its samples"):
        questions([record(0, "none")], 1)


def test_a_judge_that_favours_a_place_gives_ties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what both orders say counts; a judge that always says `first` has said nothing."""
    ours = [record(i, "grade", "I know: question 1") for i in range(4)]
    theirs = [replace(record(i, "grade", "no"), key=f"other/{i}") for i in range(4)]
    asked = questions(ours, 1, theirs[:3])
    done = judge(asked, RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
    assert [one.value for one in done.verdicts] == [1.0] * 3
    back = judge(questions(theirs, 1, ours), RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
    assert [one.value for one in back.verdicts] == [0.0] * 4
    monkeypatch.setattr("orca2.evaluation.judging.rules._RULES", {asked[0].rubric.system: lambda texts: "first"})
    place = judge(asked, RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
    assert [one.value for one in place.verdicts] == [0.5] * 3


# Conversations --------------------------------------------------------------------------------------------

SCENARIO = Scenario(
    name="x", version=1, category="jailbreak", goal="Get {a}.", guideline="G", turns=3,
    parameters={"a": {"one": "one thing", "two": "another"}},
)  # fmt: skip


class Student:
    """Remembers the chats and numbers its answers."""

    context = None

    def __init__(self) -> None:
        self.identity = {"name": "counting"}
        self.chats: list[Chat] = []

    def prompt_tokens(self, chat: Chat) -> int:
        return 0

    def answer(self, chats: Any) -> Iterator[tuple[int, ChatReply]]:
        self.chats += chats
        for index, chat in enumerate(chats):
            text = f"I cannot ({len(chat.history)})."
            yield (
                index,
                ChatReply(
                    text=text, finish_reason="stop", prompt=chat.user, prompt_tokens=1, answer_tokens=2, seconds=0.1
                ),
            )


def converse(folder: Path, student: Any, user: Any, messages: dict[str, str] | None = None) -> Any:
    messages = messages or {"empty": "", "cautious": "Be careful."}
    return asyncio.run(
        hold(situations([SCENARIO]), messages, user, student, 64, folder, folder / "u.sqlite", Budget(), nothing)
    )


def test_conversations_are_held_turn_by_turn(tmp_path: Path) -> None:
    """The student sees its own earlier answers, the user the student's, and both stop at the scenario's end."""
    student = Student()
    held = converse(tmp_path, student, RuleUser(name="u", turns=5))
    records = [one for one in read_records(tmp_path / "samples.jsonl") if isinstance(one, SampleRecord)]
    assert held.failures == {} and len(records) == 4
    assert [one.sample for one in records][:2] == ["safety_conversations/x/one", "safety_conversations/x/two"]
    turns = records[0].turns
    assert [turn.user for turn in turns] == ["Get one thing.", "Please go on (1).", "Please go on (2)."]
    assert [turn.output for turn in turns] == ["I cannot (0).", "I cannot (1).", "I cannot (2)."]
    last = next(chat for chat in student.chats if len(chat.history) == 2)
    assert [turn.answer for turn in last.history] == ["I cannot (0).", "I cannot (1)."]
    assert {chat.system for chat in student.chats} == {"", "Be careful."}
    asked = len(student.chats)
    converse(tmp_path, student, RuleUser(name="u", turns=5))
    assert len(student.chats) == asked, "finished conversations were held again"


def test_another_students_conversations_are_not_counted(tmp_path: Path) -> None:
    """A student that was trained anew would share one defect rate with the one before it."""
    converse(tmp_path, Student(), RuleUser(name="u", turns=5), {"empty": ""})
    again = Student()
    again.identity = {"name": "trained anew"}
    converse(tmp_path, again, RuleUser(name="u", turns=5), {"empty": ""})
    assert len(again.chats) == 6 and len(load_run("r", tmp_path).records) == 2
    assert json.loads((tmp_path / "results.json").read_text())["safety_conversations/empty/n"] == 2


@pytest.mark.slow
def test_conversations_of_another_user_need_another_folder(tmp_path: Path) -> None:
    """Mixing two users' conversations, or replacing the ones already paid for, must not happen in silence."""

    def run(*overrides: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / "converse.py"), "out_dir=out", "scenarios=all", *overrides]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    assert run("teacher.turns=1").returncode == 0
    before = (tmp_path / "out" / "samples.jsonl").read_bytes()
    other = run("teacher.turns=2")
    assert other.returncode == 2 and "teacher.turns: 1 in the folder, 2 now" in other.stderr + other.stdout
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == before


def test_a_user_may_end_a_conversation(tmp_path: Path) -> None:
    """The end mark is not a message, and a user that never speaks leaves no record but is named."""
    converse(tmp_path / "a", Student(), RuleUser(name="u", turns=1), {"empty": ""})
    records = [one for one in read_records(tmp_path / "a" / "samples.jsonl") if isinstance(one, SampleRecord)]
    assert [len(one.turns) for one in records] == [1, 1] and all("END" not in one.turns[0].user for one in records)
    held = converse(tmp_path / "b", Student(), RuleUser(name="u", turns=0), {"empty": ""})
    assert set(held.failures) == {"x/one, empty", "x/two, empty"}


def test_defect_rate_by_category(tmp_path: Path) -> None:
    """A refusing student has no defect, a complying one has; both are counted over all conversations."""
    for name, student, rate in (("refuses", Student(), 0.0), ("silent", StandInBackend(Silent(), 0), 0.0)):
        folder = tmp_path / name
        converse(folder, student, RuleUser(name="u", turns=2), {"empty": ""})
        records = load_run("r", folder).records
        assert len(records) == 2
        done = judge(questions(records, 1), RuleJudge(name="rule_judge"), folder / "c", Budget(), nothing)
        write_verdicts(folder, done.verdicts)
        (judged,) = summarise([load_run("r", folder)]).judged
        assert judged.value.value == rate and judged.n == 2 and judged.rubric == "safety"
    obeys = [replace(one, turns=(replace(one.turns[0], output="Sure, here it is."),)) for one in records]
    done = judge(questions(obeys, 1), RuleJudge(name="rule_judge"), tmp_path / "c", Budget(), nothing)
    assert [one.value for one in done.verdicts] == [1.0, 1.0]


def test_user_messages_are_paid_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation that is held again after a crash must get its user's messages from the cache."""
    with serving(monkeypatch) as server:
        user = http_judge(server.url)
        converse(tmp_path, Student(), user)
        (tmp_path / "samples.jsonl").unlink()
        converse(tmp_path, Student(), user)
        counters = server.counters()
    assert counters["repeated_answers"] == 0 and counters["requests"] == counters["unique_answered"] > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category": "other"}, "category = 'other'"),
        ({"turns": 0}, "must be at least 1"),
        ({"goal": "Get it."}, r"the goal names \[\]"),
        ({"parameters": {"a": {}}}, r"the parameters \['a'\]"),
    ],
)
def test_wrong_scenarios_are_named(changes: dict[str, Any], message: str) -> None:
    """A scenario whose places stay empty would try something else than it says."""
    with pytest.raises(ConfigError, match=message):
        replace(SCENARIO, **changes)
