"""The place of this process, from the variables of each launcher."""

import pytest

from orca2.errors import ConfigError
from orca2.processes.ranks import Ranks, _first_host, everyone, from_first, here, is_first, launched

SRUN = {
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "16",
}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1"}


def test_srun_and_torchrun_give_a_place() -> None:
    """A wrong local rank puts two processes on one GPU."""
    assert launched(SRUN) == Ranks(rank=11, world=16, local_rank=3, local_world=8, node=1)
    expected = Ranks(rank=5, world=8, local_rank=1, local_world=4, node=1)
    assert launched(TORCHRUN) == expected
    assert expected.nodes == 2
    assert launched({**SRUN, **TORCHRUN}) == expected, "torchrun inside an allocation"


def test_a_batch_script_is_no_rank() -> None:
    """It has the variables of the allocation; taken for rank 0 of 16 it would wait for the others forever."""
    script = {name: value for name, value in SRUN.items() if "STEP" not in name} | {"SLURM_PROCID": "0"}
    assert launched(script) is None
    assert launched({}) is None
    assert launched({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None


def test_uneven_nodes_are_refused() -> None:
    """Ranks would disagree about the mesh."""
    with pytest.raises(ConfigError, match="15 tasks on 2 nodes"):
        launched({**SRUN, "SLURM_STEP_NUM_TASKS": "15"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09,12]", "gpu07"),
        ("gpu[3,5]", "gpu3"),
        ("a,b", "a"),
        ("one", "one"),
        ("x-1,y[2-3]", "x-1"),
        ("n[1-2].org", "n1.org"),
    ],
)
def test_the_first_host_of_slurms_list(nodes: str, first: str) -> None:
    """Every rank must try to meet at the same machine."""
    assert _first_host(nodes) == first


def test_alone_nothing_is_exchanged() -> None:
    """One process needs no process group."""
    assert (here(), is_first(), everyone(3), from_first(lambda: 4)) == (Ranks(), True, [3], 4)
