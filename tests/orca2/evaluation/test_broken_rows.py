"""One broken row costs one row: it is listed with its reason, and every other row is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from orca2.evaluation.benchmark import Sample
from orca2.rows.forms import FORMS
from orca2.settings import build

CONF = Path(__file__).parents[3] / "conf"


def asked_and_rejected(name: str, folder: Path, files: dict[str, str]) -> tuple[list[str], list[str]]:
    """Ids of the samples, and the reasons of the rejected rows but those of absent files."""
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content, encoding="utf-8")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        rows: list[Any] = list(build(compose(overrides=[f"+benchmark={name}"]).benchmark).samples(folder))
    samples = [row.id.removeprefix(f"{name}/") for row in rows if isinstance(row, Sample)]
    reasons = [row.reason for row in rows if not isinstance(row, Sample)]
    return samples, [reason for reason in reasons if not reason.startswith("no file")]


def lines(*rows: Any) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


@pytest.mark.parametrize("after", ["Q,a,b,c,d,A\n", '"Q, or not",a,b,c,d,A\n', 'Q,a,"b, or not",c,d,A\n'])
def test_quote_that_is_never_closed(after: str, tmp_path: Path) -> None:
    """It swallows all that follows: a crash at 131,072 characters, and rows lost in silence before them."""
    content = 'Q,a,b,c,d,A\n"Q,a,b,c,d,A\n' + after * 9000
    samples, reasons = asked_and_rejected("mmlu", tmp_path, {"mmlu/test/virology_test.csv": content})
    assert samples == ["virology/0", *(f"virology/{number}" for number in range(2, 9002))]
    assert len(reasons) == 1 and reasons[0].startswith("line 2 is not CSV: ")


def test_text_that_is_no_printed_bytes(tmp_path: Path) -> None:
    """The table's `b'...'` texts are parsed; one that Python cannot parse ended the run."""
    content = "text,target_group,toxicity_human,toxicity_ai\nb'it's fine',x,1,1\nb'fine',x,1,1\n"
    samples, reasons = asked_and_rejected("toxigen", tmp_path, {"toxigen/annotated_test.csv": content})
    assert samples == ["x.neutral/1"] and reasons[0].startswith("not in its data set's form: SyntaxError")


def test_chat_questions_and_references(tmp_path: Path) -> None:
    """A broken line threw all questions away; a broken reference must be seen, for its question is graded without."""
    question = {"question_id": 101, "category": "math", "turns": ["2+2?"]}
    files = {
        "mt_bench/question.jsonl": lines(question, "{broken", question | {"question_id": 102}),
        "mt_bench/reference_answer/gpt-4.jsonl": lines({"question_id": 101}, "{broken"),
    }
    samples, reasons = asked_and_rejected("mt_bench", tmp_path, files)
    assert samples == ["math/101", "math/102"]
    beginnings = ("gpt-4.jsonl: not in its", "gpt-4.jsonl: line 2 is not JSON", "line 2 is not JSON")
    assert len(reasons) == 3 and all(map(str.startswith, reasons, beginnings))


def test_nested_rows(tmp_path: Path) -> None:
    """A question without its key, or a passage with too few answers, discarded the whole data set."""
    right = {"query_id": "q1", "question": "?", "answer": {"number": "2"}}
    drop = {"one": {"passage": "P.", "qa_pairs": [{"query_id": "q0"}, right]}, "two": 3}
    samples, reasons = asked_and_rejected("drop", tmp_path, {"drop/drop_dataset_dev.json": json.dumps(drop)})
    assert samples == ["drop/q1"]
    assert reasons == ["not in its data set's form: KeyError 'answer'", "two: no list `qa_pairs`"]

    race = {"article": "A.", "questions": ["?"], "options": [["a", "b", "c", "d"]], "answers": ["A"]}
    files = {"race/test/high/1.txt": json.dumps(race | {"answers": []}), "race/test/high/2.txt": json.dumps(race)}
    samples, reasons = asked_and_rejected("race", tmp_path, files)
    assert samples == ["high/high2.txt"]
    assert len(reasons) == 1 and reasons[0].startswith("not in its data set's form: ValueError")


def test_rows_of_the_hub() -> None:
    """A row without the columns of its data set ended in a traceback where it came from the hub."""
    rows = [{"query_id": "q", "passage": "P.", "question": "?"}, {"query_id": "q", "answers_spans": {"spans": ["x"]}}]
    first, second = FORMS["drop"].rows(rows)
    assert first == {"broken": "not in its data set's form: KeyError 'answers_spans'"} and second["answers"] == [["x"]]
