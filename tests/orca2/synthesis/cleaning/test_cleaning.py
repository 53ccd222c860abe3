"""Cleaning: repeated rows and benchmark rows go, others stay."""

from dataclasses import replace

import pytest

from orca2.records import Rejected
from orca2.rows.items import TaskItem
from orca2.synthesis.cleaning.contamination import BenchmarkText, Contamination, NgramIndex, benchmark_texts
from orca2.synthesis.cleaning.duplicates import Duplicates
from orca2.synthesis.cleaning.lineage import benchmark_behind

LONG = " ".join(f"word{n}" for n in range(60))
ITEM = TaskItem(
    id="c/t/1",
    collection="c",
    task="t",
    category="c",
    user="hello there",
    gold=("x",),
    answer_kind="text",
    lineage="f#1",
)


def test_exact_and_near_duplicates_name_the_earlier_row() -> None:
    """A repeated question is paid for twice, and weighs twice in training."""
    duplicates = Duplicates()
    assert duplicates.repeated("1", LONG) is None
    assert duplicates.repeated("2", LONG.upper() + "!") == "1"
    assert duplicates.repeated("3", LONG + " and a bit") == "1"
    assert duplicates.repeated("4", " ".join(reversed(LONG.split()))) is None
    assert duplicates.repeated("5", "short") is None
    assert (duplicates.exact, duplicates.near) == (1, 1)


@pytest.mark.parametrize(
    ("collection", "task", "lineage", "benchmark"),
    [
        ("natural_instructions", "task732_mmmlu_answer_generation_public_relations", "task732.json#0", "mmlu"),
        ("natural_instructions", "task309_race_answer_generation", "task309.json#0", "race"),
        ("natural_instructions", "task228_arc_answer_generation_easy", "task228.json#0", "arc"),
        ("natural_instructions", "task1389_hellaswag_completion", "task1389.json#0", "hellaswag"),
        ("natural_instructions", "task750_aqua_multiple_choice_answering", "task750.json#0", "agieval"),
        ("gsm8k", "gsm8k", "test.jsonl#3", "gsm8k"),
        ("aqua_rat", "aqua_rat", "test.json#3", "agieval"),
        ("gsm8k", "gsm8k", "train.jsonl#3", None),
        ("hub", "hub", "openai/gsm8k/main/test#3", "gsm8k"),
        ("hub", "hub", "openai/gsm8k/main/train#3", None),
        ("hub", "hub", "deepmind/aqua_rat/raw/test#3", "agieval"),
        ("hub", "hub", "deepmind/aqua_rat/raw/train#3", None),
        ("hub", "hub", "dmayhem93/agieval-aqua-rat/test#3", "agieval"),
        ("flan_cot", "aqua", "flan_cot_aqua_train.tsv#3", None),
        ("natural_instructions", "task1146_country_capital", "task1146.json#0", None),
        ("natural_instructions", "task105_story_cloze-rocstories_sentence_generation", "x#0", None),
    ],
)
def test_tasks_made_from_benchmarks_are_known_by_name(
    collection: str, task: str, lineage: str, benchmark: str | None
) -> None:
    """MMLU hides in 57 tasks of Natural Instructions as `mmmlu`; text matching misses re-templated rows."""
    assert benchmark_behind(replace(ITEM, collection=collection, task=task, lineage=lineage)) == benchmark


def test_benchmark_texts_inside_questions_and_answers_are_found() -> None:
    """A benchmark question within a long document, or quoted by a teacher."""
    index = NgramIndex([BenchmarkText("drop", "dev#1", LONG), BenchmarkText("drop", "dev#2", "too short")])
    check = Contamination(index=index)
    around = "other words " * 200
    found = check.check_item(replace(ITEM, user=f"{around} {LONG} {around}"))
    assert found is not None and found.kind == "left_out" and "100% of the n-grams of drop dev#1" in found.reason
    assert check.check_item(replace(ITEM, user=" ".join(LONG.split()[:25]))) is None
    assert check.check_answer(ITEM, LONG) is not None
    assert check.check_item(ITEM) is None
    report = check.report()
    assert report["checked"] == 3
    assert (report["benchmarks"]["drop"]["ngrams"], report["benchmarks"]["drop"]["answers"]) == (1, 1)


def test_training_files_are_not_benchmarks_and_broken_files_are_listed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """GSM8K's own train.jsonl would remove all of GSM8K."""
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"question": "a"}\n')
    (folder / "test.jsonl").write_text('{"question": "b"}\n')
    (folder / "odd.json").write_text('{"x": ["c"]}\n{"x": "d"}\n')
    (folder / "bad.json").write_text("{,}")
    rows = list(benchmark_texts(tmp_path))
    assert [row.text for row in rows if isinstance(row, BenchmarkText)] == ["c", "d", "b"]
    assert [row.row for row in rows if isinstance(row, Rejected)] == ["gsm8k/bad.json"]
