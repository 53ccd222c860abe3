"""The commands of `docs/`, each run in one folder as a page has it, only smaller, or not run and the reason for it.

A new command of a page has to be in the README, in `RUN` or in `NOT_RUN`.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, ROOT, SMALL_STUDENT, docs_commands, readme_commands
from tests.loopback import server as loopback

STUDENT = (
    *SMALL_STUDENT, "held_out.questions_per_task=1", "held_out.max_new_tokens=4", "held_out.samples=0",
    "tokens=1500", "log_every_steps=1", "source.cache_dir=cache",
)  # fmt: skip
GENERATED = (*STUDENT[:-1], "source.size=120")
SERVER = ("teacher.base_url=SERVER", "teacher.api_key_env=null")
ASKED = ("backend.model.base_url=SERVER", "backend.model.api_key_env=null", "data_dir=official")
NO_FILES = ["natural_instructions", "flan_cot", "flan2021", "t0", "gsm8k", "aqua_rat", "few_shot"]
CHAT = "evaluations/chat"

RUN: Mapping[str, tuple[str, ...]] = {
    # benchmarks.md, evaluation.md, reports.md
    "train.py benchmark=gsm8k data_dir=x benchmark_limit=200": (
        *GENERATED, "data_dir=official", "benchmark.max_new_tokens=4", "run_dir=runs/mine",
    ),
    "evaluate.py student=runs/mine benchmark=smoke": ("limit=1", "benchmark.members.procedural.max_new_tokens=4"),
    "evaluate.py student=x benchmark=smoke data_dir=x": (
        "student=runs/mine", "backend=random", "data_dir=official", "out_dir=runs/mine/evaluations/reasoning",
    ),
    "evaluate.py backend=openai student=x backend.model.base_url=http://gpu7:8000/v1 benchmark=gsm8k": (
        *ASKED, "out_dir=runs/served",
    ),
    "evaluate.py backend=openai teacher@backend.model=openai student=x benchmark=gsm8k max_requests=3000": (
        *ASKED, "out_dir=runs/hosted",
    ),
    "report.py out_dir=runs/mine/evaluations/reasoning": (),
    "report.py runs={base: runs/base/evaluations/reasoning, ours: runs/ours/evaluations/reasoning} "
    "out_dir=reports/base-and-ours": (),
    "evaluate.py backend=gold benchmark=orca2 data_dir=x allow_missing=true": (
        "data_dir=official", f"out_dir=runs/mine/{CHAT}",
    ),
    f"judge.py out_dir=runs/mine/{CHAT} teacher=openai teacher.model=x judge_runs=3": SERVER,
    f"judge.py out_dir=runs/ours/{CHAT} against=runs/base/{CHAT} teacher=openai teacher.model=x": SERVER,
    "converse.py backend=hf student=runs/mine teacher=openai teacher.model=x": (
        *SERVER, "scenarios=guidelines", "messages=empty", "max_new_tokens=4", "out_dir=talks",
    ),
    "judge.py out_dir=x teacher=openai teacher.model=x": (*SERVER, "out_dir=talks"),
    "export_tasks.py benchmark=gsm8k data_dir=x out_dir=tasks": ("data_dir=official",),
    # data.md, results.md
    "train.py source=jsonl source.path=mine.json": STUDENT,
    "synthesize.py tasks=jsonl tasks.path=mine.json teacher=transformers_server teacher.model=x": (
        *SERVER, "tasks.cache_dir=cache",
    ),
    # measured.md, synthesis.md
    "synthesize.py tasks=gsm8k strategy=measured teacher=openai teacher.model=x out_dir=out": (
        *SERVER, "tasks.path=train.jsonl",
    ),
    "synthesize.py size=20000": ("size=60",),
    "synthesize.py tasks=orca2 size=50000 teacher=openai teacher.model=x teacher.usd_per_million.prompt=2.5 "
    "teacher.usd_per_million.completion=10 max_usd=400 estimate=true": (
        *(f"tasks.shares.{part}=0" for part in NO_FILES), "size=200",
    ),
    "synthesize.py --help": (),
    "synthesize.py tasks=gsm8k tasks.path=x teacher=vllm_server teacher.model=x "
    "teacher.base_url=http://gpu7:8000/v1": (*SERVER, "tasks.path=train.jsonl"),
    # scaling.md
    "train.py model=13b trainer=fsdp trainer.devices=8 trainer.nodes=4 gpu=a100_80 source=openorca packing.length=4096 "
    "packs_per_step=64 packs_per_micro_batch=1 plan=true": (),
}  # fmt: skip
"""Command -> what makes it a matter of seconds, in an order in which each finds what it needs."""

HALF = (
    "families={addition:2,compare_totals:1,counting:1,fact_recall:2,pair_sum:2,running_total:1,state_tracking:2}"
)  # fmt: skip
MEASURED = "tests/test_measured_command.py goes through these commands"
MINUTES = "it measures for minutes; perf/ is checked by tests/perf and by hand"
SWEEP = "it has several jobs, and the README's test runs a sweep and a grid"
README = "the README's test runs it, with another name, size or folder"
NOT_RUN: Mapping[str, str] = {
    "evaluate.py student=owner/model format=own benchmark=gsm8k": "needs a model of the hub",
    "perf/load_memory.py --json out.json": MINUTES,
    "perf/generation.py --student RUN --gsm8k test.jsonl --json out.json": MINUTES,
    "perf/generation.py --student runs/gsm8k_9m --gsm8k gsm8k/test.jsonl --json out.json": MINUTES,
    "perf/train_throughput.py --gsm8k train.jsonl --json out.json --steps 10 --rounds 2": MINUTES,
    "perf/plan_memory.py --json out.json": "tests/perf/test_perf_commands.py runs it",
    "perf/train_gpu.py --json out.json": "needs a GPU; tests/perf/test_perf_commands.py runs it dry",
    "perf/teacher_client.py --json out.json --rounds 3": MINUTES,
    "synthesize.py tasks=procedural strategy=measured strategy.ask_teacher=false teacher@strategy.student=local "
    "strategy.student.path=runs/seen/student teacher=rule out_dir=out": MEASURED,
    "train.py strategy=out/strategy/measured_procedural.yaml": MEASURED,
    f"train.py strategy=random erasing=keep source.size=80000 run_dir=runs/seen source.{HALF}": MEASURED,
    "synthesize.py tasks=procedural tasks.seed=99 size=7000 teacher=rule out_dir=synthesized/measured "
    f"tasks.{HALF} strategy=measured strategy.ask_teacher=false teacher@strategy.student=local "
    "strategy.student.path=runs/seen/student strategy.student.max_tokens=160": MEASURED,
    f"train.py strategy=random source.size=34000 source.{HALF}": MEASURED,
    "train.py": "tests/test_entry_points.py runs it many times",
    "train.py model=13b trainer=fsdp curriculum=orca2 "
    "curriculum.stages.gpt4.source.members.synthesized.path=x": "needs GPUs, gated weights and data of the hub",
    "train.py model=llama_9m source=gsm8k source.path=first4000.jsonl": "a step takes seconds on a CPU",
    "train.py model=smollm2_135m model.weights=x lora=default source=gsm8k source.path=train.jsonl tokens=62000 "
    "packing.length=512 model.max_len=1024 packs_per_step=4 packs_per_micro_batch=1 trainer=cpu "
    "validation.rows=100": "needs real weights; tests/real trains them",
    "train.py trainer=fsdp": README,
    "train.py strategy=random": "tests/test_measured_command.py runs it, with erasing=keep",
    "train.py source=gsm8k source.path=train.jsonl": README,
    "train.py source=synthesized source.path=synthesized/procedural-mixed-rule held_out=procedural": README,
    "synthesize.py tasks=procedural strategy=mixed teacher=rule size=200000": README,
    "synthesize.py size=55000 out_dir=Y": README,
    "train.py source=synthesized source.path=Y held_out=procedural": README,
    "train.py model=13b trainer=fsdp trainer.devices=8 trainer.nodes=4 source=openorca planning.rows=5000000 epochs=3 "
    "packing.length=4096 packs_per_step=64 packs_per_micro_batch=1 gpu=a100_80 plan=true": "RUN has one so like it",
    "train.py model=13b strategy=mixed trainer=fsdp run_dir=/shared/runs/13b-mixed source=synthesized "
    "source.path=/shared/synthesized/orca2 packing.length=4096 packs_per_step=512 "
    "packs_per_micro_batch=1": "needs GPUs; tests/slurm runs its script, smaller",
    "train.py sweeps=does_erasing_help seed=18": SWEEP,
    "train.py sweeps=which_strategy erasing=keep": SWEEP,
    "train.py -m model=tiny seed=1,2 strategy=direct,mixed": SWEEP,
    "train.py sweeps=which_size hydra/launcher=parallel hydra.launcher.n_jobs=4": "needs the extra `sweeps`",
    "train.py sweeps=which_strategy trainer=fsdp hydra/launcher=slurm "
    "hydra.launcher.partition=gpu": "needs a cluster; tests/slurm has one",
    "train.py sweeps=learning_rate_optuna": "needs the extra `sweeps`",
}  # fmt: skip


def new_commands() -> list[list[str]]:
    """The commands of `docs/` that the README does not have, each once."""
    known = readme_commands()
    return list({" ".join(words): words for words in docs_commands() if words not in known}.values())


def write_files(folder: Path) -> None:
    """What a user brings: rows of their own, GSM8K's training rows, a benchmark's files."""
    rows = [{"question": f"What is {i} + {i}?", "answer": f"It is {2 * i}.\n#### {2 * i}"} for i in range(12)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines)
    mine = [{"user": row["question"], "answer": row["answer"], "gold": row["answer"]} for row in rows]
    (folder / "mine.json").write_text(json.dumps(mine))
    for name, text in (
        ("gsm8k/test.jsonl", lines[: lines.index("\n") + 1]),
        (
            "mt_bench/question.jsonl",
            json.dumps({"question_id": 1, "category": "writing", "turns": ["A?", "B?"]}) + "\n",
        ),
    ):
        (folder / "official" / name).parent.mkdir(parents=True)
        (folder / "official" / name).write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_commands_of_the_docs(tmp_path: Path) -> None:
    """A page is followed from top to bottom; a command that stops half-way teaches that nothing here works."""
    write_files(tmp_path)
    words_of = {" ".join(words): words for words in new_commands()}
    environment = ENVIRONMENT | {"ORCA2_TASKS": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with loopback.serving(loopback.Faults()) as server:
        for command, smaller in RUN.items():
            script, *arguments = words_of[command]
            more = [text.replace("SERVER", server.url) for text in smaller]
            done = subprocess.run(
                [sys.executable, str(ROOT / script), *arguments, *more],
                cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0 and done.stdout.strip(), f"{command}\n{done.stdout}{done.stderr}"
            for kind in ("reasoning", "chat"):  # two more runs, for pages that compare
                for name in ("base", "ours"):
                    made, copy = (tmp_path / "runs" / run / "evaluations" / kind for run in ("mine", name))
                    if made.exists() and not copy.exists():
                        shutil.copytree(made, copy)


def test_every_command_of_the_docs_is_run_or_has_a_reason() -> None:
    """A new command that nobody runs is found broken by a reader."""
    found = {" ".join(words) for words in new_commands()}
    assert set(RUN) | set(NOT_RUN) == found
    assert not set(RUN) & set(NOT_RUN) and all(NOT_RUN.values())
    assert len(RUN) >= 18
