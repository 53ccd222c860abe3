"""A user's own file of questions -> items: every form, every gold answer, and a reason for each other row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orca2.answers.verification.checkers import Verifier
from orca2.errors import ConfigError, DataError
from orca2.records import Rejected
from orca2.rows.collections.questions import QuestionFile
from orca2.rows.items import TaskItem
from orca2.settings import build, compose_config

OWN = {"user": "problem", "gold": "solution"}
CLIPS = "Natalia sold 48 clips in April and half as many in May. How many in all?"
SOLUTION = "48/2 = <<48/2=24>>24\n48+24 = <<48+24=72>>72\n#### 1,072"


@pytest.fixture
def questions(tmp_path):
    def make(rows, name="mine.json", **changes):
        path = tmp_path / name
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        else:
            path.write_text(json.dumps(rows))
        named = {"name": "jsonl", "kind": None, "category": "c", "licence": "l", "cache_dir": str(tmp_path / "cache")}
        return QuestionFile(path=str(path), **named | changes)

    return make


def only(reader):
    (item,) = reader.stream()
    assert isinstance(item, TaskItem)
    return item


def test_own_columns_and_a_solution(questions):
    """GSM8K-like solutions hold the gold answer behind their mark; all of the text would never be found again."""
    item = only(questions([{"problem": CLIPS, "solution": SOLUTION}], columns=OWN))
    assert (item.user, item.gold, item.answer_kind) == (CLIPS, ("1,072",), "number")
    assert (item.id, item.task, item.category, item.lineage) == ("jsonl/jsonl/mine:1", "jsonl", "c", "mine.json#1")
    with Verifier(5.0) as verifier:
        assert verifier.check(item, "So many.\nAnswer: 1072").outcome == "right"
        assert verifier.check(item, "Answer: 72").outcome == "wrong"


@pytest.mark.parametrize("gold", [{}, {"gold": None}, {"gold": ""}, {"gold": []}])
def test_without_gold_nothing_is_verified(questions, gold):
    """A question without an answer must not be refused, nor its answers pass for checked."""
    item = only(questions([{"user": CLIPS} | gold]))
    assert (item.gold, item.answer_kind) == ((), "text")
    with Verifier(5.0) as verifier:
        verdict = verifier.check(item, "Answer: 72")
    assert (verdict.outcome, verdict.reason) == ("undecided", "no gold answer is known")


@pytest.mark.parametrize(
    ("gold", "kind", "read"),
    [
        (72, "number", ("72",)),
        (7.5, "number", ("7.5",)),
        ("Yes", "yes_no", ("Yes",)),
        (["Paris", "paris"], "span", ("Paris", "paris")),
        ("It is a long story that nobody can check.", "text", ("It is a long story that nobody can check.",)),
    ],
)
def test_kinds_are_read_off_the_gold_answer(questions, gold, kind, read):
    """Nobody should have to know our kinds of answers to have numbers checked."""
    item = only(questions([{"user": "Q?", "gold": gold}]))
    assert (item.answer_kind, item.gold) == (kind, read)


def test_options_and_a_kind_of_ones_own(questions):
    """A listed option is checked by its letter; a kind that is named holds for all rows."""
    listed = "Which?\n(A) red\n(B) blue"
    item = only(questions([{"user": listed, "gold": "blue"}]))
    assert (item.answer_kind, item.gold) == ("choice", ("B",))
    assert only(questions([{"user": "x?", "gold": "60/19"}], kind="expression")).answer_kind == "expression"
    rows = [{"user": listed, "gold": "green"}, {"user": listed, "gold": "red"}]
    rejected, _ = questions(rows, kind="choice").stream()
    assert "is none of the options that the question lists" in rejected.reason


@pytest.mark.parametrize(
    ("row", "user"),
    [
        ({"instruction": "Add.", "input": "1+1", "output": "2"}, "Add.\n\n1+1"),
        ({"instruction": "Add.", "input": ""}, "Add."),
        ({"prompt": "1+1?", "completion": "2"}, "1+1?"),
        ({"prompt": [{"role": "user", "content": "1+1?"}]}, "1+1?"),
        ({"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}, "1+1?"),
        ({"conversations": [{"from": "human", "value": "1+1?"}]}, "1+1?"),
    ],
)
def test_rows_of_other_forms_hold_questions(questions, row, user):
    """Files that train are asked anew as they are."""
    item = only(questions([row]))
    assert (item.user, item.gold) == (user, ())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"q": "1+1?"}, "column 'user' is missing"),
        ({"user": " "}, "field 'user' is empty"),
        ({"user": ["1+1?"]}, "field 'user' must be a text, not list"),
        ({"user": "1+1?", "gold": {"a": 2}}, "column 'gold' holds dict, not an answer"),
        ({"user": "1+1?", "gold": True}, "column 'gold' holds bool, not an answer"),
        ({"user": "1+1?", "gold": "2\n####"}, "column 'gold' has no final answer"),
        ({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}] * 2}, "has 2"),
        ({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}]}, "has a system message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "is a call or a reply of a tool"),
    ],
)
def test_rows_that_ask_nothing_say_why(questions, row, reason):
    """Each row that is left out is listed with its place and reason."""
    good, bad = questions([{"user": "1+1?"}, row]).stream()
    assert isinstance(good, TaskItem)
    assert isinstance(bad, Rejected) and reason in bad.reason and bad.row == "mine.json:2"


def test_other_files(questions, tmp_path):
    """The same questions as lines, as a table and as Parquet."""
    row = {"problem": "Which day?", "solution": "Monday", "topic": "days", "area": "time"}
    table = b"problem,solution,topic,area\nWhich day?,Monday,days,time\n"
    pq.write_table(pa.table({key: [value] for key, value in row.items()}), tmp_path / "p.parquet")
    columns = OWN | {"task": "topic", "category": "area"}
    for name, content in [
        ("mine.jsonl", json.dumps(row).encode()),
        ("mine.csv", table),
        ("mine.parquet", (tmp_path / "p.parquet").read_bytes()),
    ]:
        item = only(questions(content, name=name, columns=columns))
        assert (item.user, item.gold, item.task, item.category) == ("Which day?", ("Monday",), "days", "time")


def test_a_wrong_column_ends_the_read(questions):
    """A typo must not end as a data set of nothing."""
    with pytest.raises(DataError, match=r"none of 2 rows .* because column 'question' is missing\. Found are"):
        list(questions([{"q": "1+1?"}] * 2, columns={"user": "question"}).stream())
    with pytest.raises(DataError, match="none of 0 rows"):
        list(questions([]).stream())


def test_settings_are_checked_before_the_file(questions):
    """A misspelt field or kind is found before an hour of asking."""
    with pytest.raises(ConfigError, match=r"columns \['usr'\] are not fields of a question"):
        questions([], columns={"usr": "q"})
    with pytest.raises(ConfigError, match="kind is 'numbr'; allowed are number"):
        questions([], kind="numbr")
    cfg = compose_config(
        "tasks/jsonl", ["tasks.path=x.jsonl", "tasks.columns.gold=answer", "+tasks.columns.task=topic"]
    )
    assert build(cfg.tasks).columns == {"user": "user", "gold": "answer", "task": "topic"}


COLUMNS = ("user", "gold", "task", "instruction", "prompt", "messages")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["#### 7", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES), max_size=4))
def test_any_rows_are_items_or_reasons(tmp_path_factory, rows):
    """A strange row costs itself, never the whole reading."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "rows.json").write_text(json.dumps(rows))
    reader = QuestionFile(
        name="j", path=str(folder / "rows.json"), kind=None, category="c", licence="l", cache_dir=str(folder / "cache")
    )
    try:
        items = list(reader.stream())
    except DataError:
        return
    assert len(items) == len(rows) and any(isinstance(item, TaskItem) for item in items)
