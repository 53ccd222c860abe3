"""Processes that share an evaluation wait for each other over files, without any collective. torchrun or srun starts
them, or with `processes=N` the first one starts the others, with torchrun's variables.

    first    open_call ──▶ answers its share ──▶ everyone_answered ──▶ merges, DONE
    others   answer theirs ──▶ answer_call, with the word of the call that they find, until it is over

Every launch calls with a word of its own, so files that a killed launch left behind do not count as answers.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orca2.errors import ConfigError, ModelError
from orca2.files import atomic_write_text
from orca2.processes.ranks import Ranks

POLL_S = 0.5
"""Seconds between two looks at the others' files; ours."""

CALL = "call"
STARTED_BY = "ORCA2_STARTED_BY"
"""Variable that tells a process of `processes=N` the id of the first one."""


@contextmanager
def other_processes(command: Sequence[str], rank: Ranks, processes: int) -> Iterator[tuple[Ranks, Callable[[], None]]]:
    """Start the others of `processes` with `command`, and be the first; a launcher's own ranks stay as they are.

    Yields this process's rank, and what to call now and then: it raises ModelError as soon as another process has
    failed, whose own message then stands above. The others are stopped when the block is left.

    Raises:
        ConfigError: `processes` is not positive, or differs from what a launcher has started.
    """
    if processes < 1 or (rank.world > 1 and processes not in (1, rank.world)):
        raise ConfigError(f"processes = {processes}: give 1 or more, and leave it out under torchrun or srun")
    if rank.world > 1 or processes == 1:
        yield rank, lambda: None
        return
    started: list[subprocess.Popen[bytes]] = []

    def check() -> None:
        for index, process in enumerate(started, start=1):
            if process.poll():
                raise ModelError(f"process {index} of {processes} ended with code {process.returncode}; see above")

    try:
        for index in range(1, processes):
            own = {"RANK": str(index), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(index)}
            own |= {STARTED_BY: str(os.getpid())}
            started.append(subprocess.Popen(command, env=os.environ | own, stdin=subprocess.DEVNULL))
        yield Ranks(world=processes, local_world=processes), check
    finally:
        for process in started:
            process.terminate()
            process.wait()


def check_starter(environment: Mapping[str, str]) -> None:
    """Raise ModelError where `processes=N` started this process, and the first one has gone, killed perhaps."""
    if STARTED_BY in environment and os.getppid() != int(environment[STARTED_BY]):
        raise ModelError("the process that started this one is gone; what was answered is kept")


def open_call(folder: Path) -> str:
    """Begin a launch in the folder of its shards; the word that its processes answer."""
    folder.mkdir(parents=True, exist_ok=True)
    word = secrets.token_hex(8)
    atomic_write_text(folder / CALL, word)
    for old in folder.glob("*.answered"):
        old.unlink(missing_ok=True)
    return word


def everyone_answered(folder: Path, word: str, count: int) -> bool:
    """Whether all but the first of `count` processes have answered the call."""
    return all(_answered(folder, index, word).exists() for index in range(1, count))


def answer_call(folder: Path, index: int, over: Callable[[], bool]) -> Callable[[], bool]:
    """A `ready` for `wait_until` that answers each new call, the last of them this launch's, until it is `over()`."""
    answered = ""

    def ready() -> bool:
        nonlocal answered
        with suppress(FileNotFoundError):  # the first process removes the folder when it has all answers
            word = (folder / CALL).read_text(encoding="utf-8")
            if word != answered:
                atomic_write_text(_answered(folder, index, word), "")
                answered = word
        return over()

    return ready


def _answered(folder: Path, index: int, word: str) -> Path:
    return folder / f"{index}-{word}.answered"


def wait_until(
    ready: Callable[[], bool],
    progress: Callable[[], object],
    what: str,
    patience_s: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Return once `ready()`. `progress()` is anything that changes while the others work; `check` ends the wait.

    Raises:
        ModelError: nothing has changed for `patience_s` seconds. And what `check` raises.
    """
    last, since = progress(), time.monotonic()
    while not ready():
        check()
        time.sleep(POLL_S)
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise ModelError(f"waited {patience_s:.0f} s for {what} in vain; see the output of the other processes")
