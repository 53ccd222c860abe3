"""A student and data small enough to train for a few steps in a test, in one process or as one of several ranks.

    torchrun --nproc-per-node 2 tests/small_fit.py OUT ddp fsdp      writes OUT/<case>-<rank>.json

The file is a script, so that several processes can be started with it; tests in one process import it.
"""

import dataclasses
import errno
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from datamodules.erased_prompts import ErasedPromptDataModule
from lightning_modules.accounts import Accounts
from lightning_modules.checkpoints import Checkpoints
from lightning_modules.finish import export
from lightning_modules.loggers import RunCsvLogger
from lightning_modules.student import StudentModule
from lightning_modules.trainer import TrainerSpec
from lightning_modules.validation import Validation
from orca2.data.packing import PackingSpec
from orca2.data.procedural import ProceduralSource
from orca2.data.validation_rows import validation_batches
from orca2.erasing import FixedErasing
from orca2.errors import Orca2Error
from orca2.generation import hf
from orca2.generation.hf import HFGenerator
from orca2.modelling import export as exporting
from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.export import _write_file as write_file
from orca2.modelling.optimization import OptimizerSpec
from orca2.modelling.selftest import check_student
from orca2.modelling.sharding import build_mesh, full_weights, gathered, root_gathered, shard
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student_model import StudentForLoss
from orca2.processes.ranks import here, joined
from orca2.rendering.format import ChatFormat
from orca2.rendering.renderer import Renderer
from orca2.rows.source import Source
from orca2.runs import RunDirectory
from orca2.settings import build, compose_config

ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TIED = {"tie_word_embeddings": True}
MODEL = ModelSpec(name="test", max_len=256, architecture=ARCHITECTURE, tokenizer_vocabulary=600)
OPTIMIZER = OptimizerSpec(
    name="test",
    learning_rate=1e-3,
    warmup=0.1,
    decay="linear",
    final_ratio=0.1,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-8,
    clip_norm=1.0,
)


class Recorder(L.Callback):
    """What every step did on this rank."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.ids: list[list[str]] = []

    def on_train_batch_end(self, _trainer: Any, module: Any, _out: Any, batch: Any, *_: Any) -> None:
        self.losses.append(module.report.loss)
        self.norms.append(module.report.gradient_norm)
        self.ids.append([example.id for micro in batch.micro_batches for example in micro.examples])


class Fit:
    """One small training run; every argument is a setting that some test changes."""

    def __init__(
        self,
        folder: Path,
        *,
        per_micro: int = 1,
        workers: int = 0,
        rows: int = 160,
        lanes: int = 1,
        strategy: str = "one",
        shards: int | str = "auto",
        architecture: Mapping[str, Any] | None = None,
        compute: torch.dtype = torch.float32,
        validation_rows: int = 0,
        source: Source | None = None,
    ) -> None:
        model_spec = dataclasses.replace(MODEL, architecture={**ARCHITECTURE, **(architecture or {})})
        chat: ChatFormat = build(compose_config("train").format)
        self.tokenizer = build_tokenizer(MODEL, chat)
        self.renderer = Renderer(self.tokenizer, chat)
        self.data = ErasedPromptDataModule(
            source=source or ProceduralSource(name="procedural", size=rows, seed=3, split="train", level=1),
            strategy=build(compose_config("train").strategy),
            erasing=FixedErasing(name="cautious", message="Be careful."),
            renderer=self.renderer,
            packing=PackingSpec(name="test", length=256, isolate=True, waiting=8, lanes=lanes),
            epochs=1,
            packs_per_step=4,
            packs_per_micro_batch=per_micro,
            workers=workers,
            seed=5,
            rejected_path=folder / "rejected.jsonl",
            validation_rows=validation_rows,
        )
        self.data.prepare_data()
        self.data.setup("fit")
        self.spec = TrainerSpec(
            name="test",
            accelerator="cpu",
            precision="32-true",
            strategy=strategy,  # type: ignore[arg-type]
            data_parallel_size=shards,  # type: ignore[arg-type]
        )
        student = StudentForLoss(build_model(model_spec, self.tokenizer, seed=7), "sdpa")
        if self.spec.parallelism == "fsdp":
            shard(student, build_mesh("cpu", self.spec.shards), compute)
        check_student(student)
        assert self.data.total_rows is not None
        self.module = StudentModule(student, OPTIMIZER, self.data.total_rows)
        self.recorder = Recorder()
        self.folder = folder
        self.told: list[str] = []

    def run(
        self, *callbacks: L.Callback, resume: Path | None = None, every: int = 1000, validate_every: int = 5
    ) -> "Fit":
        """Train to the end. `resume` is a folder of checkpoints to go on from."""
        checkpoints = Checkpoints(resume or self.folder / "checkpoints", every, "test", self.told.append)
        loggers = [RunCsvLogger(self.folder / "metrics.csv")] if here().rank == 0 else []
        accounts = Accounts(every_steps=1, epochs=1)
        assert self.data.validation is not None
        micros = validation_batches(self.data.validation.rendered, self.data.packing, 1, self.renderer.pad_id)
        self.validation = Validation(micros, validate_every, accounts, lambda: checkpoints.stopped, self.told.append)
        ours = [self.recorder, accounts, self.validation, *callbacks, checkpoints]
        trainer = self.spec.build(self.folder, loggers, ours)
        trainer.fit(self.module, datamodule=self.data)
        return self

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """All weights, also of a sharded student; a collective call then."""
        return {name: tensor.clone() for name, tensor in full_weights(self.module.student)}


class PoisonSecondRank(L.Callback):
    """A gradient of the last rank becomes NaN in step 2."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            self.before = {name: weight.clone() for name, weight in full_weights(module.student)}
            if here().rank == here().world - 1:
                norm = module.student.model.base_model.layers[0].input_layernorm
                norm.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))


def train_case(**settings: Any) -> Callable[[Path], dict[str, Any]]:
    def case(folder: Path) -> dict[str, Any]:
        fit = Fit(folder, rows=210, validation_rows=10, **settings).run()
        sums = {name: float(weight.double().abs().sum()) for name, weight in fit.weights.items()}
        record = fit.recorder
        training = {"losses": record.losses, "norms": record.norms, "ids": record.ids, "weights": sums}
        return training | {"validation": fit.validation.figures}

    return case


def poison_case(**settings: Any) -> Callable[[Path], dict[str, Any]]:
    def case(folder: Path) -> dict[str, Any]:
        fit, poison = Fit(folder, **settings), PoisonSecondRank()
        try:
            fit.run(poison)
        except Orca2Error as error:
            kept = all(torch.equal(fit.weights[name], weight) for name, weight in poison.before.items())
            return {"error": f"{type(error).__name__}: {error}", "weights_kept": kept}
        return {"error": None}

    return case


def generation_case(**settings: Any) -> Callable[[Path], dict[str, Any]]:
    """Answers of the sharded student, layer by layer and gathered, and of the same student whole."""

    def case(folder: Path) -> dict[str, Any]:
        fit = Fit(folder, **settings).run()
        student = fit.module.student
        prompts = [fit.renderer.prompt("Be careful.", question) for question in ("What is 2 + 2?", "Sort: b a c")]
        ends = (fit.renderer.pad_id, [fit.renderer.end_id], 256)
        with root_gathered(student):
            together = HFGenerator(student.model, *ends, together=True).generate(prompts, 12)
        with gathered(student):
            alone = HFGenerator(student.model, *ends).generate(prompts, 12)
        whole = build_model(MODEL, fit.tokenizer, seed=7)
        whole.load_state_dict(dict(full_weights(student.model)))
        expected = HFGenerator(whole, *ends).generate(prompts, 12)
        answers = {"together": together, "alone": alone, "whole": expected}
        return {name: [answer.ids for answer in each] for name, each in answers.items()}

    return case


def rounding_case(together: bool, **settings: Any) -> Callable[[Path], dict[str, Any]]:
    """Answers of a student whose logits differ between ranks in the last bit, over slots and one by one.

    A stand-in for kernels that round otherwise: the two largest logits are made equal, and each rank lifts another one
    of them by one bit.
    """

    def lift(_module: Any, _inputs: Any, logits_BTV: torch.Tensor) -> torch.Tensor:
        values, ids = logits_BTV.topk(2)
        values = values[..., :1].expand_as(values).clone()
        mine = here().rank % 2
        values[..., mine] = torch.nextafter(values[..., mine], torch.tensor(float("inf")))
        return logits_BTV.scatter(-1, ids, values)

    def case(folder: Path) -> dict[str, Any]:
        fit = Fit(folder, **settings)
        model = fit.module.student.model
        model.get_output_embeddings().register_forward_hook(lift)
        prompts = [fit.renderer.prompt("Be careful.", question) for question in ("What is 2 + 2?", "Sort: b a c")]
        found: dict[str, Any] = {}
        for way in ("slots", "one by one"):
            generator = HFGenerator(model, fit.renderer.pad_id, [fit.renderer.end_id], 256, together=together)
            vars(generator)["batches"] = way == "slots"
            found[way] = [answer.ids for answer in generator.generate(prompts, 12)]
        if together:
            # Each rank tells of itself; the first finds that slots agree, the other that they do not.
            hf.slots_obstacle = lambda _model: None if here().rank == 0 else "rounding"
            generator = HFGenerator(model, fit.renderer.pad_id, [fit.renderer.end_id], 256, together=True)
            found["batches"] = generator.batches
        return found

    return case


def export_case(full_disk: bool, **settings: Any) -> Callable[[Path], dict[str, Any]]:
    """A sharded student, exported in files of 40 kB and read by each rank; the second file may be too much."""

    def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        if full_disk and "-00002-" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_file(path, tensors)

    def case(folder: Path) -> dict[str, Any]:
        fit = Fit(folder, **settings).run()
        weights = fit.weights
        where = folder.parent / f"{folder.name.rpartition('-')[0]}-run"
        exporting.FILE_BYTES, exporting._write_file = 40_000, write
        erasing = FixedErasing(name="cautious", message="Be careful.")
        console = Console(file=io.StringIO())
        try:
            export(fit.module.student, fit.tokenizer, fit.renderer, erasing, RunDirectory(where), console)
        except Orca2Error as error:
            return {"error": f"{type(error).__name__}: {error}", "left": [path.name for path in where.iterdir()]}
        loaded = AutoModelForCausalLM.from_pretrained(where / "student").state_dict()
        same = [torch.equal(loaded[name.removeprefix("model.")], weight) for name, weight in weights.items()]
        return {"error": None, "same": all(same), "files": sorted(path.name for path in (where / "student").iterdir())}

    return case


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "one": train_case(),
    "ddp": train_case(strategy="ddp"),
    "fsdp": train_case(strategy="fsdp"),
    "hybrid": train_case(strategy="fsdp", shards=2),
    "one-tied": train_case(architecture=TIED, lanes=4),
    "fsdp-tied": train_case(strategy="fsdp", architecture=TIED, lanes=4),
    "ddp-poison": poison_case(strategy="ddp"),
    "fsdp-poison": poison_case(strategy="fsdp"),
    # Weights large enough for answers that are not one token over and over.
    "fsdp-generation": generation_case(strategy="fsdp", architecture={"initializer_range": 0.5}),
    "fsdp-bf16": generation_case(strategy="fsdp", compute=torch.bfloat16, architecture={"initializer_range": 0.5}),
    "rounding-apart": rounding_case(False, strategy="ddp", architecture={"initializer_range": 0.5}),
    "rounding-together": rounding_case(True, strategy="ddp", architecture={"initializer_range": 0.5}),
    "fsdp-export": export_case(False, strategy="fsdp", architecture=TIED),
    "fsdp-full-disk": export_case(True, strategy="fsdp"),
}


def main(out: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        for name in names:
            folder = out / f"{name}-{ranks.rank}"
            folder.mkdir(parents=True)
            found = CASES[name](folder)
            (out / f"{name}-{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
