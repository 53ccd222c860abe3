"""Data sets through the library `datasets`, from local files: no network."""

import json

import pytest

from orca2.errors import DataError
from orca2.records import Rejected
from orca2.rows.hub import HubSource, HubStream, reading
from orca2.rows.source import MapSource, StreamSource
from orca2.strategies import Strategy


@pytest.fixture
def rows_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"q": str(3 + row % 9), "a": "2" if row != 5 else "", "how": "direct"} for row in range(50)]
    rows[7]["how"] = "step_by_step"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def named(file, **changes):
    columns = {"user": "q", "answer": "a", "strategy": "how"}
    files = {"train": str(file)}
    return {"name": "h", "path": "json", "split": "train", "layout": "columns", "columns": columns} | (
        {"data_files": files} | changes
    )


def test_map_style_rows_and_survey(rows_file, direct):
    """Rows that are broken or left out are counted, like those of a file."""
    source = HubSource(**named(rows_file))
    assert isinstance(source, MapSource) and not isinstance(source, StreamSource)
    source.prepare()
    assert source.size == 50
    assert source.read(0, direct).id == "h/0"
    rejected = [row for row in (source.read(row, direct) for row in range(50)) if isinstance(row, Rejected)]
    assert [(row.row, row.kind) for row in rejected] == [("row 5", "broken"), ("row 7", "left_out")]
    counts = source.survey(direct)
    assert (counts.kept, dict(counts.left_out)) == (49, {"h/step_by_step": 1})


def test_stream_gives_each_row_once_in_shuffled_blocks(rows_file, direct):
    """A stream must keep the promise of every example once per epoch, and differ from epoch to epoch."""
    source = HubStream(**named(rows_file), rows=None, shuffle_rows=16)
    assert isinstance(source, StreamSource) and not isinstance(source, MapSource)
    epochs = [
        [row.row if isinstance(row, Rejected) else row.id for row in source.stream(1, e, 0, direct)] for e in (0, 1)
    ]
    assert all(len(epoch) == len(set(epoch)) == 50 for epoch in epochs)
    assert epochs[0] != epochs[1]
    block = {f"h/{row}" for row in range(16)} | {"row 5", "row 7"}
    assert set(epochs[0][:16]) <= block
    later = [row.row if isinstance(row, Rejected) else row.id for row in source.stream(1, 0, 21, direct)]
    assert later == epochs[0][21:]


@pytest.mark.parametrize("rows", [None, 40])
@pytest.mark.parametrize("workers", [0, 2])
def test_stream_trains_and_resumes(rows_file, make_loader, packs_of, rows, workers):
    """The same exact resume as for stored rows, with ranks, workers and lanes."""
    source = HubStream(**named(rows_file), rows=rows, shuffle_rows=16)
    loader = make_loader(source, lanes=2, packs_per_step=2, workers=workers)
    steps = list(loader)
    assert len(steps) > 6
    assert sum(step.rows for step in steps) == 2 * (rows or 50)
    for stop in range(len(steps) - 1):
        rest = list(make_loader(source, lanes=2, packs_per_step=2, state=loader.state_after(steps[stop])))
        assert [packs_of(step) for step in rest] == [packs_of(step) for step in steps[stop + 1 :]]


def test_stream_shorter_than_said_is_an_error(rows_file, direct):
    """The schedule counts on the rows that were promised."""
    source = HubStream(**named(rows_file), rows=60, shuffle_rows=16)
    with pytest.raises(DataError, match="ends after 50 rows; set rows=50"):
        list(source.stream(1, 0, 0, direct))


@pytest.mark.parametrize("kind", [HubSource, HubStream])
def test_unreachable_data_set_is_one_clear_error(tmp_path, kind):
    """Without a network the user needs the remedy, not the library's traceback."""
    extra = {"rows": None, "shuffle_rows": 8} if kind is HubStream else {}
    with pytest.raises(DataError, match=r"data set 'nobody/nothing' cannot be read: .*HF_HUB_OFFLINE=1"):
        kind(**named(tmp_path, path="nobody/nothing", data_files=None), **extra).prepare()


def test_a_data_set_that_breaks_off_is_one_clear_error():
    """The library's own errors are not kinds of OSError or ValueError; one that came late was a traceback."""
    exceptions = pytest.importorskip("datasets").exceptions
    broken_off = pytest.raises(
        DataError, match="tasks=x: data set 'a/b' cannot be read: DatasetGenerationError: cut off"
    )
    with broken_off, reading("tasks=x", "a/b"):
        raise exceptions.DatasetGenerationError("cut off")


def test_wrong_columns_are_found_at_the_start(rows_file):
    """The same check as for files."""
    source = HubSource(**named(rows_file, columns={"user": "question", "answer": "a"}))
    with pytest.raises(DataError, match=r"none of 50 rows can be used.*'question': did you mean"):
        source.prepare()


def test_a_choice_without_the_label(rows_file):
    """Labels are read for a survey, whatever the other columns hold."""
    choice = Strategy(name="step_by_step", instruction="x")
    assert HubSource(**named(rows_file)).survey(choice).kept == 1
