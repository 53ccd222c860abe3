"""A file of one's own questions through a served teacher to a data set."""

import json
from pathlib import Path
from typing import Any

import pytest

from orca2.errors import CheckpointError, DataError
from orca2.synthesis.pipeline import SUMMARY, WORK

ROWS = [{"q": "What is 2+2?", "a": 4}, {"q": "Name a river.", "a": None}, {"q": " ", "a": 1}]


def command(folder: Path, server: Any, *more: str) -> tuple[str, ...]:
    named = ("tasks=jsonl", f"tasks.path={folder / 'mine.json'}", "tasks.columns.user=q", "tasks.columns.gold=a")
    asked = ("teacher=vllm_server", "teacher.model=m", f"teacher.base_url={server.url}", "first_wait_s=0.01")
    return (*named, *asked, "strategy=direct", f"tasks.cache_dir={folder / 'cache'}", *more)


def write(folder: Path, rows: list[Any]) -> None:
    (folder / "mine.json").write_text(json.dumps(rows))


def test_rows_are_labelled_by_what_could_be_verified(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """An answer without a gold answer must not pass for a checked one, nor be lost."""
    write(tmp_path, ROWS)
    with loopback.serving() as server:
        data_sets.make(tmp_path / "a", *command(tmp_path, server))
    by_question = {row["user"]: row for row in data_sets.rows(tmp_path / "a")}
    assert by_question.keys() == {"What is 2+2?", "Name a river."}
    river = by_question["Name a river."]
    assert (river["verdict"], river["gold"], river["source"], river["lineage"]) == (
        "undecided",
        None,
        "jsonl",
        "mine.json#2",
    )
    assert by_question["What is 2+2?"]["gold"] == "4"
    assert [row["reason"] for row in data_sets.lines(tmp_path / "a", "rejected.jsonl")] == ["field 'q' is empty"]


def test_questions_that_changed_are_said(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """Answers to the earlier questions must not pass for answers to the edited file."""
    write(tmp_path, ROWS)
    with loopback.serving() as server:
        data_sets.make(tmp_path / "a", *command(tmp_path, server))
        write(tmp_path, [{"q": "What is 3+3?", "a": 6}])
        assert "the questions have changed since" in data_sets.make(tmp_path / "a", *command(tmp_path, server))
        (tmp_path / "a" / "DONE").unlink()
        share = next((tmp_path / "a" / WORK).glob("*")) if (tmp_path / "a" / WORK).exists() else None
        share = share or tmp_path / "a" / WORK / "0-of-1"
        share.mkdir(parents=True, exist_ok=True)
        (share / SUMMARY).write_text("{}")
        with pytest.raises(CheckpointError, match="began with other rows"):
            data_sets.make(tmp_path / "a", *command(tmp_path, server))


def test_nothing_verified_says_what_to_do(tmp_path: Path, data_sets: Any, loopback: Any) -> None:
    """`verification=verified` keeps none of the rows without gold answers; that must not look like a bad teacher."""
    write(tmp_path, [{"q": "Name a river."}])
    with loopback.serving() as server:
        more = ("tasks.columns.gold=gold", "verification=verified", "verification.samples=1")
        with pytest.raises(DataError, match="no gold answer is known"):
            data_sets.make(tmp_path / "a", *command(tmp_path, server, *more))
