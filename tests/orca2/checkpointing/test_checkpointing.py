"""Checkpoints on disk: whole or absent, of this run or refused, and the same for any number of ranks."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from orca2.checkpointing import folder as folder_module
from orca2.checkpointing import shards
from orca2.checkpointing.folder import checkpoints_in, refusal, remove_unfinished
from orca2.checkpointing.saving import Saver
from orca2.checkpointing.shards import training_tensors
from orca2.errors import CheckpointError
from tests.commands import run_ranks

WORKER = Path(__file__).with_name("checkpoint_worker.py")
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


class Training:
    """A model with an optimizer that has stepped."""

    def __init__(self, seed: int = 1, width: int = 4, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width)).to(dtype)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, fused=True)
        self.step()

    def step(self) -> None:
        self.model(torch.ones(2, 3, dtype=self.model[0].weight.dtype)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return training_tensors(self.model, self.optimizer)

    def copies(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}


def test_looking_at_a_fresh_optimizer_changes_nothing() -> None:
    """A run asks for its tensors before the first step; one counted there would shift the bias correction."""
    looked_at, alone = (nn.Linear(3, 2, bias=False) for _ in range(2))
    alone.load_state_dict(looked_at.state_dict())
    for number, model in enumerate((looked_at, alone)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.98), fused=True)
        if number == 0:
            training_tensors(model, optimizer)
        for _ in range(2):
            model(torch.tensor([[1.0, -2.0, 3.0]])).sum().backward()
            optimizer.step()
    assert torch.equal(looked_at.weight, alone.weight)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Saver, dict[int, dict[str, torch.Tensor]]]:
    """Checkpoints of steps 1 and 2, and what they must contain."""
    training, saver, wanted = Training(), Saver(tmp_path / "checkpoints", "mine"), {}
    for step in (1, 2):
        wanted[step] = training.copies()
        saver.save(step, training.tensors, {"rows": step}, {"own": [step, None, "é"]})
        training.step()
    saver.wait()
    return saver, wanted


def same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    assert wanted
    return got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_everything_comes_back_to_the_bit(saved: Any) -> None:
    """A moment, a step counter or a norm that is lost makes a resumed run another run."""
    saver, wanted = saved
    other = Training(seed=9)
    progress, refused = saver.load_newest(other.tensors)
    assert refused == []
    assert progress == {"step": 2, "rows": 2, "ranks": [{"own": [2, None, "é"]}]}
    assert same(other.tensors, wanted[2])
    assert {name.rpartition(".")[2] for name in wanted[2]} == {"weight", "bias", "step", "exp_avg", "exp_avg_sq"}


def test_half_precision_comes_back_to_the_bit(tmp_path: Path) -> None:
    """numpy has no bfloat16: bytes must travel, not values."""
    training, other = Training(dtype=torch.bfloat16), Training(seed=9, dtype=torch.bfloat16)
    saver = Saver(tmp_path, "mine")
    saver.save(1, training.tensors, {}, {})
    saver.wait()
    saver.load_newest(other.tensors)
    assert same(other.tensors, training.tensors)


def test_frozen_weights_are_not_saved() -> None:
    """Beside the adapters of a 13B student they would be 50 GB a checkpoint that loading makes anyway."""
    training = Training()
    training.model[0].requires_grad_(False)
    names = {name for name in training_tensors(training.model, training.optimizer) if name.startswith("model.")}
    assert names == {"model.1.weight", "model.1.bias"}


def test_nothing_on_disk_is_a_pickle(saved: Any) -> None:
    """A pickle runs the code of its author."""
    saver, wanted = saved
    newest = checkpoints_in(saver.folder)[-1]
    assert sorted(path.name for path in newest.iterdir()) == [
        "manifest.json",
        "progress.json",
        "shard-00001.safetensors",
    ]
    assert same(load_file(newest / "shard-00001.safetensors"), wanted[2])


def test_an_empty_folder_starts_anew(tmp_path: Path) -> None:
    """The first run of all has no checkpoint, and that is not an error."""
    assert Saver(tmp_path / "none", "mine").load_newest(Training().tensors) == (None, [])


SHARD = "shard-00001.safetensors"


def truncate(path: Path) -> None:
    with (path / SHARD).open("r+b") as file:
        file.truncate((path / SHARD).stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / SHARD).read_bytes())
    content[-1] ^= 1
    (path / SHARD).write_bytes(content)


def edit_manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | changes))

    return edit


def make_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"PK")


@pytest.mark.parametrize(
    ("damage", "file", "reason"),
    [
        (truncate, SHARD, "truncated"),
        (flip_a_bit, SHARD, "SHA-256"),
        (lambda path: (path / SHARD).unlink(), SHARD, "No such file"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json", "incomplete"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json", "cannot be read"),
        (edit_manifest(format=2), "manifest.json", "format 2"),
        (edit_manifest(signature="theirs"), "manifest.json", "another config"),
        (edit_manifest(files={}), "manifest.json", "progress.json"),
        (make_a_file, "step-00000002", "not a folder"),
    ],
    ids=["truncated", "damaged", "missing", "incomplete", "torn", "version", "foreign", "empty", "other program"],
)
def test_an_unusable_one_is_refused_and_the_one_before_used(
    saved: Any, damage: Callable[[Path], None], file: str, reason: str
) -> None:
    """Half a checkpoint that loads without complaint ruins a run in silence."""
    saver, wanted = saved
    damage(checkpoints_in(saver.folder)[-1])
    other = Training(seed=9)
    progress, refused = saver.load_newest(other.tensors)
    assert progress is not None and progress["step"] == 1
    assert same(other.tensors, wanted[1])
    assert len(refused) == 1 and "\n" not in refused[0]
    assert file in refused[0] and reason in refused[0]


def test_with_none_usable_the_run_does_not_start_anew(saved: Any) -> None:
    """A week of training would be overwritten from step 0."""
    saver, _ = saved
    for path in checkpoints_in(saver.folder):
        truncate(path)
    with pytest.raises(CheckpointError, match=r"(?s)step-00000002.*step-00000001.*delete"):
        saver.load_newest(Training().tensors)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 5}, r"model\.0\.weight is \[4, 3\].*and \[5, 3\]"),
        ({"dtype": torch.bfloat16}, "float32, and .*bfloat16"),
    ],
    ids=["shape", "dtype"],
)
def test_another_model_is_refused_before_a_tensor_is_touched(saved: Any, changes: dict[str, Any], reason: str) -> None:
    """Loading would stop half-way, with weights of two models."""
    saver, _ = saved
    other = Training(**changes)
    before = other.copies()
    with pytest.raises(CheckpointError, match=f"(?s){reason}.*another model"):
        saver.load_newest(other.tensors)
    assert same(other.tensors, before)


def test_the_tensors_are_those_of_the_moment_of_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on while the file is written; a torn mixture of two steps would load without complaint."""
    training, saver = Training(), Saver(tmp_path, "mine")
    release, real = threading.Event(), shards._write_safetensors

    def late(*arguments: Any) -> Any:
        assert release.wait(30)
        return real(*arguments)

    monkeypatch.setattr(shards, "_write_safetensors", late)
    wanted = training.copies()
    saver.save(1, training.tensors, {}, {})
    training.step()  # would be seen if the copy were taken by the writing thread
    assert saver.is_writing and checkpoints_in(tmp_path) == []
    release.set()
    saver.wait()
    other = Training(seed=9)
    saver.load_newest(other.tensors)
    assert same(other.tensors, wanted)


def test_the_older_one_goes_only_when_the_newer_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed while saving must always find one whole checkpoint."""
    training, saver = Training(), Saver(tmp_path, "mine", keep=1)
    saver.save(1, training.tensors, {}, {})
    saver.wait()
    seen: list[list[str]] = []
    real = os.rename

    def watched(source: Path, target: Path) -> None:
        seen.append([path.name for path in checkpoints_in(tmp_path)])
        real(source, target)

    monkeypatch.setattr(folder_module.os, "rename", watched)
    saver.save(2, training.tensors, {}, {})
    saver.wait()
    # Before the new one appears; before the old one goes.
    assert seen == [["step-00000001"], ["step-00000001", "step-00000002"]]
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-00000002"]


class FullDisk:
    """A file that takes `room` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()


def test_a_full_disk_is_one_clear_error_and_costs_no_checkpoint(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual end of a long run; what is on disk must stay, and half a file must not."""
    saver, _ = saved
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = real(path, mode, *rest, **named)
        return FullDisk(file, 100) if mode == "xb" and path.suffix == ".safetensors" else file

    monkeypatch.setattr(Path, "open", opened)
    saver.save(3, Training().tensors, {}, {})
    with pytest.raises(CheckpointError, match=r"step 3 .*No space left on device.*last complete one is step-00000002"):
        saver.wait()
    monkeypatch.undo()
    saver.wait()  # told once
    assert [path.name for path in sorted(saver.folder.iterdir())] == ["step-00000001", "step-00000002"]
    saver.save(3, Training().tensors, {}, {})  # there is room again
    saver.wait()
    assert [path.name for path in checkpoints_in(saver.folder)] == ["step-00000002", "step-00000003"]


def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    """Such as a path that is a file."""
    (tmp_path / "checkpoints").write_text("")
    saver = Saver(tmp_path / "checkpoints", "mine")
    saver.save(1, Training().tensors, {}, {})
    with pytest.raises(CheckpointError, match="step 1 cannot be written"):
        saver.wait()


def test_what_a_killed_process_left_is_removed(saved: Any) -> None:
    """Otherwise every kill costs the size of a checkpoint forever."""
    saver, _ = saved
    unfinished = saver.folder / "step-00000003.tmp"
    unfinished.mkdir()
    (unfinished / SHARD).write_bytes(b"half")
    assert len(checkpoints_in(saver.folder)) == 2
    remove_unfinished(saver.folder)
    assert not unfinished.exists()
    assert refusal(checkpoints_in(saver.folder)[-1], "mine") is None


def test_a_refused_one_is_replaced_when_the_run_comes_there_again(saved: Any) -> None:
    """A refused checkpoint must not count among those kept, which must all be good."""
    saver, _ = saved
    flip_a_bit(checkpoints_in(saver.folder)[-1])
    training = Training(seed=5)
    saver.save(2, training.tensors, {}, {})
    saver.wait()
    other = Training(seed=9)
    progress, refused = saver.load_newest(other.tensors)
    assert progress is not None and progress["step"] == 2 and refused == []
    assert same(other.tensors, training.tensors)


@pytest.mark.slow
def test_any_number_of_ranks_reads_what_any_other_wrote(tmp_path: Path) -> None:
    """Elastic resume: whole or sharded, by 1, 2 or 4 ranks, every bit must be where it was."""
    run_ranks(1, WORKER, str(tmp_path), "save:whole:one")
    run_ranks(2, WORKER, str(tmp_path), "save:whole:two", "save:sharded:cut", "load:sharded:one", "load:whole:cut")
    run_ranks(4, WORKER, str(tmp_path), "load:sharded:one", "load:sharded:cut", "load:whole:two", "save:sharded:four")
    run_ranks(1, WORKER, str(tmp_path), "load:whole:two", "load:whole:cut", "load:whole:four")
    for name, files in (("two", 2), ("cut", 2), ("four", 4)):
        shards = list(next((tmp_path / name).iterdir()).glob("*.safetensors"))
        assert len(shards) == files  # replicas divide the writing, shards are not gathered
    compared = 0
    for name in ("one", "two", "cut", "four"):
        wanted = load_file(tmp_path / f"{name}.safetensors")
        for path in tmp_path.glob(f"{name}-*.safetensors"):
            assert same(load_file(path), wanted), path.name
            compared += 1
    assert compared == 8
