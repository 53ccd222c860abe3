"""Everything that was paid for, in one sqlite file: an answer is stored before it is used.

    answers   key ─▶ request, reply              key = sha256(request)
    failures  key ─▶ request, failure            requests that the server would not answer
    calls     run, key, state, tokens, usd       one row per call, written *before* it is sent
    batches   token ─▶ provider's batch id       one row per batch job, written before it is created; a token is
                                                 <run>/<unique>
    waiting   key ─▶ request, token              requests inside such a job

A call of state `open` was sent and never settled: its process died. A budget counts its worst case.
No API key ever gets here: a request holds none, and teachers strike theirs out of error texts.

Several processes may use one file at a time (write-ahead log). `synchronous=NORMAL` loses nothing when a
process is killed; a power cut can lose the last few milliseconds.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from orca2.asking.requests import Request, key_of
from orca2.errors import DataError
from orca2.serving.outcomes import LASTING, Failure, FailureKind, Reply, Usage, accepted

APPLICATION_ID = 0x6F726332
"""`orc2`, in the file's header: tells this file from any other sqlite file."""
FORMAT_VERSION = 1
BUSY_SECONDS = 60
"""How long a process waits for another one's write; a write takes well under a millisecond."""

IN_MEMORY = ":memory:"
"""The path of a cache that ends with its process."""

CallState = Literal["open", "known", "unsure"]
"""`open`: sent; `known`: settled with the server's usage; `unsure`: maybe billed, settled at its worst."""

_TABLES = """
CREATE TABLE answers (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL, stored REAL NOT NULL);
CREATE TABLE failures (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, failure TEXT NOT NULL, stored REAL NOT NULL
);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, usd REAL, started REAL NOT NULL
);
CREATE INDEX calls_by_key ON calls (key);
CREATE TABLE batches (token TEXT PRIMARY KEY, id TEXT, started REAL NOT NULL);
CREATE TABLE waiting (key TEXT PRIMARY KEY, request TEXT NOT NULL, token TEXT NOT NULL);
"""


class BatchResult(NamedTuple):
    """What became of one request of a batch job."""

    key: str
    request: str
    """The request's canonical JSON."""
    outcome: Reply | Failure | None
    """What the job brought; None if it ended without an answer to this request, so that nothing was billed."""
    usage: Usage | None
    """Tokens of the call; None if the server did not count them: the call stays open, at its worst case."""
    usd: float | None


class Cache:
    """An open cache file, made if it is missing. Use as a context manager, in one thread.

    Raises:
        DataError: the file is damaged, is something else, or has a newer format.
    """

    def __init__(self, path: Path | str, ask_again: Collection[FailureKind] = ()) -> None:
        """`ask_again`: kinds of lasting failures that this process does not find, so that each is asked once more,
        such as `too_long` where the server has a longer context by now. What comes then takes the old one's place.
        """
        self.path, self._ask_again, self._again = Path(path), frozenset(ask_again), set[str]()
        with self._translated():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def get(self, request: Request) -> Reply | Failure | None:
        """The stored reply, a failure that would come again, or None. Raises DataError for a damaged row."""
        key = request.key
        for table, column, kind in (("answers", "reply", Reply), ("failures", "failure", Failure)):
            with self._translated():
                row = self._db.execute(f"SELECT request, {column} FROM {table} WHERE key = ?", (key,)).fetchone()
            if row is None:
                continue
            stored: Reply | Failure = self._decoded(key, row[0], row[1], kind)
            judged = accepted(stored, request.prompt) if isinstance(stored, Reply) else stored
            if isinstance(judged, Failure) and judged.kind in self._ask_again and key not in self._again:
                return None
            if isinstance(stored, Reply) or stored.kind in LASTING:
                return stored
        return None

    def put(self, request: Request, outcome: Reply | Failure) -> None:
        """Store what came back. The first reply stays, unless it is one to ask again; a failure is replaced by the next
        outcome.
        """
        if self._ask_again and request.key not in self._again:
            with self.writing():
                if isinstance(outcome, Reply) and self.get(request) is None:
                    self._db.execute("DELETE FROM answers WHERE key = ?", (request.key,))
            self._again.add(request.key)
        self._put(request.key, request.canonical, outcome)

    def replies(self, run: str) -> Iterator[Reply]:
        """The replies to the calls of a run. Raises DataError for a damaged row."""
        with self._translated():
            rows = self._db.execute(
                "SELECT DISTINCT key, request, reply FROM calls JOIN answers USING (key) WHERE run = ?", (run,)
            )
            for key, request, reply in rows:
                yield self._decoded(key, request, reply, Reply)

    def open_call(self, run: str, key: str, worst: Usage, usd: float | None) -> int:
        """Note a call before it is sent, at its worst case. Returns its number."""
        with self.writing():
            cursor = self._db.execute(
                "INSERT INTO calls (run, key, state, prompt_tokens, completion_tokens, usd, started) "
                "VALUES (?, ?, 'open', ?, ?, ?, ?)",
                (run, key, worst.prompt_tokens, worst.completion_tokens, usd, time.time()),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def settle_call(self, number: int, state: CallState, usage: Usage, usd: float | None) -> None:
        """Replace the worst case of a call by what it took.

        A call that waits in a batch job stays open, for its process was stopped before the job ended; one that
        `end_batch` has settled stays as it is.
        """
        with self.writing():
            self._db.execute(
                "UPDATE calls SET state = ?, prompt_tokens = ?, completion_tokens = ?, usd = ? WHERE id = ? "
                "AND state = 'open' AND NOT EXISTS "
                "(SELECT 1 FROM waiting WHERE waiting.key = calls.key AND token LIKE calls.run || '/%')",
                (state, usage.prompt_tokens, usage.completion_tokens, usd, number),
            )

    def calls(self, run: str) -> dict[CallState, tuple[int, int, int, float]]:
        """Calls, prompt tokens, completion tokens and USD of a run by state; unknown USD count as 0."""
        with self._translated():
            rows = self._db.execute(
                "SELECT state, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), TOTAL(usd) "
                "FROM calls WHERE run = ? GROUP BY state",
                (run,),
            ).fetchall()
        return {state: (count, prompt, completion, usd) for state, count, prompt, completion, usd in rows}

    def runs(self, prefix: str) -> list[str]:
        """Names of the runs that have calls and begin with `prefix`."""
        with self._translated():
            rows = self._db.execute("SELECT DISTINCT run FROM calls WHERE run >= ? ORDER BY run", (prefix,))
            return [run for (run,) in rows if run.startswith(prefix)]

    def mean_answer_tokens(self) -> int | None:
        """Mean length of the answers that were billed; None if none was."""
        with self._translated():
            mean = self._db.execute(
                "SELECT AVG(completion_tokens) FROM calls WHERE state = 'known' AND completion_tokens > 0"
            ).fetchone()[0]
        return None if mean is None else round(mean)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction around several writes; nested uses join the outer one."""
        if self._db.in_transaction:
            yield
            return
        with self._translated():
            # IMMEDIATE waits for another process's write here, where sqlite honours the time-out.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def start_batch(self, token: str, requests: Iterable[Request]) -> None:
        """Note a batch job before it is created at the provider."""
        with self.writing():
            self._db.execute("INSERT INTO batches (token, started) VALUES (?, ?)", (token, time.time()))
            self._db.executemany(
                "INSERT OR REPLACE INTO waiting (key, request, token) VALUES (?, ?, ?)",
                [(request.key, request.canonical, token) for request in requests],
            )

    def name_batch(self, token: str, id: str) -> None:
        """Store the provider's id of a batch job."""
        with self.writing():
            self._db.execute("UPDATE batches SET id = ? WHERE token = ?", (id, token))

    def end_batch(self, token: str, results: Iterable["BatchResult"]) -> None:
        """Store what a batch job brought, settle its calls, and forget the job.

        Calls are settled here, too, because the process that made them may be gone.
        """
        run = _run_of(token)
        with self.writing():
            for result in results:
                if result.outcome is not None:
                    self._put(result.key, result.request, result.outcome)
                if result.usage is None:
                    continue
                self._db.execute(
                    "UPDATE calls SET state = 'known', prompt_tokens = ?, completion_tokens = ?, usd = ? "
                    "WHERE key = ? AND run = ? AND state = 'open'",
                    (result.usage.prompt_tokens, result.usage.completion_tokens, result.usd, result.key, run),
                )
            self._db.execute("DELETE FROM waiting WHERE token = ?", (token,))
            self._db.execute("DELETE FROM batches WHERE token = ?", (token,))

    def batches(self, runs: Collection[str]) -> dict[str, str | None]:
        """Token of each unfinished batch job of these runs -> its id, None where it was not yet given one."""
        with self._translated():
            rows = self._db.execute("SELECT token, id FROM batches ORDER BY started").fetchall()
        return {token: id for token, id in rows if _run_of(token) in runs}

    def waiting(self, token: str) -> dict[str, str]:
        """Key -> canonical JSON of the requests in a batch job."""
        with self._translated():
            return dict(self._db.execute("SELECT key, request FROM waiting WHERE token = ?", (token,)))

    def __len__(self) -> int:
        with self._translated():
            return int(self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def _put(self, key: str, canonical: str, outcome: Reply | Failure) -> None:
        table, column = ("answers", "reply") if isinstance(outcome, Reply) else ("failures", "failure")
        verb = "INSERT OR IGNORE" if isinstance(outcome, Reply) else "INSERT OR REPLACE"
        with self.writing():
            self._db.execute(
                f"{verb} INTO {table} (key, request, {column}, stored) VALUES (?, ?, ?, ?)",
                (key, canonical, json.dumps(asdict(outcome)), time.time()),
            )
            if table == "answers":
                self._db.execute("DELETE FROM failures WHERE key = ?", (key,))

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        # Two processes may make the file at once; only one of them finds it empty.
        with self.writing():
            empty = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
            application = self._db.execute("PRAGMA application_id").fetchone()[0]
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if empty and application == 0:
                for statement in _TABLES.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            elif application != APPLICATION_ID:
                raise DataError(f"{self.path} is a sqlite file of another program; name another cache file")
            elif version != FORMAT_VERSION:
                raise DataError(
                    f"{self.path} has cache format {version}, this version reads {FORMAT_VERSION}; "
                    "use the version that wrote it, or name another cache file"
                )

    def _decoded(self, key: str, request: str, text: str, kind: type[Any]) -> Any:
        try:
            if key_of(request) != key:
                raise ValueError("the request does not hash to its key")
            values = json.loads(text)
            return kind(**(values | {"usage": Usage(**values["usage"])}))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(self._damaged(f"row {key}: {error}")) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake of ours, not of the file
        except sqlite3.OperationalError as error:
            raise DataError(
                f"cache {self.path} cannot be used: {error}; check the disk's space and rights, and that it "
                "is not on a network file system"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(self._damaged(str(error))) from error
        except OSError as error:
            raise DataError(
                f"cache {self.path} cannot be made: {error}; name another file with cache=<path>"
            ) from error

    def _damaged(self, found: str) -> str:
        return (
            f"cache {self.path} is damaged: {found}; save what can be read with "
            f"`sqlite3 {self.path} .recover | sqlite3 new.sqlite`, or start with another cache file"
        )


def _run_of(token: str) -> str:
    return token.rpartition("/")[0]
