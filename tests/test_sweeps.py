"""Sweeps: every file of sweeps/ is valid, and no job of a sweep can harm another."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from rich.console import Console
from wandb.proto.wandb_internal_pb2 import Record

from orca2.errors import ConfigError
from orca2.settings import check_command_line
from orca2.settings.schemas import MISSING, TrainConfig
from orca2.settings.sweep_table import close_sweep
from orca2.settings.sweeps import JobRecord, Sweep, grid_name, job_name
from tests.commands import ENVIRONMENT, OFFLINE, ROOT, SMALL_STUDENT

CONF = ROOT / "conf"
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
WANDB_SWEEPS = sorted((ROOT / "sweeps" / "wandb").glob("*.yml"))
PLUGINS = sorted((CONF / "hydra").glob("*/*.yaml"))
NOT_INSTALLED = "not installed; pip install 'orca2-lightning[sweeps]'"


def problems(*overrides: str, multirun: bool = False) -> list[str]:
    """What is wrong with a command, apart from an extra that is not installed here."""
    try:
        check_command_line("train", overrides, CONF, multirun)
    except ConfigError as error:
        return [line for line in str(error).split("\n")[1:] if not line.endswith(NOT_INSTALLED)]
    return []


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_sweep_is_a_valid_grid_of_several_jobs(file: Path) -> None:
    """A sweep with a wrong key or value would fail after hours, or sweep nothing."""
    content = yaml.safe_load(file.read_text())
    assert file.read_text().startswith("# @package _global_\n# ")
    assert content["hydra"]["mode"] == "MULTIRUN"
    assert content["hydra"]["sweeper"]["params"]
    assert problems(f"sweeps={file.stem}") == []


def test_the_questions_of_the_readme_are_there() -> None:
    """The tests around this one pass on an empty folder."""
    names = {file.stem for file in SWEEPS}
    assert {"does_erasing_help", "which_strategy", "which_size", "learning_rate"} <= names
    assert WANDB_SWEEPS and PLUGINS


@pytest.mark.parametrize("file", WANDB_SWEEPS, ids=lambda file: file.stem)
def test_every_wandb_sweep_names_valid_keys_and_asks_the_same(file: Path) -> None:
    """W&B knows nothing of our keys: its agents would fail job by job, on other machines."""
    content = yaml.safe_load(file.read_text())
    twin = yaml.safe_load((ROOT / "sweeps" / f"{file.stem}.yaml").read_text())["hydra"]["sweeper"]["params"]
    values = {key: entry["values"] for key, entry in content["parameters"].items()}
    assert {key: ",".join(map(str, each)) for key, each in values.items()} == twin
    assert content["metric"] == {"name": "held_out/cautious/accuracy", "goal": "maximize"}
    assert (ROOT / content["program"]).is_file()
    start, rest = content["command"][:4], content["command"][4:]
    assert start == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    assert problems(*(f"{key}={each}" for key, each in twin.items()), *rest, multirun=True) == []


@pytest.mark.parametrize("file", PLUGINS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_launcher_and_sweeper_composes_or_names_its_extra(file: Path) -> None:
    """Without the extra the answer must be the command that installs it, not Hydra's list of what it lacks."""
    choice = f"hydra/{file.parent.name}={file.stem}"
    assert problems(choice, "seed=1,2", multirun=True) == []


def test_a_value_of_a_sweep_file_is_checked_before_any_job(project: Path) -> None:
    """The third value of a key, found wrong after two jobs, would cost their time."""
    with pytest.raises(ConfigError) as caught:
        check_command_line("train", ["sweeps=wrong"], project / "conf")
    assert "epochs = 0: must be at least 1" in str(caught.value)
    assert "seed = 'x': TrainConfig wants int" in str(caught.value)
    check_command_line("train", ["sweeps=six"], project / "conf")
    with pytest.raises(ConfigError, match="did you mean 'six'"):
        check_command_line("train", ["sweeps=sixx"], project / "conf")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"erasing": "keep", "seed": "3"}, "erasing-keep_seed-3"),
        ({"optimizer.learning_rate": "1.0e-3"}, "learning_rate-1.0e-3"),
        ({"source.name": "a", "model.name": "b"}, "source.name-a_model.name-b"),
        ({}, "job"),
    ],
)
def test_a_job_is_named_after_its_values(values: dict[str, str], name: str) -> None:
    """The folder is the key to resuming: it must be readable, and the same tomorrow."""
    assert job_name(values) == name


def test_no_two_jobs_share_a_folder() -> None:
    """Two jobs in one folder would be one run with two configs."""
    odd = ["a/b", "a b", "a-b", "'a,b'", "[a,b]", "a" * 60, "a" * 61, "é", "è", ""]
    names = [job_name({"source.path": value}) for value in odd]
    assert len(set(names)) == len(odd)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") and len(name) <= 100 for name in names)
    assert grid_name({"model": "tiny"}, ["strategy", "seed"]) == "model-tiny_strategy_seed"
    assert len(grid_name({f"key{i}": "value" for i in range(40)}, ["seed"])) <= 100


def record(number: int, arm: str, seed: int, metric: float | None, state: Any = "done") -> JobRecord:
    values = {"erasing": arm, "seed": str(seed)}
    return JobRecord(
        name=job_name(values), number=number, values=values, state=state, invocation="x", reason="why",
        metrics={} if metric is None else {"accuracy": metric, "own": 1 - metric},
    )  # fmt: skip


def test_the_table_has_an_arm_a_row_with_mean_and_spread(tmp_path: Path) -> None:
    """What a sweep is read for; a failed job must not look like a result of 0."""
    sweep = Sweep(
        "question", str(tmp_path), tmp_path, Path("train.py"), ("erasing", "seed"), ("accuracy", "own"), "x", True
    )
    records = [
        record(0, "keep", 1, 0.25), record(1, "keep", 2, 0.75), record(2, "mix", 1, None, "failed"),
        record(3, "mix", 2, 0.5),
    ]  # fmt: skip
    console = Console(width=100, record=True)
    close_sweep(sweep, records, console)
    assert (tmp_path / "sweep.md").read_text().splitlines()[4:] == [
        "| erasing | seed 1 | seed 2 | mean ± spread | own |",
        "| --- | --- | --- | --- | --- |",
        "| keep | 0.2500 | 0.7500 | 0.5000 ± {0:.4f} | 0.5000 ± {0:.4f} |".format(statistics.stdev([0.25, 0.75])),
        "| mix | failed | 0.5000 | 0.5000 | 0.5000 |",
        "",
        "- failed: `erasing-mix_seed-1`: why",
    ]
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert stored["arms"][0]["values"] == {"erasing": "keep"}
    assert stored["arms"][0]["metrics"]["accuracy"] == {"mean": 0.5, "spread": math.sqrt(0.125), "n": 2}
    assert stored["arms"][1]["metrics"]["accuracy"] == {"mean": 0.5, "spread": None, "n": 1}
    assert str(tmp_path / "erasing-mix_seed-1" / "job.log") in console.export_text().replace("\n", "")


FILES = {
    "conf/train.yaml": """
        defaults:
          - train_schema
          - hydra: default
          - _self_
          - sweeps: null
        name: plain
        run_dir: runs/${name}
        seed: 0
        model: {}
        lora: {}
        strategy: {}
        erasing: {}
        format: {}
        source: {}
        packing: {}
        optimizer: {}
        trainer: {}
        gpu: {}
        planning: {}
        plan: false
        logger: {group: null}
        held_out: {}
        epochs: 1
        packs_per_step: 2
        packs_per_micro_batch: 1
        workers: 0
        checkpoint_every_steps: 5
        log_every_steps: 1
        """,
    "conf/hydra/default.yaml": "{output_subdir: null, run: {dir: .}, sweep: {dir: runs, subdir: .}}",
    "conf/sweeps/six.yaml": """
        # @package _global_
        hydra: {mode: MULTIRUN, sweeper: {params: {epochs: "1,2", seed: "1,2,3"}}}
        """,
    "conf/sweeps/wrong.yaml": """
        # @package _global_
        hydra: {mode: MULTIRUN, sweeper: {params: {epochs: "1,2,0", seed: "1,x"}}}
        """,
    "train.py": """
        import json, os, signal, sys, time
        from pathlib import Path
        from orca2.runs import RunDirectory
        from orca2.settings import job_overrides, run_main, storable

        # What a shell starts in the background ignores Ctrl-C, and so do its children, unless told otherwise.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def main(cfg):
            run = RunDirectory(Path(cfg.run_dir))
            run.open_or_resume(storable(cfg), job_overrides())
            print("RAN", cfg.name, cfg.logger.group)
            if not Path("mended").exists():
                if (cfg.epochs, cfg.seed) == (1, 2):
                    os.kill(os.getpid(), signal.SIGKILL)
                if (cfg.epochs, cfg.seed) == (2, 1):
                    raise ZeroDivisionError("a bug")
            if Path("slow").exists():
                Path("started").touch()
                try:
                    time.sleep(60)
                except KeyboardInterrupt:
                    print("SAVED")
                    sys.exit(130)
            run.results.write_text(json.dumps({"score": cfg.epochs + cfg.seed / 10}))
            run.mark_done()

        if __name__ == "__main__":
            run_main("train", main, sweep_metrics=("score",))
        """,
}
"""A project whose jobs take no time; one is killed and one has a bug, until a file `mended` is there."""
FILLERS = {Any: "{}", bool: "false", int: "1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text).lstrip())
    with (root / "conf" / "train.yaml").open("a") as file:  # keys that these tests are not about
        given = yaml.safe_load(dedent(FILES["conf/train.yaml"]))
        for item in fields(TrainConfig):
            if item.default == MISSING and item.name not in given:
                file.write(f"{item.name}: {FILLERS.get(item.type, 'null')}\n")
    return root


def command(project: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(project / "train.py"), *arguments]


def run(project: Path, cwd: Path, *arguments: str, code: int) -> str:
    done = subprocess.run(
        command(project, *arguments), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_failed_jobs_are_listed_and_alone_run_again(project: Path, tmp_path: Path) -> None:
    """A job that dies, by a bug or by the kernel, must cost neither the others nor itself a second time."""
    printed = run(project, tmp_path, "sweeps=six", code=1)
    folder = tmp_path / "runs" / "six"
    assert printed.count("RAN six/epochs-") == 6 and "RAN six/epochs-1_seed-1 six\n" in printed
    assert sorted(path.parent.name for path in folder.glob("*/DONE")) == [
        "epochs-1_seed-1", "epochs-1_seed-3", "epochs-2_seed-2", "epochs-2_seed-3",
    ]  # fmt: skip
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    failures = {job["name"]: job["reason"] for job in jobs if job["reason"]}
    assert failures == {"epochs-1_seed-2": "killed by SIGKILL", "epochs-2_seed-1": "ZeroDivisionError: a bug"}
    assert f"log: {Path('runs/six/epochs-2_seed-1/job.log')}" in printed
    assert "in main" in (folder / "epochs-2_seed-1" / "job.log").read_text()

    (tmp_path / "mended").touch()
    printed = run(project, tmp_path, "sweeps=six", code=0)
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("RAN")] == [
        "six/epochs-1_seed-2", "six/epochs-2_seed-1",
    ]  # fmt: skip
    assert [
        arm["metrics"]["score"]["mean"] for arm in json.loads((folder / "sweep.json").read_text())["arms"]
    ] == pytest.approx([1.2, 2.2])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["six"]


@pytest.mark.slow
def test_a_plain_grid_is_named_after_its_overrides(project: Path, tmp_path: Path) -> None:
    """Two grids must not meet in one folder, and one value of a file's grid is still the same job."""
    (tmp_path / "mended").touch()
    run(project, tmp_path, "-m", "workers=0", "epochs=3", "seed=1,2", code=0)
    assert sorted(path.name for path in (tmp_path / "runs/epochs-3_seed").glob("*/")) == ["seed-1", "seed-2"]
    run(project, tmp_path, "sweeps=six", "seed=7", "run_dir=elsewhere", code=0)
    assert sorted(path.name for path in (tmp_path / "elsewhere").glob("*/")) == ["epochs-1_seed-7", "epochs-2_seed-7"]


def test_ctrl_c_lets_the_job_save_and_ends_the_sweep(project: Path, tmp_path: Path) -> None:
    """Stopping a sweep must not start its next job, nor lose the one under way."""
    (tmp_path / "mended").touch()
    (tmp_path / "slow").touch()
    process = subprocess.Popen(
        command(project, "sweeps=six"), cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.count("RAN") == 1 and "SAVED" in printed and "stopped: epochs-1_seed-1" in printed


SMALL = (
    *SMALL_STUDENT,
    "source.size=160",
    "held_out.questions_per_task=1",
    "held_out.max_new_tokens=4",
    "held_out.sample_every_steps=1000",
    "log_every_steps=1",
)
"""Jobs of some seconds each."""


def six_jobs(folder: Path) -> list[str]:
    grid = ("-m", "strategy=direct,mixed", "seed=1,2,3", f"run_dir={folder}")
    return [sys.executable, str(ROOT / "train.py"), *grid, *SMALL]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # seconds; seven trainings start one after the other
def test_a_killed_training_leaves_five_results_and_runs_again_alone(tmp_path: Path) -> None:
    """What the kernel does to a job that is out of memory, in the middle of a sweep of real trainings."""
    folder, victim = tmp_path / "six", tmp_path / "six" / "strategy-direct_seed-3"
    with (tmp_path / "log").open("w") as log:
        head = subprocess.Popen(six_jobs(folder), cwd=tmp_path, env=OFFLINE, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while not (victim / "metrics.csv").exists() and head.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(json.loads((victim / "job.json").read_text())["pid"], signal.SIGKILL)
        assert head.wait(timeout=300) == 1
    printed = (tmp_path / "log").read_text()
    assert len(list(folder.glob("*/DONE"))) == 5
    assert [line for line in printed.splitlines() if line.startswith("failed: ")] == [
        f"failed: {victim.name}: killed by SIGKILL"
    ]
    assert str(victim / "job.log") in printed.replace("\n", "")

    again = subprocess.run(six_jobs(folder), cwd=tmp_path, env=OFFLINE, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count(": done before") == 5 and again.stdout.count(": started, log in") == 1
    arms = json.loads((folder / "sweep.json").read_text())["arms"]
    assert [(arm["values"], arm["metrics"]["held_out/cautious/accuracy"]["n"]) for arm in arms] == [
        ({"strategy": "direct"}, 3),
        ({"strategy": "mixed"}, 3),
    ]


@pytest.mark.slow
def test_a_grid_on_two_processes_makes_one_run_a_job(tmp_path: Path) -> None:
    """If ranks started the sweep again, two jobs on two processes would become four, or hang."""
    grid = ("-m", "model=tiny", "strategy=direct,mixed", "trainer=ddp", f"run_dir={tmp_path / 'two'}")
    command = [sys.executable, str(ROOT / "train.py"), *grid, *SMALL]
    done = subprocess.run(command, cwd=tmp_path, env=OFFLINE, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.parent.name for path in tmp_path.glob("two/*/DONE")) == ["strategy-direct", "strategy-mixed"]
    logs = list(tmp_path.glob("two/*/wandb/offline-run-*/*.wandb"))
    assert sorted(log.parents[2].name for log in logs) == ["strategy-direct", "strategy-mixed"]
    for log in logs:
        exits = [record.exit.exit_code for record in wandb_records(log) if record.HasField("exit")]
        assert exits == [0], "the W&B run was not finished"


def wandb_records(log: Path) -> Iterator[Any]:
    """The records of an offline W&B run: LevelDB's log format after a header of 7 bytes."""
    content, at, record = log.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:  # too little for a header: the rest of the block is empty
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(record)
            record = b""
