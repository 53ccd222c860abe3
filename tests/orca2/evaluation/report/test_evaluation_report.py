"""The report's figures against values worked out elsewhere, and its files as a reader meets them."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orca2.answers.extraction import NOTHING, Extraction
from orca2.errors import DataError
from orca2.evaluation.report.load import Run, load_run, run_name
from orca2.evaluation.report.paper import AVERAGE, TAGS, paper_tables
from orca2.evaluation.report.summary import Summary, summarise
from orca2.evaluation.report.tables import all_tables
from orca2.evaluation.report.write import write_report
from orca2.evaluation.sample_records import AnsweredTurn, SampleRecord, to_line
from orca2.evaluation.verdicts import JudgeVerdict, write_verdicts

TURN = AnsweredTurn(
    user="Q?", prompt="P", output="Answer: B", finish_reason="stop", prompt_tokens=2, answer_tokens=3,
    truncated_tokens=0, seconds=0.1,
)  # fmt: skip
BASE = SampleRecord(
    key="k", benchmark="gsm8k", version=1, domain="in_domain", judgement="none", kind="choice", task="t",
    message="empty", sample="s", turns=(TURN,), extraction=Extraction(("B",), True, "marker", (8, 9)), gold=(("B",),),
    choices={"A": "a", "B": "b"}, scores={"accuracy": 1.0},
)  # fmt: skip


def records(benchmark: str, message: str, right: Sequence[float], **changes: Any) -> list[SampleRecord]:
    """One record for each score; a score of 0 has no readable answer."""
    return [
        replace(
            BASE,
            key=f"{benchmark}/{message}/{i}",
            benchmark=benchmark,
            message=message,
            sample=f"{benchmark}/{i}",
            scores={"accuracy": float(score)},
            extraction=BASE.extraction if score else NOTHING,
            **changes,
        )
        for i, score in enumerate(right)
    ]


def run(*parts: Sequence[SampleRecord], name: str = "r", verdicts: Sequence[JudgeVerdict] = ()) -> Run:
    return Run(
        name=name, records=tuple(one for part in parts for one in part), verdicts=tuple(verdicts), rows={}, problems=()
    )


def test_accuracy_and_format_with_wilson_intervals() -> None:
    """8 of 10 is 0.8 with Wilson's [0.490162, 0.943318] (as in R's prop.test without correction)."""
    score = summarise([run(records("gsm8k", "empty", [1] * 8 + [0] * 2))]).scores[0]
    assert score.value == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-6)
    assert score.format_ok == score.value and score.rules == {"marker": 8, "none": 2}
    assert (score.n, score.truncated, score.cut, score.answer_tokens) == (10, 0.0, 0, 3.0)


def test_truncation_and_cut_are_counted() -> None:
    """An answer without its end must not look like a wrong one."""
    limit = replace(TURN, finish_reason="length", truncated_tokens=7)
    parts = [*records("gsm8k", "empty", [1, 0, 0]), *records("gsm8k", "empty", [0], turns=(TURN, limit))]
    score = summarise([run(parts)]).scores[0]
    assert (score.truncated, score.cut, score.answer_tokens) == (0.25, 1, 3.75)


def test_macro_and_micro() -> None:
    """The paper averages benchmarks, and AGIEval's tasks, with equal weight; a pooled mean is another number."""
    parts = [
        *records("agieval", "empty", [1, 1, 1, 1, 1, 0], task="sat", domain="out_of_domain"),
        *records("agieval", "empty", [0, 1], task="lsat", domain="out_of_domain"),
        *records("gsm8k", "empty", [0, 0]),
    ]
    summary = summarise([run(parts)])
    agieval = summary.scores[0]
    assert agieval.value is not None and agieval.value.value == 6 / 8
    assert agieval.over_tasks == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert [(task.task, task.n) for task in summary.tasks] == [("sat", 6), ("lsat", 2)]
    averages = {average.group: average for average in summary.averages}
    assert set(averages) == {"in-domain", "out-of-domain", "all"}
    assert averages["all"].macro == pytest.approx((2 / 3 + 0) / 2) and averages["all"].micro.value == 0.6
    assert averages["out-of-domain"].benchmarks == ("agieval",) and averages["all"].n == 10


def test_the_six_of_table_1_are_a_group() -> None:
    """The average beside the paper's needs all six, and may not be made of five."""
    six = ("agieval", "bbh", "drop", "crass", "race", "gsm8k")
    parts = [one for name in six for one in records(name, "empty", [1, 0])]
    groups = [average.group for average in summarise([run(parts)]).averages]
    assert "reasoning" in groups
    assert "reasoning" not in [average.group for average in summarise([run(parts[:-2])]).averages]


def test_difference_of_messages_is_mcnemars() -> None:
    """1 against 9 discordant pairs: two-sided exact p = 22/1024 (scipy.stats.binomtest(1, 10).pvalue)."""
    empty, cautious = [1.0] * 1 + [0.0] * 9 + [1.0] * 5, [0.0] * 1 + [1.0] * 9 + [1.0] * 5
    one = summarise([run(records("gsm8k", "empty", empty), records("gsm8k", "cautious", cautious))]).between_messages
    assert len(one) == 1 and (one[0].first, one[0].second) == ("empty", "cautious")
    assert (one[0].only_first, one[0].only_second, one[0].n) == (1, 9, 15)
    assert one[0].p == pytest.approx(0.021484375) and one[0].value.value == pytest.approx(8 / 15)
    assert one[0].value.low < 8 / 15 < one[0].value.high


def test_scores_in_part_get_the_bootstrap() -> None:
    """F1 and ROUGE are not shares: Wilson and McNemar do not hold for them."""
    first = [replace(one, scores={"rouge1": 0.25}) for one in records("qmsum", "empty", [1] * 50)]
    second = [
        replace(one, scores={"rouge1": 0.25 + i / 100}) for i, one in enumerate(records("qmsum", "cautious", [1] * 50))
    ]
    summary = summarise([run(first, second)])
    assert summary.scores[0].value == pytest.approx((0.25, 0.25, 0.25))
    one = summary.between_messages[0]
    # Mean of 0 … 0.49 with its normal interval: 0.245 ± 1.96 · 0.1443 / √50.
    assert one.p is None and one.value == pytest.approx((0.245, 0.205, 0.285), abs=0.005)


def test_runs_are_paired_by_sample_and_version() -> None:
    """Another order pairs the same samples; another version is another test, and the reader is told."""
    first = run(records("gsm8k", "empty", [1, 0, 0]), name="a")
    second = run(records("gsm8k", "empty", [1, 1, 0])[::-1], name="b")
    summary = summarise([first, second])
    (one,) = summary.between_runs
    assert (one.first, one.second, one.only_first, one.only_second) == ("a, empty", "b, empty", 0, 1)
    newer = run(records("gsm8k", "empty", [1, 1], version=2), name="c")
    summary = summarise([first, newer])
    assert summary.between_runs == ()
    assert any("different versions (version 1: a; version 2: c)" in note for note in summary.notes)
    assert any("different samples (a 3, c 2)" in note for note in summary.notes)


def verdict(key: str, value: float | None, judge_run: int = 0, **changes: Any) -> JudgeVerdict:
    values: dict[str, Any] = {
        "key": key, "benchmark": "qmsum", "task": "general", "message": "empty", "sample": key, "rubric": "grounding",
        "rubric_version": 1, "judge": "j", "judge_run": judge_run, "turn": 0, "value": value,
    }  # fmt: skip
    return JudgeVerdict(**(values | changes))


def test_judges_runs_and_their_spread() -> None:
    """A judge that contradicts itself must not look exact, nor a missing verdict like a good one."""
    answers = records("qmsum", "empty", [1] * 4)
    keys = [one.key for one in answers]
    values = [[1, 0, 0, None], [1, 1, 0, 0]]
    verdicts = [
        verdict(key, value, number) for number, row in enumerate(values) for key, value in zip(keys, row, strict=True)
    ]
    (judged,) = summarise([run(answers, verdicts=[*verdicts, verdict("of an older answer", 1)])]).judged
    assert judged.value.value == pytest.approx((1 + 0.5 + 0 + 0) / 4) and judged.n == 4 and judged.missing == 1
    assert judged.judge_runs == (pytest.approx(1 / 3), 0.5) and judged.spread == pytest.approx(1 / 6)


def test_grades_by_turn() -> None:
    """MT-Bench is reported by turn, because the second is where untrained students fall."""
    answers = records("mt_bench", "empty", [1, 1])
    verdicts = [
        verdict(one.key, grade, turn=turn, rubric="grade", benchmark="mt_bench")
        for one in answers
        for turn, grade in ((0, 8), (1, 4))
    ]
    judged = {one.part: one.value.value for one in summarise([run(answers, verdicts=verdicts)]).judged}
    assert judged == {"": 6, "turn 1": 8, "turn 2": 4}


# The paper ------------------------------------------------------------------------------------------------


def test_the_papers_rows_agree_with_themselves() -> None:
    """A typing error in a cell: where all cells of a row are there, their mean is the average that was seen."""
    checked = 0
    for table in paper_tables():
        for model, row in table.rows.items():
            assert {cell.tag for cell in row.values()} <= set(TAGS), model
            assert set(row) <= {*table.columns, AVERAGE}
            if AVERAGE in row and set(table.columns) <= set(row):
                mean = sum(row[name].value for name in table.columns) / len(table.columns)
                # 0.005 of each rounded cell and of the average; one row of the ledger is off by that much.
                assert mean == pytest.approx(row[AVERAGE].value, abs=0.0101), (table.name, model)
                checked += 1
    assert checked == 11 + 10


def test_unverified_cells_are_marked_and_unknown_ones_absent() -> None:
    """A recalled number beside ours would be quoted as the paper's."""
    six = ("agieval", "bbh", "drop", "crass", "race", "gsm8k")
    runs = [run([one for name in six for one in records(name, "empty", [1, 0])])]
    (table,) = [one for one in all_tables(summarise(runs), runs) if "Table 1" in one.title]
    rows = {row[0]: row for row in table.rows}
    assert rows["**r, empty**"] == ("**r, empty**", *["50.00"] * 7)
    assert rows["ChatGPT"][1] == "53.13? [C]" and rows["ChatGPT"][-1] == "67.65 [F]"
    assert rows["Orca-2-7B"][1] == "45.10 [S]" and "do not quote" in table.note
    cells = [cell for row in table.rows[1:] for cell in row[1:]]
    assert all(("?" in cell) == ("[C]" in cell) for cell in cells)
    knowledge = next(one for one in paper_tables() if one.name == "knowledge")
    assert "arc_easy" not in knowledge.rows["LLaMA-2-Chat-70B"] and "Orca-2-7B" not in knowledge.rows


# Files ----------------------------------------------------------------------------------------------------

HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="alert(2)"> | `a` & "b"'


class Tags(HTMLParser):
    """Collects what a browser would see as markup."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def hostile_run() -> Run:
    turn = replace(TURN, prompt=HOSTILE, output=f"{HOSTILE}\nAnswer: B")
    span = (len(turn.output) - 1, len(turn.output))
    own = records("gsm8k", "empty", [1, 0], turns=(turn,), task=HOSTILE)
    own[0] = replace(own[0], extraction=Extraction(("B",), True, "marker", span))
    return run(own, records("gsm8k", "cautious", [1, 1]), name=HOSTILE)


def test_page_is_one_safe_file(tmp_path: Path) -> None:
    """Models write HTML; a page that runs it, or fetches anything, could not be sent to anybody."""
    write_report([hostile_run()], tmp_path)
    text = (tmp_path / "report.html").read_text()
    parser = Tags()
    parser.feed(text)
    tags = [tag for tag, _ in parser.tags]
    assert tags.count("script") == 1 and "img" not in tags and "link" not in tags
    assert all(not value or value.startswith("#") for _, attributes in parser.tags for value in _links(attributes))
    assert not any(name.startswith("on") for _, attributes in parser.tags for name in attributes)
    assert "http://www.w3.org/2000/svg" in text and len(re.findall(r"https?://", text)) == 1
    assert "Answer: <mark>B</mark>" in text
    cards = [attributes for tag, attributes in parser.tags if attributes.get("class") == "card"]
    assert len(cards) == 4
    assert {card["data-result"] for card in cards} == {"right", "wrong"}
    assert {card["data-format"] for card in cards} == {"ok", "not ok"}
    assert {attributes["name"] for tag, attributes in parser.tags if tag == "select"} == {
        "task", "message", "result", "format",
    }  # fmt: skip


def _links(attributes: dict[str, str | None]) -> list[str]:
    return [value for name, value in attributes.items() if name in ("src", "href") and value]


def test_markdown_tables_stay_whole(tmp_path: Path) -> None:
    """A bar or a line break in a name would shift every column after it."""
    write_report([hostile_run(), run(records("gsm8k", "empty", [1]), name="b\nc")], tmp_path)
    text = (tmp_path / "report.md").read_text()
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 6
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1, block
    assert "<script" not in text and "![Scores with 95 % intervals](report.svg)" in text


def test_few_samples_are_the_same_under_every_message(tmp_path: Path) -> None:
    """A reader compares the answers to one question; a random half of each would have no pairs."""
    scores = [1.0] * 40
    write_report([run(records("gsm8k", "empty", scores), records("gsm8k", "cautious", scores))], tmp_path, 5)
    text = (tmp_path / "report.html").read_text()
    shown = re.findall(r"<code>(gsm8k/\d+)</code> <i>(\w+)</i>", text)
    assert len(shown) == 10 and len({sample for sample, _ in shown}) == 5
    assert "10 samples (drawn from 80, at most 5 of each benchmark and message)" in text


def test_loading(tmp_path: Path) -> None:
    """An unfinished evaluation may be looked at, but says that it is one; an empty folder is a mistake."""
    with pytest.raises(DataError, match="holds no answered samples"):
        load_run("x", tmp_path / "nowhere")
    lines = [to_line(one) for one in records("gsm8k", "empty", [1, 0])]
    (tmp_path / "samples.jsonl").write_text("\n".join([*lines, lines[0].replace("Answer", "Response")]) + "\n")
    loaded = load_run("x", tmp_path)
    assert len(loaded.records) == 2 and len(loaded.problems) == 2
    assert "its hash does not fit" in loaded.problems[0] and "not finished" in loaded.problems[1]
    (tmp_path / "results.json").write_text(json.dumps({"data/gsm8k/rows": 2, "data/gsm8k/asked": 2, "samples": "s"}))
    write_verdicts(tmp_path, [verdict(loaded.records[0].key, 1.0)])
    loaded = load_run("x", tmp_path)
    assert loaded.rows == {"gsm8k": {"rows": 2, "asked": 2}} and loaded.verdicts[0].value == 1.0
    assert run_name(tmp_path) == tmp_path.name
    (tmp_path / "config.yaml").write_text("student: runs/mine\n")
    assert run_name(tmp_path) == "mine"
    (tmp_path / "verdicts.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="delete it and judge again"):
        load_run("x", tmp_path)


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    """Intervals come from draws; a report that changes by itself cannot be compared with anything."""
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        summary = write_report([hostile_run()], folder)
        assert isinstance(summary, Summary)
        texts.append(
            [(folder / name).read_text() for name in ("report.md", "report.json", "report.html", "report.svg")]
        )
    assert texts[0] == texts[1]
