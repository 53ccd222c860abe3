"""How many processes a trainer file means, and what it refuses before anything starts."""

import pytest

from lightning_modules.trainer import TrainerSpec
from orca2.errors import ConfigError
from orca2.settings import build, compose_config

LAUNCHED = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}


def spec(*overrides: str) -> TrainerSpec:
    """A trainer from its file, on a machine without GPU, that can run here."""
    trainer: TrainerSpec = build(compose_config("train", [*overrides, "trainer.accelerator=cpu"]).trainer)
    trainer.require_here()
    return trainer


def test_files_mean_processes() -> None:
    """`trainer=ddp` with one process would train as if nothing was asked for."""
    found = {name: spec(f"trainer={name}") for name in ("auto", "cpu", "ddp", "fsdp")}
    assert {name: (one.world, one.parallelism) for name, one in found.items()} == {
        "auto": (1, "one"),
        "cpu": (1, "one"),
        "ddp": (2, "ddp"),
        "fsdp": (2, "fsdp"),
    }
    assert [name for name, one in found.items() if one.starts_ranks] == ["ddp", "fsdp"]


def test_launched_processes_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun a rank must not start ranks of its own, and all must see the same mesh."""
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    one = spec("trainer=fsdp")
    assert (one.local_world, one.world, one.shards, one.starts_ranks) == (2, 4, 2, False)
    with pytest.raises(ConfigError, match="4 processes were launched"):
        spec("trainer=fsdp", "trainer.devices=3")
    with pytest.raises(ConfigError, match="is for one process, not 4"):
        spec("trainer=cpu", "+trainer.devices=2")


def test_a_single_rank_is_a_single_process() -> None:
    """A run that resumes on one device needs no process group."""
    one = spec("trainer=fsdp", "trainer.devices=1")
    assert (one.parallelism, one.starts_ranks) == ("one", False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer=fsdp", "trainer.devices=4", "trainer.data_parallel_size=3"], "does not divide the 4 ranks"),
        (["trainer=fsdp", "trainer.nodes=2"], "srun or torchrun"),
        (["trainer=ddp", "trainer.devices=0"], "a number from 1"),
        (["trainer=cpu", "trainer.precision=16-mixed"], "fp16 is not offered"),
    ],
)
def test_what_cannot_run_is_refused(overrides: list[str], message: str) -> None:
    """Found here it costs a second; found by NCCL it costs half an hour of every GPU."""
    with pytest.raises(ConfigError, match=message):
        spec(*overrides)
