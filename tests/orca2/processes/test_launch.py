"""What the head makes of ranks that failed, and what ranks leave for it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from orca2.processes import launch


def failure(path: Path, code: int, text: str | None = None, time_ns: int = 0) -> ProcessFailure:
    if text is not None:
        extra = {"timestamp": 1, "time_ns": time_ns}
        path.write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
    return ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file=str(path))


def test_the_first_error_is_told(tmp_path: Path) -> None:
    """The others only lost their connection to the rank that failed."""
    failures = {
        0: failure(tmp_path / "0", 1, "Connection closed by peer", 200),
        1: failure(tmp_path / "1", 2, "DataError: row 3", 100),
    }
    assert launch._first_failure(failures) == "rank 1: DataError: row 3"


def test_a_killed_rank_is_named_before_those_who_complain(tmp_path: Path) -> None:
    """A rank that the kernel killed leaves no words."""
    failures = {0: failure(tmp_path / "0", 1, "Connection closed", 1), 1: failure(tmp_path / "1", -9)}
    assert launch._first_failure(failures).startswith("rank 1 was killed by SIGKILL (is the machine out of memory?)")


def test_a_rank_without_words_is_still_named(tmp_path: Path) -> None:
    """`os._exit` in a library, or an error before ours are caught."""
    assert "rank 0 ended with exit code 7" in launch._first_failure({0: failure(tmp_path / "0", 7)})


@pytest.mark.parametrize(("given", "expected"), [("3", "3"), (None, str(max(1, len(os.sched_getaffinity(0)) // 2)))])
def test_ranks_share_the_cores(given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank with as many threads as cores runs several times slower than one process."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    with launch._variables(2):
        assert os.environ["OMP_NUM_THREADS"] == expected
        assert launch.started_by_head()
    assert os.environ.get("OMP_NUM_THREADS") == given
    assert not launch.started_by_head()


def test_what_a_rank_leaves_is_what_the_head_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of the file must agree."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with launch._variables(2):
        launch._leave("ModelError: no such weights")
    left: Any = launch._read(str(tmp_path / "error.json"))
    assert left[1] == "ModelError: no such weights"
    assert ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json")).timestamp > 0


def test_of_sruns_tasks_the_first_ends_last_and_alone_says_that_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """srun kills the other tasks once one ends with a code, and returns that of the killed ones: nothing would tell a
    stop from a failure."""
    waited: list[float] = []
    monkeypatch.setattr(launch.time, "sleep", waited.append)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launch._code_of_rank(launch.STOPPED) == launch.STOPPED, "no srun: the head hears each rank"
    for name, value in {"NUM_TASKS": "2", "NUM_NODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_STEP_{name}", value)
    monkeypatch.setenv("SLURM_NODEID", "0")
    for rank, code in (("1", 0), ("0", launch.STOPPED)):
        assert waited == []
        monkeypatch.setenv("SLURM_PROCID", rank)
        monkeypatch.setenv("SLURM_LOCALID", rank)
        assert launch._code_of_rank(launch.STOPPED) == code
    assert waited == [launch.LAST_S]
    assert launch._code_of_rank(1) == 1


def test_a_sigterm_before_the_fit_ends_with_the_code_of_a_stop() -> None:
    """Killed while it loads, a run would be a failure to SLURM, and would not go back into the queue."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, launch.reporting():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == launch.STOPPED
    assert signal.getsignal(signal.SIGTERM) is before


STOPPED_RANK = """
import os, signal, time
from threading import Timer
from orca2.processes.launch import reporting
from orca2.processes.ranks import everyone, from_first, here, joined

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def stopped(after=0.0):
    time.sleep(after)
    terminate()
    time.sleep(60)

with reporting(), joined("cpu"):
    everyone(None)
    {first} if here().rank == 0 else {second}
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from_first(lambda: stopped(1.0))", "stopped()"),  # the other rank is gone when this one tells it
        ("from_first(stopped)", "from_first(stopped)"),  # the other rank waits, and its own signal is late
        ("(Timer(0.5, terminate).start(), everyone(1))", "stopped()"),  # the connection closes before the signal comes
    ],
)
def test_ranks_that_are_stopped_at_different_points_all_end_as_stopped(first: str, second: str) -> None:
    """srun signals all tasks; the one that was telling the others something ended with a traceback and code 1, so SLURM
    took the job for failed and did not put it back into the queue."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = STOPPED_RANK.format(first=first, second=second)
    ranks = [
        subprocess.Popen([sys.executable, "-c", script], env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=60)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [launch.STOPPED, launch.STOPPED], said
