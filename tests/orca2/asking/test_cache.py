"""The cache: what was paid for stays, in one file, for several processes."""

import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from orca2.asking.cache import BatchResult, Cache
from orca2.asking.requests import Decoding, Request
from orca2.errors import ConfigError, DataError
from orca2.records import Turn
from orca2.serving.outcomes import NO_USAGE, Failure, Reply, Usage

DECODING = Decoding(max_tokens=10, temperature=0.0)
ASKED = Request(model="m", decoding=DECODING, system="Be brief.", user="1 + 1?")
TWO = Reply(text="2", finish_reason="stop", usage=Usage(prompt_tokens=7, completion_tokens=1), model="m-1")


def test_key_covers_what_changes_the_answer() -> None:
    """Fails if two requests with different answers share an address."""
    others = [
        replace(ASKED, model="n"),
        replace(ASKED, system="Be long."),
        replace(ASKED, system=""),
        replace(ASKED, user="1 + 2?"),
        replace(ASKED, sample=1),
        replace(ASKED, history=(Turn(user="a", answer="b"),)),
        replace(ASKED, system="", history=(Turn(user="Be brief.", answer=""),)),
        replace(ASKED, decoding=replace(DECODING, max_tokens=11)),
        replace(ASKED, decoding=replace(DECODING, temperature=None)),
        replace(ASKED, decoding=replace(DECODING, top_p=0.5)),
        replace(ASKED, decoding=replace(DECODING, seed=0)),
        replace(ASKED, decoding=replace(DECODING, extra={"reasoning_effort": "low"})),
    ]
    assert len({ASKED.key, *(other.key for other in others)}) == 1 + len(others)


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    """A mistyped path that ends in a traceback of `pathlib`."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be made.*cache=<path>"):
        Cache(tmp_path / "file" / "cache.sqlite")


def test_key_is_stable() -> None:
    """Fails if a change makes every answer of every existing cache be bought again."""
    assert ASKED.key == "406dece88e15e65a5d31bcad138f48a7d587f674f0fac7de08a09b6fc81d2687"
    assert replace(ASKED, decoding=Decoding(max_tokens=10, temperature=0)).key == ASKED.key


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n"])
def test_extra_cannot_lift_a_limit(field: str) -> None:
    """Fails if an answer may be longer, or be several, than what the budget reserves for it."""
    with pytest.raises(ConfigError, match=field):
        Decoding(max_tokens=10, extra={field: 9999})


def test_text_that_cannot_be_sent_is_refused() -> None:
    """Fails if half a surrogate pair raises deep inside the HTTP library instead of naming the row's fault."""
    with pytest.raises(DataError, match="user message cannot be sent"):
        replace(ASKED, user="\ud800")


def test_first_reply_stays_and_failures_give_way(tmp_path: Path) -> None:
    """Fails if a race of two processes changes an answer that a shard already holds."""
    with Cache(tmp_path / "c.sqlite") as cache:
        assert cache.get(ASKED) is None
        cache.put(ASKED, Failure(kind="exhausted", reason="down"))
        assert cache.get(ASKED) is None  # asked anew
        lasting = Failure(kind="too_long", reason="long", usage=NO_USAGE)
        cache.put(ASKED, lasting)
        assert cache.get(ASKED) == lasting
        cache.put(ASKED, TWO)
        cache.put(ASKED, replace(TWO, text="3"))
        assert cache.get(ASKED) == TWO and len(cache) == 1
        assert cache.get(replace(ASKED, sample=1)) is None


def _write(path: Path, start: int) -> None:
    with Cache(path) as cache:
        for i in range(start, start + 60):
            request = replace(ASKED, user=str(i))
            number = cache.open_call("run", request.key, TWO.usage, 0.5)
            with cache.writing():
                cache.put(request, replace(TWO, text=str(i)))
                cache.settle_call(number, "known", TWO.usage, 0.25)


def test_several_processes_write_one_file(tmp_path: Path) -> None:
    """Fails with `database is locked`, or loses rows, when ranks share a cache; also while it is being made."""
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_write, args=(tmp_path / "c.sqlite", 30 * rank)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    with Cache(tmp_path / "c.sqlite") as cache:
        assert len(cache) == 120
        assert cache.calls("run") == {"known": (180, 180 * 7, 180, 45.0)}


def test_mean_answer_is_of_answers(tmp_path: Path) -> None:
    """Fails if calls that were refused make answers look short, and the estimate cheap."""
    with Cache(tmp_path / "c.sqlite") as cache:
        assert cache.mean_answer_tokens() is None
        for tokens in (0, 200, 0, 0, 300):
            usage = Usage(prompt_tokens=7, completion_tokens=tokens)
            cache.settle_call(cache.open_call("run", "key", usage, None), "known", usage, None)
        assert cache.mean_answer_tokens() == 250


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to have a header" * 30, b"SQLite format 3\0" + b"x" * 5000]
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Fails if a broken file gives a foreign traceback, or is silently replaced by an empty cache."""
    path = tmp_path / "c.sqlite"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"c\.sqlite is damaged"):
        Cache(path)
    assert path.read_bytes() == content


def test_damaged_rows_and_pages_are_found(tmp_path: Path) -> None:
    """Fails if a flipped bit is handed out as the teacher's answer."""
    path = tmp_path / "c.sqlite"
    _write(path, 0)
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.execute("UPDATE answers SET request = replace(request, '1', '2') WHERE key = ?", (ASKED.key,))
        key = replace(ASKED, user="5").key
        raw.execute("UPDATE answers SET request = request || ' ' WHERE key = ?", (key,))
    with Cache(path) as cache, pytest.raises(DataError, match="does not hash to its key"):
        cache.get(replace(ASKED, user="5"))


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Fails if another program's database, or a later format, is written into."""
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as raw:
        raw.execute("CREATE TABLE precious (x)")
    with pytest.raises(DataError, match="another program"):
        Cache(foreign)
    later = tmp_path / "later.sqlite"
    Cache(later).__exit__(None, None, None)
    with sqlite3.connect(later) as raw:
        raw.execute("PRAGMA user_version = 99")
    with pytest.raises(DataError, match="cache format 99"):
        Cache(later)


def test_batch_jobs_outlive_their_process(tmp_path: Path) -> None:
    """Fails if a job's calls count twice or for nothing after a crash, or its results lack their requests."""
    path, other = tmp_path / "c.sqlite", replace(ASKED, user="2 + 2?")
    worst = Usage(prompt_tokens=99, completion_tokens=9)
    with Cache(path) as cache:
        numbers = [cache.open_call("a/0", request.key, worst, 1.0) for request in (ASKED, other)]
        cache.start_batch("a/0/token", [ASKED, other])
        cache.name_batch("a/0/token", "batch_1")
        # The process is told to stop: nobody knows yet what the calls take.
        cache.settle_call(numbers[0], "unsure", worst, 1.0)
        cache.settle_call(numbers[1], "known", NO_USAGE, 0.0)
    with Cache(path) as cache:
        assert cache.batches(["a/0"]) == {"a/0/token": "batch_1"} and cache.batches(["a", "a/1"]) == {}
        assert cache.waiting("a/0/token") == {ASKED.key: ASKED.canonical, other.key: other.canonical}
        assert cache.calls("a/0") == {"open": (2, 198, 18, 2.0)}
        results = [
            BatchResult(ASKED.key, ASKED.canonical, TWO, TWO.usage, 0.1),
            BatchResult(other.key, "", None, NO_USAGE, 0.0),
        ]
        cache.end_batch("a/0/token", results)
        assert cache.get(ASKED) == TWO and len(cache) == 1 and cache.get(other) is None
        assert cache.calls("a/0") == {"known": (2, 7, 1, 0.1)}
        assert cache.batches(["a/0"]) == {} and cache.waiting("a/0/token") == {}
