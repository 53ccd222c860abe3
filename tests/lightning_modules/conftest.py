"""A student and data small enough to train for a few steps in a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from datamodules.erased_prompts import ErasedPromptDataModule
from lightning_modules.accounts import Accounts
from lightning_modules.checkpoints import Checkpoints
from lightning_modules.loggers import RunCsvLogger
from lightning_modules.student import StudentModule
from orca2.data.packing import PackingSpec
from orca2.data.procedural import ProceduralSource
from orca2.erasing import FixedErasing
from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student import StudentForLoss
from orca2.optimization import OptimizerSpec
from orca2.rendering.format import ChatFormat
from orca2.rendering.renderer import Renderer
from orca2.settings import build, compose_config

ROWS = 160


class Recorder(L.Callback):
    """The loss and the example ids of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ids: list[list[str]] = []

    def on_train_batch_end(self, _trainer: Any, module: Any, _out: Any, batch: Any, *_: Any) -> None:
        self.losses.append(module.report.loss)
        self.ids.append([example.id for micro in batch.micro_batches for example in micro.examples])


class Fit:
    """One small training run; every argument is a setting that some test changes."""

    def __init__(self, folder: Path, *, per_micro: int = 1, workers: int = 0, clip: float = 1.0) -> None:
        spec = ModelSpec(
            name="test",
            max_len=256,
            architecture={
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
            },
            tokenizer_vocabulary=600,
        )
        chat: ChatFormat = build(compose_config("train").format)
        strategy = build(compose_config("train").strategy)
        self.tokenizer = build_tokenizer(spec, chat)
        self.renderer = Renderer(self.tokenizer, chat)
        self.data = ErasedPromptDataModule(
            source=ProceduralSource(name="procedural", size=ROWS, seed=3, split="train", level=1),
            strategy=strategy,
            erasing=FixedErasing(name="cautious", message="Be careful."),
            renderer=self.renderer,
            packing=PackingSpec(name="test", length=256, isolate=True, waiting=8, lanes=1),
            epochs=1,
            packs_per_step=4,
            packs_per_micro_batch=per_micro,
            workers=workers,
            seed=5,
            rejected_path=folder / "rejected.jsonl",
        )
        self.data.prepare_data()
        self.data.setup("fit")
        optimizer = OptimizerSpec(
            name="test",
            learning_rate=1e-3,
            warmup=0.1,
            decay="linear",
            final_ratio=0.1,
            weight_decay=0.1,
            beta1=0.9,
            beta2=0.95,
            epsilon=1e-8,
            clip_norm=clip,
        )
        student = StudentForLoss(build_model(spec, self.tokenizer, seed=7), "sdpa")
        assert self.data.total_rows is not None
        self.module = StudentModule(student, optimizer, self.data.total_rows)
        self.recorder = Recorder()
        self.folder = folder
        self.told: list[str] = []

    def run(self, *callbacks: L.Callback, resume: Path | None = None, every: int = 1000) -> "Fit":
        folder = self.folder
        accounts = Accounts(every_steps=1, epochs=1)
        checkpoints = Checkpoints(resume or folder / "checkpoints", every, "test", self.told.append)
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=[RunCsvLogger(folder / "metrics.csv")],
            callbacks=[*callbacks, self.recorder, accounts, checkpoints],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(self.module, datamodule=self.data)
        return self

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.module.student.state_dict().items()}


@pytest.fixture
def make_fit(tmp_path: Path) -> Callable[..., Fit]:
    """`make_fit(**settings)`: a new run in a folder of its own."""
    count = 0

    def make(**settings: Any) -> Fit:
        nonlocal count
        count += 1
        folder = tmp_path / f"fit{count}"
        folder.mkdir()
        return Fit(folder, **settings)

    return make
