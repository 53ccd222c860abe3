"""One rank of a process group that saves and loads checkpoints; `test_checkpointing` starts and judges it.

python checkpoint_worker.py <folder> <command>...      RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set

save:<kind>:<name>    train for two steps and save to <folder>/<name>;  kind: whole | sharded
load:<kind>:<name>    load <folder>/<name> into other weights; write all tensors to <name>-<kind>-<ranks>.safetensors
"""

import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from orca2.checkpointing.saving import Saver
from orca2.checkpointing.shards import training_tensors
from orca2.processes.ranks import Ranks, everyone, joined

warnings.filterwarnings("ignore")


class Tied(nn.Module):
    """Every shape that is hard to cut: a scalar, fewer rows than ranks, rows that do not divide, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1))
        self.bias = nn.Parameter(torch.rand(3))
        self.embedding = nn.Embedding(7, 5)
        self.inner = nn.Linear(5, 5)
        self.output = nn.Linear(5, 7, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(self.embedding(ids)) * self.scale
        return self.output(hidden).logsumexp(-1).sum() + (hidden[..., :3] * self.bias).sum()


def training(seed: int, sharded: bool) -> tuple[Tied, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = Tied()
    if sharded:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        fully_shard(model.inner, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def train(model: Tied, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        model(torch.arange(7)).backward()
        optimizer.step()
        optimizer.zero_grad()


def whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    full = {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}
    return {name: tensor.detach().clone() for name, tensor in full.items()}


def main(folder: Path, commands: list[str], ranks: Ranks) -> None:
    for command in commands:
        verb, kind, name = command.split(":")
        saver = Saver(folder / name, signature="test")
        if verb == "save":
            model, optimizer = training(1, kind == "sharded")
            train(model, optimizer, 2)
            saver.save(2, training_tensors(model, optimizer), {"shared": name}, {"rank": ranks.rank})
            reference = whole(training_tensors(model, optimizer))
            train(model, optimizer, 1)  # goes on while the thread writes: must not be seen in the checkpoint
            saver.wait()
            output = folder / f"{name}.safetensors"
        else:
            model, optimizer = training(2, kind == "sharded")
            tensors = training_tensors(model, optimizer)
            progress, refused = saver.load_newest(tensors)
            assert progress is not None and progress["shared"] == name and not refused, refused
            assert [each["rank"] for each in progress["ranks"]] == list(range(len(progress["ranks"])))
            reference = whole(training_tensors(model, optimizer))
            output = folder / f"{name}-{kind}-{ranks.world}.safetensors"
        if ranks.rank == 0:
            save_file(reference, output)
        everyone(None)


if __name__ == "__main__":
    with joined("cpu") as place:
        main(Path(sys.argv[1]), sys.argv[2:], place)
