"""The processes of one run: which one this is, and what they tell each other.

    torchrun, or the head process (launch.py)    RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK
    srun                                         SLURM_PROCID SLURM_STEP_NUM_TASKS SLURM_LOCALID …
    neither                                      one process: rank 0 of 1, and every function here is trivial

Tensors travel over NCCL between GPUs and over gloo between CPUs. Python objects and long waits have a gloo group of
their own, whose time-out allows for hours of downloading or exporting on one rank.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from orca2.errors import ConfigError, RankError

Value = TypeVar("Value")

STEP_TIMEOUT = timedelta(minutes=30)
"""Time limit of an exchange of tensors within a step: a rank that has not come by then is lost."""
WORK_TIMEOUT = timedelta(hours=12)
"""Time limit for one rank to prepare the data or write the student."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The place of this process among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Among the processes of this machine; the index of its GPU."""
    local_world: int = 1
    node: int = 0

    @property
    def nodes(self) -> int:
        return self.world // self.local_world


ALONE = Ranks()
_control: dist.ProcessGroup | None = None


def launched(environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """The place that torchrun, srun or the head process gave to this process; None if nobody did.

    Raises ConfigError where nodes run unequal numbers of processes.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_world = int(environment.get("LOCAL_WORLD_SIZE", world))
        local_rank = int(environment.get("LOCAL_RANK", rank % local_world))
        node = int(environment.get("GROUP_RANK", rank // local_world))
    # The variables of the step: those of the allocation are also set in a batch script that starts no tasks.
    elif int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        rank, world = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
        nodes = int(environment["SLURM_STEP_NUM_NODES"])
        if world % nodes:
            raise ConfigError(f"srun started {world} tasks on {nodes} nodes: start equally many on each node")
        local_world = world // nodes
        local_rank, node = int(environment["SLURM_LOCALID"]), int(environment["SLURM_NODEID"])
    else:
        return None
    return Ranks(rank=rank, world=world, local_rank=local_rank, local_world=local_world, node=node)


def here() -> Ranks:
    """The place of this process; rank 0 of 1 where nobody launched it as one of several."""
    return launched() or ALONE


def is_first() -> bool:
    """Whether this process prints, logs and writes for all."""
    return here().rank == 0


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """Connect the processes of the run for the block. `device_type` is `cpu` or `cuda`."""
    global _control
    ranks = here()
    if ranks.world == 1:
        yield ranks
        return
    _set_torch_variables(ranks)
    if device_type == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo", timeout=STEP_TIMEOUT)
    _control = dist.new_group(backend="gloo", timeout=WORK_TIMEOUT)
    together = False
    try:
        yield ranks
        together = True
    except SystemExit:  # asked to stop, like all others
        together = True
        raise
    finally:
        _control = None
        if together:  # after an error the others may be gone, and a destruction that waits for them would hide it
            dist.destroy_process_group()


def everyone(value: Value) -> list[Value]:
    """The value of each rank, by rank."""
    if _control is None:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def from_first(work: Callable[[], Value]) -> Value:
    """What `work` returns on rank 0, on every rank; the others wait for it.

    An exception of rank 0 is raised there. The others raise RankError after an error, the same SystemExit after a stop.
    """
    if _control is None:
        return work()
    if dist.get_rank() != 0:
        told: list[Any] = [None]
        dist.broadcast_object_list(told, src=0, group=_control)
        result, error = told[0]
        if isinstance(error, SystemExit):
            raise error
        if error is not None:
            raise RankError(error)
        return result  # type: ignore[no-any-return]
    try:
        result = work()
    except BaseException as error:
        told = [(None, error if isinstance(error, SystemExit) else f"{type(error).__name__} on rank 0: {error}")]
        with suppress(RuntimeError):  # the others may be gone, stopped by the same signal
            dist.broadcast_object_list(told, src=0, group=_control)
        raise
    dist.broadcast_object_list([(result, None)], src=0, group=_control)
    return result


def _set_torch_variables(ranks: Ranks) -> None:
    """What torch's `env://` rendezvous and Lightning read, also under srun."""
    if "RANK" in os.environ:
        return
    job = int(os.environ.get("SLURM_JOB_ID", 0))
    os.environ |= {
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.world),
        "LOCAL_RANK": str(ranks.local_rank),
        "LOCAL_WORLD_SIZE": str(ranks.local_world),
        "GROUP_RANK": str(ranks.node),
    }
    os.environ.setdefault("MASTER_ADDR", _first_host(os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")))
    # The same on every node, and another for each job that shares a node.
    os.environ.setdefault("MASTER_PORT", str(20_000 + job % 10_000))


def _first_host(nodes: str) -> str:
    """`gpu[07-09,12]` -> `gpu07`; `a,b` -> `a`: SLURM's short form of a list of hosts."""
    name, bracket, rest = nodes.partition("[")
    if "," in name or not bracket:
        return nodes.split(",")[0]
    inside, _, after = rest.partition("]")
    return name + inside.split(",")[0].split("-")[0] + after.split(",")[0]
