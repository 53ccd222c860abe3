"""Records that survive crashes, the rule for long prompts, turns, drawn samples, and ranks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orca2.erasing import FixedErasing
from orca2.errors import CheckpointError, ConfigError, DataError
from orca2.evaluation.benchmark import CUT_MARK, Sample
from orca2.evaluation.context import fit_to_context
from orca2.evaluation.messages import SystemMessages
from orca2.evaluation.report.load import load_run
from orca2.evaluation.report.write import add_judged, write_report
from orca2.evaluation.results_folder import finish
from orca2.evaluation.runner import answer_missing, expand, merge, stored_records
from orca2.evaluation.sample_plan import BenchmarkSamples, SamplePlan, draw, make_plan
from orca2.evaluation.sample_records import RecordWriter, SampleRecord, from_line, read_records, to_line
from orca2.evaluation.verdicts import JudgeVerdict, write_verdicts
from orca2.generation import Chat, ChatReply
from orca2.processes.ranks import ALONE, Ranks
from orca2.settings import build, compose_config


class Words:
    """A backend whose tokens are words: it repeats the user's first word, or says what it is told to."""

    context: int | None = 100
    identity: Mapping[str, str] = {"backend": "words"}

    def __init__(self, says: str | None = None, reason: str = "stop") -> None:
        self.says, self.reason, self.asked = says, reason, list[Chat]()

    def prompt_tokens(self, chat: Chat) -> int:
        return len(f"{chat.system} {chat.user}".split())

    def answer(self, chats: Sequence[Chat]) -> Iterator[tuple[int, ChatReply]]:
        for index, chat in reversed(list(enumerate(chats))):
            self.asked.append(chat)
            reply = ChatReply(
                text=self.says or chat.user.split()[0],
                finish_reason=self.reason,  # type: ignore[arg-type]
                prompt=chat.user,
                prompt_tokens=self.prompt_tokens(chat),
                answer_tokens=1,
                seconds=0.0,
            )
            yield index, reply


def plan_of(samples: Sequence[Sample], benchmark: str) -> SamplePlan:
    one = build(compose_config("evaluate", [f"benchmark={benchmark}"]).benchmark)
    planned = BenchmarkSamples(benchmark=one, samples=tuple(samples), rejected=(), rows=len(samples))
    return SamplePlan(benchmarks={one.name: planned}, absent={})


def number(index: int, **more: object) -> Sample:
    fields = {"id": f"gsm8k/x/{index}", "benchmark": "gsm8k", "task": "x", "kind": "number", "gold": (("12",),)}
    return Sample(**(fields | {"turns": (f"w{index} and more",)} | more))  # type: ignore[arg-type]


def records(plan: SamplePlan, backend: Words, folder: Path) -> list[SampleRecord]:
    asked = expand(plan, {"empty": ""}, backend.identity)
    answer_missing(asked, stored_records(folder)[0], backend, folder, ALONE, lambda: None)
    return merge(asked, folder)


def test_a_torn_or_changed_line_is_asked_again(tmp_path: Path) -> None:
    """A crash in mid-line, or an edited score, must cost one question and never be believed."""
    plan = plan_of([number(i) for i in range(3)], "gsm8k")
    whole = records(plan, Words("Answer: 12"), tmp_path)
    assert [record.scores["accuracy"] for record in whole] == [1, 1, 1]
    assert from_line(to_line(whole[0])) == whole[0]
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    changed = lines[1].replace('"accuracy": 1.0', '"accuracy": 0.5')
    (tmp_path / "samples.jsonl").write_text(f"{lines[0]}\n{changed}\n{lines[2][:50]}")
    found, wrong = stored_records(tmp_path)
    assert set(found) == {whole[0].key} and len(wrong) == 1 and "line 2" in wrong[0]
    again = Words("Answer: 12")
    assert records(plan, again, tmp_path) == whole
    assert {chat.user for chat in again.asked} == {"w1 and more", "w2 and more"}


def test_records_of_another_version_are_one_error(tmp_path: Path) -> None:
    """A report would silently lack benchmarks, or warn a thousand times, where a kind has another name now."""
    (record,) = records(plan_of([number(0)], "gsm8k"), Words(), tmp_path)
    old = to_line(replace(record, kind="last_word"))  # type: ignore[arg-type]
    (tmp_path / "samples.jsonl").write_text(f"{old}\n{old}\n")
    with pytest.raises(CheckpointError, match=r"samples.jsonl, line 1: .*'last_word'.*evaluate into another one"):
        stored_records(tmp_path)


def test_a_writer_cuts_off_what_a_crash_tore(tmp_path: Path) -> None:
    """Appending to half a line would lose the next record too; two writers would mix their lines."""
    record = records(plan_of([number(0)], "gsm8k"), Words(), tmp_path)[0]
    path = tmp_path / "shards" / "0.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(to_line(record) + '\n{"key": "to')
    with RecordWriter(path) as writer:
        writer.write(replace(record, key="second"))
        with pytest.raises(CheckpointError, match="another process"):
            RecordWriter(path)
    assert [one.key for one in read_records(path) if isinstance(one, SampleRecord)] == [record.key, "second"]


def test_nothing_is_summed_up_that_was_not_answered(tmp_path: Path) -> None:
    """A report over what happens to be there would be wrong without a word."""
    plan = plan_of([number(0), number(1)], "gsm8k")
    asked = expand(plan, {"empty": ""}, Words.identity)
    answer_missing(asked, (), Words(), tmp_path, Ranks(rank=1, world=2), lambda: None)
    with pytest.raises(DataError, match="1 samples have no record, such as 'gsm8k/x/0'"):
        merge(asked, tmp_path)


def test_keys_follow_what_is_asked() -> None:
    """An answer must not be taken for one under another message, version, student or wording."""
    plan = plan_of([number(0)], "gsm8k")
    other = plan_of([number(0, turns=("another question",))], "gsm8k")
    keys = [
        expand(plan, {"empty": ""}, {})[0].key,
        expand(plan, {"empty": "Be brief."}, {})[0].key,
        expand(plan, {"empty": ""}, {"student": "x"})[0].key,
        expand(other, {"empty": ""}, {})[0].key,
    ]
    assert len(set(keys)) == 4


def test_later_turns_see_the_answers_before(tmp_path: Path) -> None:
    """MT-Bench's second question is meaningless without the first answer."""
    sample = Sample(id="mt_bench/a/1", benchmark="mt_bench", task="a", turns=("one q", "two q"), kind="chat", gold=())
    backend = Words()
    (record,) = records(plan_of([sample], "mt_bench"), backend, tmp_path)
    assert [turn.output for turn in record.turns] == ["one", "two"]
    assert [(turn.user, turn.answer) for turn in backend.asked[1].history] == [("one q", "one")]


def test_what_was_judged_early_survives_the_end(tmp_path: Path) -> None:
    """Judging half an evaluation would make it look finished, and finishing it would drop the judge's figures."""
    sample = Sample(id="mt_bench/a/1", benchmark="mt_bench", task="a", turns=("one q",), kind="chat", gold=())
    plan = plan_of([sample], "mt_bench")
    asked = expand(plan, {"empty": ""}, Words.identity)
    answer_missing(asked, (), Words(), tmp_path, ALONE, lambda: None)
    verdict = JudgeVerdict(
        key=asked[0].key, benchmark="mt_bench", task="a", message="empty", sample=sample.id, rubric="grade",
        rubric_version=1, judge="j", judge_run=0, turn=0, value=7.0,
    )  # fmt: skip
    write_verdicts(tmp_path, [verdict])
    early = write_report([load_run("r", tmp_path)], tmp_path)
    add_judged(tmp_path, early.judged)
    assert early.judged[0].value.value == 7.0 and any("not finished" in note for note in early.notes)
    assert not (tmp_path / "results.json").exists()
    finish(plan, asked, tmp_path, "r")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["mt_bench/empty/grade"] == 7.0 and results["mt_bench/empty/n"] == 1
    assert "not finished" not in (tmp_path / "report.md").read_text()


def test_long_documents_lose_their_middle_and_it_is_counted() -> None:
    """What was cut must be known, the question must survive, and the answer must have room."""
    words = " ".join(f"d{i}" for i in range(300))
    text = f"Read: {words} Question: why?"
    sample = Sample(
        id="qmsum/a/1",
        benchmark="qmsum",
        task="a",
        turns=(text,),
        kind="text",
        gold=(("x",),),
        document=(6, 6 + len(words)),
    )

    def chat(one: Sample) -> Chat:
        return Chat(system="", user=one.turns[0], max_new_tokens=30)

    backend = Words()
    asked, lost = fit_to_context(sample, chat, backend, cut=True)
    kept = backend.prompt_tokens(asked)
    assert kept <= 70 and kept >= 66 and lost == backend.prompt_tokens(chat(sample)) - kept
    assert asked.user.startswith("Read: d0 ") and asked.user.endswith("d299 Question: why?") and CUT_MARK in asked.user
    assert fit_to_context(replace(sample, document=None), chat, backend, cut=True) == (chat(sample), 0)
    backend.context = None
    assert fit_to_context(sample, chat, backend, cut=True) == (chat(sample), 0)


@pytest.mark.parametrize(("says", "reason", "ok"), [("5. Answer: 12", "length", False), ("Answer: 12", "stop", True)])
def test_a_number_at_the_limit_is_not_believed(says: str, reason: str, ok: bool, tmp_path: Path) -> None:
    """`Answer: 12` may be the beginning of 125."""
    (record,) = records(plan_of([number(0)], "gsm8k"), Words(says, reason), tmp_path)
    assert record.extraction.ok is ok and record.scores == {"accuracy": float(ok)}
    assert record.extraction.rule == ("marker" if ok else "cut_off") and record.truncated is not ok


def test_a_smaller_draw_is_part_of_a_larger_one() -> None:
    """Limits must not depend on the order of rows, and 100 samples must extend 10."""
    samples = [number(i) for i in range(50)]
    few, more = ({sample.id for sample in draw(samples, limit, 3)} for limit in (10, 30))
    assert len(few) == 10 and few < more
    assert {sample.id for sample in draw(samples[::-1], 10, 3)} == few
    assert {sample.id for sample in draw(samples, 10, 4)} != few
    assert draw(samples, None, 3) == tuple(samples)


def test_a_missing_scorer_is_found_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ROUGE is imported when the first answer is scored, which may be after hours of other benchmarks."""
    summaries = build(compose_config("evaluate", ["benchmark=qmsum"]).benchmark)
    monkeypatch.setattr("orca2.evaluation.metrics.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"qmsum: the score needs rouge_score, sacrebleu, .*\[eval-text\]"):
        make_plan({"qmsum": summaries}, tmp_path, None, 0, allow_missing=True)


def test_records_are_plain_json(tmp_path: Path) -> None:
    """Notebooks and judges read the lines without this project."""
    record = records(plan_of([number(0)], "gsm8k"), Words("Answer: 12"), tmp_path)[0]
    line = json.loads(to_line(record))
    assert line["turns"][0]["output"] == "Answer: 12" and line["extraction"]["value"] == ["12"]
    assert line["gold"] == [["12"]] and line["scores"] == {"accuracy": 1.0}


def test_two_messages_of_one_text_are_refused() -> None:
    """Fails if their samples are merged: one message would be counted twice and the other not at all."""
    cautious = FixedErasing(name="cautious", message="Be careful.")
    with pytest.raises(ConfigError, match="cautious and keep ask under the same text"):
        SystemMessages(name="x", erasings={"cautious": cautious, "keep": cautious}, own=False)


def test_a_model_of_others_has_no_message_of_its_own() -> None:
    """Its user is told which messages there are, and where its own chat template comes in."""
    with pytest.raises(ConfigError, match=r"choose messages=empty or messages=cautious, and format=own"):
        SystemMessages(name="own", erasings={}, own=True).of({})
