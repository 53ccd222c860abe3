"""Which of several processes this one is, and how they wait for each other: over files, without any collective.

torchrun     RANK, WORLD_SIZE, LOCAL_RANK
srun         SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID    a batch script itself is no rank
processes=N  the first process starts the others with torchrun's variables
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from orca2.errors import ConfigError, ModelError

POLL_S = 0.5
"""Seconds between two looks at the others' files; ours."""

_VARIABLES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True, slots=True)
class Rank:
    """One process among `count`; `local` is its number on its machine."""

    index: int = 0
    count: int = 1
    local: int = 0


def rank_of(environment: Mapping[str, str]) -> Rank:
    """The rank that a launcher's variables give; a single process where there are none."""
    for index, count, local in _VARIABLES:
        if index in environment and count in environment:
            return Rank(int(environment[index]), int(environment[count]), int(environment.get(local, 0)))
    return Rank()


@contextmanager
def other_processes(command: Sequence[str], rank: Rank, processes: int) -> Iterator[Rank]:
    """Start the others of `processes` with `command`, and be the first; a launcher's own ranks stay as they are.

    The others are stopped when the block is left.

    Raises:
        ConfigError: `processes` is not positive, or differs from what a launcher has started.
        ModelError: another process failed; its own message stands above.
    """
    if processes < 1 or (rank.count > 1 and processes not in (1, rank.count)):
        raise ConfigError(f"processes = {processes}: give 1 or more, and leave it out under torchrun or srun")
    if rank.count > 1 or processes == 1:
        yield rank
        return
    started = []
    try:
        for index in range(1, processes):
            own = {"RANK": str(index), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(index)}
            started.append(subprocess.Popen(command, env=os.environ | own, stdin=subprocess.DEVNULL))
        yield Rank(0, processes, 0)
        for index, process in enumerate(started, start=1):
            if process.wait() != 0:
                raise ModelError(f"process {index} of {processes} ended with code {process.returncode}; see above")
    finally:
        for process in started:
            process.terminate()
            process.wait()


def wait_until(ready: Callable[[], bool], progress: Callable[[], object], what: str, patience_s: float) -> None:
    """Return once `ready()`. `progress()` is anything that changes while the others work.

    Raises:
        ModelError: nothing has changed for `patience_s` seconds.
    """
    last, since = progress(), time.monotonic()
    while not ready():
        time.sleep(POLL_S)
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise ModelError(f"waited {patience_s:.0f} s for {what} in vain; see the output of the other processes")
