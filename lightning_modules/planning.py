"""`plan=true`: from a training job to a plan of it. No weights are read, no process is started, nothing is written."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from lightning_modules.trainer import TrainerSpec
from lightning_modules.training_job import TrainingJob
from orca2.data.rendered_rows import RowRenderer
from orca2.modelling.adapters import Lora, adapter_parameters
from orca2.modelling.build import build_tokenizer, config_of_shape, markup_is_known
from orca2.modelling.recompute import chosen_mode
from orca2.planning.gpu import EXAMPLE, GPU, gpu_here
from orca2.planning.lengths import outline, with_validation
from orca2.planning.plan import Assumptions, Machine, Plan, PlanRequest, make_plan
from orca2.planning.shape import LoraSize, ModelShape, shape_of
from orca2.planning.show import show_plan
from orca2.planning.work import StageOutline
from orca2.rendering.renderer import Renderer

TERA = 1e12


def plan_run(
    jobs: Mapping[str, TrainingJob],
    gpu: GPU,
    assumptions: Assumptions,
    console: Console,
    expected_tokens: Mapping[str, int] | None = None,
) -> Plan:
    """Plan the stages of a run, in order, and print them; a single run is one stage.

    All stages have the model of the first; memory is that of the stage with the largest micro-batch.
    `expected_tokens`: stage -> tokens of an epoch, for those whose source is elsewhere.
    Raises ConfigError where a stage cannot fit, naming what would, and for a source of which nothing is known.
    """
    first = next(iter(jobs.values()))
    tokenizer = tokenizer_here(first)
    stated = expected_tokens or {}
    stages = [stage_of(name, job, tokenizer, assumptions, stated.get(name)) for name, job in jobs.items()]
    largest = max(jobs.values(), key=lambda job: job.packing.length * job.packs_per_micro_batch)
    largest = replace(largest, model=first.model)
    device = gpu_here(gpu) if first.trainer.accelerator != "cpu" else None
    trainer = first.trainer if device is None else replace(first.trainer, accelerator="gpu")
    machine = machine_of(trainer, device, assumptions.free_share)
    shape = shape_of(config_of_shape(first.model), 0 if tokenizer is None else len(tokenizer))
    labels = max(stage.lengths.label_share for stage in stages)
    request = request_of(largest, trainer, shape, tokenizer, labels)
    one_gpu = replace(trainer, accelerator="gpu", strategy="one", devices=1, nodes=1)
    example = machine_of(one_gpu, EXAMPLE, assumptions.free_share)
    plan = make_plan(request, machine, stages, assumptions.utilisation, example)
    show_plan(plan, console)
    return plan


def stage_of(
    name: str,
    job: TrainingJob,
    tokenizer: PreTrainedTokenizerBase | None,
    assumptions: Assumptions,
    expected_tokens: int | None,
) -> StageOutline:
    """What is known of a job. Raises ConfigError or DataError where nothing can be."""
    render = None
    if tokenizer is not None:
        renderer = Renderer(tokenizer, job.format)
        render = RowRenderer(
            renderer=renderer,
            erasing=job.erasing,
            length=job.packing.length,
            loss_on_history=job.loss_on_history,
            thinking=job.thinking,
        )
    stage = outline(
        name,
        job.source,
        job.strategy,
        job.erasing,
        render,
        job.epochs,
        job.packing.length * job.packs_per_step,
        assumptions,
        job.seed,
        expected_tokens,
        job.tokens,
    )
    return with_validation(stage, job.source, job.validation, by_tokens=job.tokens is not None)


def tokenizer_here(job: TrainingJob) -> PreTrainedTokenizerBase | None:
    """The student's tokenizer where it is on this machine: embedded, in a folder, or downloaded before."""
    name = job.model.tokenizer or job.model.weights
    cached = (
        name is None or Path(name).is_dir() or isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str)
    )
    return build_tokenizer(job.model, job.format) if cached else None


def machine_of(trainer: TrainerSpec, device: GPU | None, free_share: float) -> Machine:
    """The ranks' devices. On CPUs, the ranks of a node share its memory, all of which may be used."""
    nodes = trainer.world // trainer.local_world
    if device is None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // trainer.local_world
        name = "CPU process" if trainer.world > 1 else "CPU"
        return Machine(
            device=name,
            memory=memory,
            usable=memory,
            operations_per_second=None,
            ranks=trainer.world,
            nodes=nodes,
            is_gpu=False,
        )
    peak = device.peak_tflops
    return Machine(
        device=device.name,
        memory=device.memory,
        usable=None if device.memory is None else int(device.memory * (1 - free_share)),
        operations_per_second=None if peak is None else peak * TERA * device.expected_mfu,
        ranks=trainer.world,
        nodes=nodes,
        is_gpu=True,
    )


def request_of(
    job: TrainingJob,
    trainer: TrainerSpec,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerBase | None,
    label_share: float,
) -> PlanRequest:
    """What memory depends on."""
    # Without a tokenizer nobody can tell; trained embeddings take more.
    known = tokenizer is not None and markup_is_known(job.model, job.format)
    embeddings = 0 if known else shape.head_weights * (1 if shape.tied else 2)
    lora = job.lora if job.lora.enabled else Lora(name="default", rank=16, alpha=32)
    size = LoraSize(matrices=adapter_parameters(lora, shape.layer_matrices, shape.layers), embeddings=embeddings)
    return PlanRequest(
        shape=shape,
        compute="bf16" if trainer.compute_dtype == torch.bfloat16 else "fp32",
        master="bf16" if trainer.master_dtype == torch.bfloat16 else "fp32",
        parallelism=trainer.parallelism,
        shards=trainer.shards if trainer.parallelism == "fsdp" else 1,
        checkpointing=chosen_mode(job.model.activation_checkpointing, shape.parameters),
        fused_attention=trainer.device.type == "cuda" and job.model.attention in ("auto", "flash", "varlen"),
        on_cuda=trainer.device.type == "cuda",
        pack_tokens=job.packing.length,
        packs_per_step=job.packs_per_step,
        packs_per_micro_batch=job.packs_per_micro_batch,
        label_share=label_share,
        lora=size if job.lora.enabled else None,
        quantized=job.lora.quantization == "4bit",
        with_lora=size,
    )
