"""Stored rows: what trains, and the exact reason for every row that does not."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orca2.errors import ConfigError, DataError
from orca2.records import UNLABELLED, Rejected, Turn
from orca2.rows.row_files import FileSource
from orca2.strategies import Strategy

COLUMNS = {"user": "q", "answer": "a"}
GOOD = '{"q": "1+1?", "a": "2"}'

BROKEN_LINES = [
    (b'{"q": "1+1?", "a": ', "not JSON: Expecting value at character 20"),
    (b'{"q": "1+1?" "a": "2"}', "not JSON: Expecting ',' delimiter at character 13"),
    (b"", None),  # a blank line is no row
    (b"[1, 2]", "not an object but list"),
    (b'"text"', "not an object but str"),
    (b"null", "not an object but NoneType"),
    (b'{"q": "caf\xe9", "a": "2"}', "not UTF-8: byte 0xe9 at byte 10 of the row"),
    (b'{"q": "a\x00b", "a": "2"}', "NUL byte at byte 8 of the row"),
    (b'{"q": "1+1?"}', "column 'a' is missing"),
    (b'{"a": "2"}', "column 'q' is missing"),
    (b'{"q": 11, "a": "2"}', "column 'q' holds int, not text"),
    (b'{"q": "1+1?", "a": null}', "column 'a' holds nothing, not text"),
    (b'{"q": ["1+1?"], "a": "2"}', "column 'q' holds list, not text"),
    (b'{"q": {"text": "1+1?"}, "a": "2"}', "column 'q' holds dict, not text"),
    (b'{"q": true, "a": "2"}', "column 'q' holds bool, not text"),
    (b'{"q": "", "a": "2"}', "user is empty"),
    (b'{"q": " \\n", "a": "2"}', "user is empty"),
    (b'{"q": "1+1?", "a": ""}', "answer is empty"),
    (b'{"q": "1+1?", "a": "2 \\ud83d"}', "answer holds a lone surrogate at character 2"),
    (b'{"q": "\\udc00", "a": "2"}', "user holds a lone surrogate at character 0"),
    (
        b"{'q': '1+1?', 'a': '2'}",
        "not JSON: Expecting property name enclosed in double quotes at character 1",
    ),
    (b"[" * 100_000, "nested too deeply"),
]


@pytest.fixture
def jsonl(tmp_path):
    def make(content, name="rows.jsonl", **changes):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else "".join(f"{row}\n" for row in content).encode())
        named = {"name": "s", "layout": "columns", "columns": COLUMNS} | changes
        return FileSource(path=str(path), cache_dir=str(tmp_path / "cache"), **named)

    return make


def read_all(source, choice):
    return [source.read(row, choice) for row in range(source.size)]


def test_broken_rows_are_listed_and_the_rest_trains(jsonl, direct):
    """Twenty bad rows of every kind must cost twenty rows, each with its line and reason."""
    lines = [GOOD.encode()]
    for broken, _ in BROKEN_LINES:
        lines += [broken, GOOD.encode()]
    source = jsonl(b"\n".join([*lines, b'{"q": "cut o']))
    source.prepare()
    rows = read_all(source, direct)
    rejected = [(row.row, row.reason) for row in rows if isinstance(row, Rejected)]
    expected = [(f"line {2 * at + 2}", reason) for at, (_, reason) in enumerate(BROKEN_LINES) if reason is not None]
    cut_off = "not JSON: Unterminated string starting at at character 6; the file ends inside this row"
    assert rejected == [*expected, (f"line {len(lines) + 1}", cut_off)]
    assert len(rejected) == 22
    good = [row for row in rows if not isinstance(row, Rejected)]
    assert [row.id for row in good] == [f"s/{2 * at + 1}" for at in range(len(BROKEN_LINES) + 1)]
    assert {(row.user, row.answer, row.strategy, row.task) for row in good} == {("1+1?", "2", UNLABELLED, "s")}


def test_every_field_comes_from_its_column(jsonl, direct):
    """Our own records must come back as they were written."""
    row = {
        "task": "t",
        "strategy": "direct",
        "system": "S",
        "user": "u",
        "answer": "a",
        "teacher": "m@1",
        "gold": "g",
        "verdict": None,
        "usage": {"in": 3},
        "history": [{"user": "u0", "answer": "a0"}],
        "id": "x7",
    }
    (example,) = read_all(jsonl([json.dumps(row)], columns={key: key for key in row}), direct)
    assert example.history == (Turn(user="u0", answer="a0"),)
    assert {key: getattr(example, key) for key in row if key not in ("history", "id")} == {
        key: value for key, value in row.items() if key not in ("history", "id")
    }
    assert (example.id, example.source) == ("s/x7", "s")


def test_csv_rows_and_their_faults(jsonl, direct):
    """A shifted cell would train on the wrong column."""
    content = b'q,a\n1+1?,2\nonly\n"a, ""b""\nc",3\n1,2,3\ncaf\xe9,2\nnul\x00,2\n"open,4\n5,6\n'
    source = jsonl(content, name="rows.csv")
    rows = read_all(source, direct)
    assert [(row.row, row.reason) if isinstance(row, Rejected) else (row.user, row.answer) for row in rows] == [
        ("1+1?", "2"),
        ("line 3", "1 cells where the header has 2"),
        ('a, "b"\nc', "3"),
        ("line 6", "3 cells where the header has 2"),
        ("line 7", "not UTF-8 in column 'q'"),
        ("line 8", "NUL byte in column 'q'"),
        (
            "line 9",
            "not CSV: unexpected end of data; lines 9 to 10 were read as this row, so a quote may not be closed",
        ),
    ]


def test_parquet_rows(jsonl, direct, tmp_path):
    """The same rows from the format that the Hub uses."""
    table = pa.table({"q": ["1+1?", None], "a": ["2", "3"], "image": [b"\x00", b"\x01"]})
    pq.write_table(table, tmp_path / "r.parquet")
    source = jsonl((tmp_path / "r.parquet").read_bytes(), name="rows.parquet")
    first, second = read_all(source, direct)
    assert (first.user, first.answer, first.id) == ("1+1?", "2", "s/1")
    assert (second.row, second.reason) == ("row 2", "column 'q' holds nothing, not text")


def test_compressed_lines(jsonl, direct):
    """Data sets are kept compressed."""
    source = jsonl(gzip.compress(f"{GOOD}\n".encode() * 3), name="rows.jsonl.gz")
    assert [row.id for row in read_all(source, direct)] == ["s/1", "s/2", "s/3"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.parquet", b"PAR1 cut off", r"cannot be imported: ArrowInvalid.*may be damaged or cut off"),
        (
            "rows.jsonl.gz",
            gzip.compress(b"{}\n" * 1000, mtime=0)[:-9],  # a time would name the test anew in each process
            r"cannot be imported: .*may be damaged or cut off",
        ),
        ("rows.json", b'{\n  "data": [\n', r"is one JSON object over several lines; what can be read is an array"),
        ("rows.json", b'[{"q": "1"}]\n[{"q": "2"}]', r"goes on after its JSON array with b'\[\{\"q\": \"2\"\}\]'"),
        ("rows.jsonl", "\ufeff{}".encode("utf-16"), r"is UTF-16; save it as UTF-8"),
        ("rows.csv", b'"q,a\n1,2\n', r"has a header that cannot be read: not CSV"),
        ("rows.txt", b"1+1?", r"known are \['.csv', '.json', '.jsonl', '.ndjson', '.parquet'\]"),
        ("rows.csv", b"q,q\n1,2\n", r"names a column twice"),
        ("rows.csv", b"Frage,R\xe9ponse\n1,2\n", r"has a header that is not UTF-8"),
    ],
)
def test_unreadable_files_are_one_clear_error(jsonl, tmp_path, name, content, message):
    """A damaged file must be named, not shown as a traceback of a library."""
    with pytest.raises(DataError, match=message):
        jsonl(content, name=name).prepare()
    assert not list(tmp_path.glob("cache/sources/*.arrow"))


def test_missing_file_is_named(tmp_path):
    """A typo in a path is the commonest mistake."""
    source = FileSource(name="s", path=str(tmp_path / "no.jsonl"), layout="columns", columns=COLUMNS)
    with pytest.raises(DataError, match=r"no\.jsonl' cannot be read: No such file.*check the path"):
        source.prepare()


def test_wrong_columns_are_found_at_the_start(jsonl):
    """A data set with other columns must not end as a hundred thousand rejected rows."""
    source = jsonl(['{"question": "1+1?", "answers": "2"}'] * 150, columns={"user": "query", "answer": "answer"})
    with pytest.raises(DataError) as caught:
        source.prepare()
    assert str(caught.value) == (
        "source 's': none of 150 rows can be used, mostly because column 'query' is missing. "
        "Layout 'columns' wants columns ['query', 'answer']; found are ['question', 'answers']. 'query': "
        "did you mean 'question'?, 'answer': did you mean 'answers'? Set `layout` and `columns` of the source"
    )


def test_a_file_is_imported_once_and_again_when_it_changes(jsonl, tmp_path, direct):
    """Two jobs must not write one cache, and an old cache must not stand for a new file."""
    source = jsonl([GOOD] * 3000)
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda _: replace(source).size, range(4)))
    assert sizes == [3000] * 4
    assert [path.suffix for path in (tmp_path / "cache" / "sources").iterdir() if path.suffix != ".lock"] == [".arrow"]
    with open(source.path, "a", encoding="utf-8") as file:
        file.write(f"{GOOD}\n")
    changed = replace(source)
    assert changed.size == 3001
    assert changed.read(2999, direct).id == "s/3000"  # across the borders of batches


def test_cache_folder_follows_the_environment(jsonl, tmp_path, monkeypatch):
    """Clusters keep caches on another disk than the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    source = jsonl([GOOD])
    FileSource(name="s", path=source.path, layout="columns", columns=COLUMNS).prepare()
    assert len(list((tmp_path / "xdg" / "orca2" / "sources").glob("*.arrow"))) == 1


def test_stored_labels_decide_what_is_used(jsonl, direct):
    """`strategy=direct` must train on answers that were made under `direct`, and count the others."""
    columns = COLUMNS | {"strategy": "how"}
    hows = ["direct", "step_by_step", UNLABELLED, "direct", "step_by_step"]
    source = jsonl([json.dumps({"q": "1+1?", "a": "2", "how": how}) for how in hows], columns=columns)
    counts = source.survey(direct)
    assert (counts.kept, dict(counts.left_out)) == (3, {"s/step_by_step": 2})
    rejected = [row for row in read_all(source, direct) if isinstance(row, Rejected)]
    assert [(row.kind, row.row) for row in rejected] == [("left_out", "line 2"), ("left_out", "line 5")]
    assert rejected[0].reason == "strategy 'direct' does not use label 'step_by_step' of task 's'"


def test_survey_of_one_label_reads_nothing(jsonl):
    """The start of a run must not wait for a pass over millions of rows that all have one label."""
    source = jsonl([GOOD] * 4, constants={"strategy": "step_by_step"})
    assert source.survey(Strategy(name="step_by_step", instruction="x")).kept == 4
    assert dict(source.survey(Strategy(name="direct", instruction="x")).left_out) == {"s/step_by_step": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "colums"}, r"unknown layout 'colums'; allowed are"),
        (
            {"columns": {"user": "q", "anwser": "a"}},
            r"'anwser' is not a field of an example; did you mean 'answer'",
        ),
        ({"columns": {"user": "q"}}, r"name the columns of 'user' and 'answer'"),
        ({"constants": {"teachr": "x"}}, r"did you mean 'teacher'"),
    ],
)
def test_wrong_settings_are_refused_with_the_nearest_name(changes, message):
    """Before any file is touched."""
    with pytest.raises(ConfigError, match=message):
        FileSource(**{"name": "s", "path": "x.jsonl", "layout": "columns", "columns": COLUMNS} | changes)
