"""One training job, from plain objects to a finished run directory.

    data ready -> weights loaded -> self-test -> fit -> export, verified -> held-out questions -> results

The order is the point: mistakes in the configuration or the data are found before weights load, and faults
of the model before the first step. Running the same job again resumes it where it stopped.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from datamodules.erased_prompts import ErasedPromptDataModule
from lightning_modules.accounts import Accounts
from lightning_modules.before_training import tell_of_data, tell_of_left_out
from lightning_modules.benchmarking import ask_benchmark, plan_benchmark
from lightning_modules.card import write_card
from lightning_modules.carried import CarriedOptimizer
from lightning_modules.checkpoints import Checkpoints
from lightning_modules.finish import ask_held_out, export, require_kept, show_results, write_results
from lightning_modules.loggers import RunCsvLogger, finishing
from lightning_modules.samples import SampleAnswers
from lightning_modules.space import require_space
from lightning_modules.student import StudentModule
from lightning_modules.training_job import TrainingJob
from lightning_modules.training_line import TrainingLine
from lightning_modules.validation import Validation
from orca2.console import open_console
from orca2.data.identity import changed, digests_of, require_everywhere, require_same
from orca2.data.report import list_of_rank, merge_lists, summed
from orca2.data.validation_rows import validation_batches
from orca2.errors import ConfigError, DataError
from orca2.evaluation.held_out import held_out_questions
from orca2.files import atomic_write_text
from orca2.modelling.adapters import add_adapters, merge_adapters
from orca2.modelling.attention import Kernel
from orca2.modelling.attention_choice import attention_needs, choose_attention
from orca2.modelling.build import build_model, build_tokenizer, markup_is_known, model_config
from orca2.modelling.export import require_lasting
from orca2.modelling.loading import defer_model
from orca2.modelling.recompute import chosen_mode
from orca2.modelling.selftest import check_student
from orca2.modelling.sharding import build_mesh, is_sharded, shard
from orca2.modelling.student_model import StudentForLoss, cast_parameters
from orca2.processes.ranks import everyone, from_first, here, is_first
from orca2.records import Question
from orca2.rendering.renderer import Renderer
from orca2.rows.source import Source
from orca2.runs import RunDirectory, signature

FAILED = "FAILED"
"""The file in a run directory that says why the last start ended early."""

ENDLESS = 2**31
"""Passes over the source of a run whose length is given in tokens."""


class Interrupted(Exception):
    """The fit was asked to stop; the checkpoint of the last step is written."""


def open_and_run(
    job: TrainingJob, run: RunDirectory, config: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Run the job in its directory, or what is left of it, and return the metrics of `results.json`.

    Every rank calls it inside `ranks.joined`; the first one holds the lock, writes and prints.
    """
    console = open_console(quiet=not is_first())
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(run.locked()))
        if from_first(lambda: run.open_or_resume(config, overrides)) == "done":
            text = run.results.read_text(encoding="utf-8")
            console.print(f"{run.path} is done; its results:")
            warn_of_other_rows(run, job.source, console)
            console.print_json(text)
            return dict(json.loads(text))
        from_first(lambda: (run.path / FAILED).unlink(missing_ok=True))  # of the start before
        try:
            return run_job(job, run, config, console)
        except Interrupted:
            raise
        except Exception as error:
            if is_first():
                with suppress(OSError):  # the reason may be the disk, and it is raised besides
                    atomic_write_text(run.path / FAILED, f"{type(error).__name__}: {error}\n")
            raise


def run_job(job: TrainingJob, run: RunDirectory, config: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Fit what is not fitted yet, then export and evaluate. Returns the flat metrics of `results.json`.

    Raises Interrupted after a clean stop, and the errors of `orca2.errors` for what the user can mend.
    """
    planned = plan_benchmark(job.benchmark, job.data_dir, job.benchmark_limit)
    tokenizer = build_tokenizer(job.model, job.format, default_system=job.erasing.inference)
    kernel = choose_kernel(job, tokenizer, console)
    renderer = Renderer(tokenizer, job.format)
    from_first(lambda: require_lasting(tokenizer, job.format))
    data = open_data(job, renderer, run, console)
    L.seed_everything(job.seed, verbose=False)
    student = load_student(job, tokenizer, kernel, console)
    from_first(lambda: require_space(student, run.path))
    module = StudentModule(student, job.optimizer, data.total_rows, job.tokens)
    questions = held_out_questions(job.held_out, job.source)
    if not questions:
        console.print(
            f"source {job.source.name} has no held-out questions, so no answers will be scored; held_out=procedural "
            "asks those of the generated tasks"
        )
    loggers: list[Logger] = []  # of the first rank; the others have none
    from_first(lambda: loggers.extend(open_loggers(job, run, config)))
    with finishing(loggers):
        steps, measured = fit(job, run, module, data, renderer, questions, loggers, console, signature(config))
        from_first(lambda: run.record("steps", steps))
        counts = summed(everyone(data.report.summary()))
        require_kept(counts, job.source.name, run)
        if job.lora.enabled:
            if job.lora.quantization == "4bit":
                student.to(job.trainer.device)  # where bitsandbytes makes full matrices of them
            merge_adapters(student.model)
        export(student, tokenizer, renderer, job.erasing, run, console)
        # The stored name keeps `${oc.env:NAME}` where the job's own holds what may be a secret.
        describe = partial(write_card, job, run, str(config.get("name", job.name)), counts, steps)
        from_first(lambda: describe({}))
        if not is_sharded(student):
            if job.lora.enabled:  # trained on a device that may have no room for master weights
                cast_parameters(student, job.trainer.compute_dtype)
            student.to(job.trainer.device)  # Lightning moves the module to the CPU when a fit ends
        answers = ask_held_out(student, renderer, questions, job.held_out, job.model.max_len)
        messages = {name: erasing.inference for name, erasing in job.held_out.messages.items()}
        figures = measured | ask_benchmark(
            planned, student, renderer, messages, job.model.max_len, run.path, job.name, signature(config), console
        )

        def finish() -> dict[str, Any]:
            merge_lists(run.rejected)
            own = next((name for name, text in messages.items() if text == job.erasing.inference), None)
            metrics = write_results(run, answers, counts, figures, loggers, own)
            tell_of_left_out(
                counts, job.strategy.name, job.packing.length, job.model.max_len, console, rejected=run.rejected
            )
            describe(metrics)
            show_results(run, answers, counts, figures, console)
            run.mark_done()
            return metrics

        return from_first(finish)


def choose_kernel(job: TrainingJob, tokenizer: PreTrainedTokenizerBase, console: Console) -> Kernel:
    """The attention kernel; prints which and why. Raises ModelError before any weights are read."""
    config = model_config(job.model, tokenizer)
    kernel, reason = choose_attention(
        job.model.attention, job.trainer.device, job.trainer.compute_dtype, attention_needs(config)
    )
    console.print(f"attention: {kernel} ({reason})")
    return kernel


def load_student(
    job: TrainingJob, tokenizer: PreTrainedTokenizerBase, kernel: Kernel, console: Console
) -> StudentForLoss:
    """The student on its device, sharded where the trainer says so, after the self-test.

    Raises ModelError where documents that are kept apart see each other, or the loss is not the model's own.
    """
    # To be sharded it is built without memory, and each rank fills its own rows.
    deferred = defer_model(job.model, tokenizer, job.seed) if job.trainer.parallelism == "fsdp" else None
    model = build_model(job.model, tokenizer, job.seed) if deferred is None else deferred.model
    mode = chosen_mode(job.model.activation_checkpointing, sum(weight.numel() for weight in model.parameters()))
    if job.lora.enabled:
        add_adapters(model, job.lora, train_embeddings=not markup_is_known(job.model, job.format))
    student = StudentForLoss(model, kernel, activation_checkpointing=mode, compile=job.model.compile)
    cast_parameters(student, job.trainer.master_dtype)
    if deferred is None:
        student.to(job.trainer.device)
    else:
        shard(student, build_mesh(job.trainer.device.type, job.trainer.shards), job.trainer.compute_dtype)
        deferred.materialise(student, job.trainer.device)
    # Also where packed examples shall see each other: it finds out which head gives the model's own loss.
    with torch.autocast(job.trainer.device.type, torch.bfloat16, enabled=job.trainer.autocasts):
        head = check_student(student, job.model.max_len)
    kept = "isolated" if job.packing.isolate else "joined, as asked"
    console.print(f"self-test passed: packed examples are {kept}, loss head is {head}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    recomputed = f"activation checkpointing {mode}"
    console.print(f"student: {parameters:,} parameters, {trained:,} trained, {recomputed}")
    return student


def open_data(job: TrainingJob, renderer: Renderer, run: RunDirectory, console: Console) -> ErasedPromptDataModule:
    """The data module, imported and surveyed; prints what is kept, what is left out, and the leaks."""
    data = ErasedPromptDataModule(
        source=job.source,
        strategy=job.strategy,
        erasing=job.erasing,
        renderer=renderer,
        packing=job.packing,
        epochs=job.epochs if job.tokens is None else ENDLESS,
        packs_per_step=job.packs_per_step,
        packs_per_micro_batch=job.packs_per_micro_batch,
        workers=job.workers,
        seed=job.seed,
        loss_on_history=job.loss_on_history,
        rejected_path=list_of_rank(run.rejected, here().rank),
        validation_rows=job.validation.rows,
        thinking=job.thinking,
    )
    if here().local_rank == 0:  # one process on each machine
        data.prepare_data()
    everyone(None)
    digests = digests_of(job.source)
    require_everywhere(everyone(digests))
    from_first(lambda: require_same(run, digests, begun=any(run.checkpoints.glob("*"))))
    data.setup("fit")
    if data.total_rows is None and job.tokens is None:
        raise ConfigError(
            f"source {job.source.name!r} does not know how many rows it has, and the learning rate follows the share "
            "of rows done: set source.rows, or tokens=… to follow the share of tokens"
        )
    tell_of_data(data, job.validation.every_steps, job.model.max_len, console)
    return data


def warn_of_other_rows(run: RunDirectory, source: Source, console: Console) -> None:
    """Say that a run which is done was trained on other rows than its file holds now."""
    try:
        names = changed(run, digests_of(source))
    except DataError:  # the data of a run that is done may be gone
        return
    if names:
        console.print(
            f"[bold]the rows of {', '.join(names)} have changed since: this run was trained on the earlier ones; "
            "name=<name> trains on them anew[/bold]"
        )


def open_loggers(job: TrainingJob, run: RunDirectory, config: Mapping[str, Any]) -> list[Logger]:
    """The CSV file always, W&B unless it is switched off, or TensorBoard's files."""
    # The same for every resume of this run directory, so that W&B continues the curve.
    identity = hashlib.sha256(f"{run.path.resolve()}\n{signature(config)}".encode()).hexdigest()[:16]
    # The stored name and group keep `${oc.env:NAME}` where the run's own hold what may be a secret.
    group = (config.get("logger") or {}).get("group", job.logger.group)
    other = replace(job.logger, group=group).build(str(config.get("name", job.name)), identity, run.path, config)
    return [RunCsvLogger(run.metrics), *([other] if other is not None else [])]


def fit(
    job: TrainingJob,
    run: RunDirectory,
    module: StudentModule,
    data: ErasedPromptDataModule,
    renderer: Renderer,
    questions: Sequence[Question],
    loggers: Sequence[Logger],
    console: Console,
    config_signature: str,
) -> tuple[int, dict[str, float]]:
    """Train from the newest usable checkpoint, or from the start, to the end of the stage.

    Returns its last step and what validation found. Raises Interrupted.
    """
    accounts = Accounts(job.log_every_steps, data.epochs)
    checkpoints = Checkpoints(
        run.checkpoints,
        job.checkpoint_every_steps,
        config_signature,
        tell=(tell := partial(console.print, soft_wrap=True)),
    )
    assert data.validation is not None
    micro_batches = validation_batches(
        data.validation.rendered, job.packing, job.packs_per_micro_batch, renderer.pad_id
    )
    validation = Validation(
        micro_batches, job.validation.every_steps, accounts, stopping=lambda: checkpoints.stopped, tell=tell
    )
    samples = SampleAnswers(
        questions=questions[:: max(1, len(questions) // max(1, job.held_out.samples))][: job.held_out.samples],
        renderer=renderer,
        system=job.erasing.inference,
        max_len=job.model.max_len,
        every_steps=job.held_out.sample_every_steps,
        max_new_tokens=job.held_out.max_new_tokens,
        path=run.path / "samples.jsonl",
    )
    carried = [] if job.optimizer_from is None else [CarriedOptimizer(Path(job.optimizer_from), run.checkpoints)]
    trainer = job.trainer.build(
        run.path, loggers, [accounts, validation, samples, *carried, checkpoints, TrainingLine(accounts, console)]
    )
    trainer.fit(module, datamodule=data)
    if checkpoints.stopped:
        raise Interrupted(f"stopped after step {trainer.global_step}; the same command goes on from there")
    return trainer.global_step, validation.figures
