"""`cleaning=`: the checks together, on items and answers, and their report over several ranks."""

from pathlib import Path

import pytest

from orca2.errors import ConfigError, DataError
from orca2.records import Example
from orca2.rows.collections.procedural_tasks import ProceduralTasks
from orca2.rows.items import TaskItem
from orca2.settings import build, compose_config
from orca2.synthesis.cleaning.cleaning import Cleaning, merged

INSTRUCTION = "First write down the relevant facts one by one, then reason from them to the answer."
QUESTION = "Which of the nine rivers that cross the old border between the two provinces is the longest of them all?"


def setting(name: str = "standard", *overrides: str) -> Cleaning:
    return build(compose_config(f"cleaning/{name}", list(overrides)).cleaning)  # type: ignore[no-any-return]


def item(number: int, user: str, task: str = "t", preamble: int = 0) -> TaskItem:
    return TaskItem(
        id=f"c/{task}/{number}", collection="c", task=task, category="k", user=user, gold=("x",), answer_kind="text",
        preamble=preamble, lineage=f"f#{number}",
    )  # fmt: skip


def example(number: int, answer: str) -> Example:
    return Example(
        id=f"c/t/{number}", source="c", task="t", strategy="s", system=INSTRUCTION, user=QUESTION, answer=answer,
        teacher="m",
    )  # fmt: skip


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "dev.jsonl").write_text(f'{{"question": "{QUESTION}"}}\n')
    (tmp_path / "drop" / "broken.json").write_text("{")
    return tmp_path


def test_repeats_benchmarks_and_leaks_are_left_out_with_reasons(benchmarks: Path) -> None:
    """Each check alone is tested elsewhere; here one that is not plugged in, or counts elsewhere, is found."""
    checks = setting("standard", f"cleaning.benchmarks={benchmarks}").open()
    reasons = [
        found.reason if (found := checks.check_item(row)) else None
        for row in (
            item(1, "What is the name of the ship in the story?"),
            item(2, "what is the name of the ship in the story"),
            item(3, QUESTION),
            item(4, "another one", task="task732_mmmlu_answer_generation"),
        )
    ]
    assert reasons[0] is None and reasons[1] == "repeats c/t/1"
    assert str(reasons[2]).startswith("holds 100% of the n-grams of drop dev.jsonl#1")
    assert reasons[3] == "its task is made from the benchmark mmlu"
    answers = [f"As told, I first write down the relevant facts one by one, then say: {n}" for n in range(2)]
    assert checks.check_answer(item(1, "q"), example(1, answers[0])) is not None
    assert checks.check_answer(item(1, "q"), example(2, QUESTION)) is not None
    assert checks.check_answer(item(1, "q"), example(3, "The Danube.")) is None
    report = checks.report()
    assert report["duplicates"] == {"exact": 1, "near": 0}
    assert (report["leaks"]["checked"], report["leaks"]["leaked"]) == (3, 1)
    found = report["contamination"]["benchmarks"]
    assert {key: found["drop"][key] for key in ("lineage", "ngrams", "answers")} == {
        "lineage": 0, "ngrams": 1, "answers": 1,
    }  # fmt: skip
    assert found["mmlu"]["lineage"] == 1 and report["contamination"]["unread"][0].startswith("drop/broken.json")


def test_rows_of_one_task_are_compared_without_its_definition() -> None:
    """A long shared definition makes all rows of a task near-duplicates; two tasks may ask about one text."""
    definition = " ".join(f"definition{n}" for n in range(200))
    checks = setting().open()
    rows = [item(n, f"{definition} {text}", preamble=len(definition)) for n, text in enumerate(("a b c", "d e f"))]
    other = item(1, f"{definition} a b c", task="other", preamble=len(definition))
    assert [checks.check_item(row) for row in (*rows, other)] == [None, None, None]
    assert checks.check_item(rows[0]) is not None


def test_generated_items_pass() -> None:
    """200,000 draws would be remembered one by one, and the data set would miss what was asked for."""
    checks = setting().open()
    rows = [row for row in ProceduralTasks(name="p", size=28, seed=0, level=1).stream() if isinstance(row, TaskItem)]
    assert len(rows) == 28
    assert all(checks.check_item(row) is None for row in (*rows, *rows))


def test_nothing_is_checked_under_none() -> None:
    """The ablation without cleaning."""
    checks = setting("none").open()
    assert checks.check_item(item(1, "q w e r t y")) is None and checks.check_item(item(2, "q w e r t y")) is None
    assert checks.check_answer(item(1, "q"), example(1, INSTRUCTION)) is None


def test_reports_of_ranks_count_items_once_and_answers_together() -> None:
    """Every rank meets every item, so that adding up their reports would show each removed row twice."""
    reports = []
    for rank in range(2):
        checks = setting().open()
        assert checks.check_item(item(1, "x", task="task1_race_x")) is not None
        checks.check_answer(item(1, "q"), example(rank, INSTRUCTION))
        reports.append(checks.report())
    total = merged(reports)
    assert total["contamination"]["benchmarks"]["race"]["lineage"] == 1
    assert total["leaks"]["leaked"] == 2 and list(total["leaks"]["examples"]) == ["c/t/0", "c/t/1"]


def test_settings_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    """An in-domain benchmark with a typing error would stay blocked in silence."""
    with pytest.raises(ConfigError, match="cleaning=standard"):
        setting("standard", "+cleaning.in_domain.gms8k=true")
    with pytest.raises(DataError, match="does not exist"):
        setting("standard", f"cleaning.benchmarks={tmp_path / 'none'}").open()
