"""A sweep: every job is a run of its own, in a process of its own.

    python train.py -m erasing=cautious,keep seed=1,2
      head          Hydra makes the grid; its launcher (one after the other, a pool, a cluster) calls `run_job` for each
        └ job       python train.py erasing=keep seed=2 hydra.mode=RUN run_dir=runs/erasing_seed/erasing-keep_seed-2

    runs/<sweep>/  <job>/  the run; job.json: how it ended; job.log: what it printed, all attempts
                   sweep.json  sweep.md

A process per job, because a job that is killed, runs out of memory or takes the interpreter down must not take
the others with it, and because nothing of one job (memory, random state, W&B) may reach the next. It costs the
imports, some seconds.
"""

import hashlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any, Literal

from orca2.files import atomic_write_json, growing
from orca2.runs import RunDirectory, differing, redacted_overrides, without_secrets

SEED = "seed"
"""The swept key whose values are repetitions of one arm."""

LONGEST_NAME = 100
"""Characters; file systems allow 255 in a name, and W&B cuts at 128."""

LAUNCHERS_SIGNAL = signal.SIGUSR2
"""Signal with which SLURM tells submitit that a job has to stop soon (`hydra.launcher.signal_delay_s`)."""

JobState = Literal["running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Sweep:
    """What all jobs of one command share; plain values, so that a launcher can carry it to another machine."""

    name: str
    run_dir: str
    """The folder as the command line names it: what comes from the environment stays `${oc.env:NAME}`."""
    folder: Path
    script: Path
    swept: tuple[str, ...]
    """Keys with several values, in the order in which they were given."""
    metrics: tuple[str, ...]
    """Names in `results.json`: what compares the jobs, then what is shown beside it."""
    invocation: str
    """Tells the jobs of this command from those that an earlier one left in the folder."""
    echo: bool
    """Whether to show what the job prints; several at once would be unreadable."""


@dataclass(frozen=True)
class JobRecord:
    """How one job went; `job.json` in its run directory."""

    name: str
    number: int
    """Number of the job in the order of the sweep, from 0."""
    values: Mapping[str, str]
    """Values of the swept keys."""
    state: JobState
    invocation: str
    pid: int | None = None
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the sweep that the job's results have."""
    reason: str = ""
    """Why it failed: the signal, or the last line that it printed."""


class SweepStopped(KeyboardInterrupt):
    """The user or the scheduler asked the sweep to stop; the job under way has saved and ended.

    No Exception: Hydra would take it for the failure of one job and start the next.
    """


def job_name(values: Mapping[str, str]) -> str:
    """A folder name that tells the values: `erasing-keep_seed-3`. The same for the same values, always.

    Signs that a folder name cannot hold are left out, and a hash of the value then tells such names apart.
    """
    last = [key.rpartition(".")[2] for key in values]
    parts = []
    for key, value in values.items():
        short = key.rpartition(".")[2]
        parts.append(_slug(key if last.count(short) > 1 else short, value))
    return _shortened("_".join(parts)) or "job"


def grid_name(fixed: Mapping[str, str], swept: Sequence[str]) -> str:
    """The name of a sweep that has none: what all its jobs share, and which keys they differ in."""
    parts = [_slug(key.rpartition(".")[2], value) for key, value in fixed.items()]
    return _shortened("_".join([*parts, *(key.rpartition(".")[2] for key in swept)]))


def run_job(
    sweep: Sweep, number: int, values: Mapping[str, str], overrides: Sequence[str], config: Mapping[str, Any]
) -> float:
    """Run one job to its end, unless it is done; returns its first metric, NaN if it has none.

    `overrides` are the whole command line of the job; `config` is what they compose to. The job's failure is
    recorded, not raised. Raises SweepStopped once the job has ended after SIGINT or SIGTERM.
    """
    name = job_name(values)
    run = RunDirectory(sweep.folder / name)
    record = JobRecord(name=name, number=number, values=values, state="running", invocation=sweep.invocation)
    if _is_done(run, config):
        record = replace(record, state="done", metrics=_metrics(run, sweep.metrics))
        print(f"{name}: done before", flush=True)
    else:
        print(f"{name}: started, log in {run.path / 'job.log'}", flush=True)
        record, asked_to_stop = _attempt(sweep, record, run, overrides)
        print(f"{name}: {record.state}{record.reason and f', {record.reason}'}", flush=True)
        if asked_to_stop:
            _write(run, record)
            _requeue()
            raise SweepStopped
    _write(run, record)
    return record.metrics.get(sweep.metrics[0], math.nan)


def job_records(sweep: Sweep) -> list[JobRecord]:
    """The jobs of this command, in their order; one that never ended counts as failed."""
    records = []
    for file in sweep.folder.glob("*/job.json"):
        record = JobRecord(**json.loads(file.read_text(encoding="utf-8")))
        if record.invocation == sweep.invocation:
            lost = record.state == "running"
            records.append(replace(record, state="failed", reason="its launcher ended") if lost else record)
    return sorted(records, key=lambda record: record.number)


def _attempt(sweep: Sweep, record: JobRecord, run: RunDirectory, overrides: Sequence[str]) -> tuple[JobRecord, bool]:
    """Start the job and wait for it; how it went, and whether it was asked to stop."""
    command = [sys.executable, str(sweep.script), *overrides]
    run.path.mkdir(parents=True, exist_ok=True)
    log = run.path / "job.log"
    started = time.monotonic()
    try:
        opened = growing(log)
    except OSError as error:
        reason = f"{log} cannot be written: {error.strerror}"
        return replace(record, state="failed", reason=reason), False
    with opened as file:
        file.write(f"$ {shlex.join([*command[:2], *redacted_overrides(overrides)])}\n".encode())
        # SLURM sends the launcher's signal to every process of the job, and those of training would end at once.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {LAUNCHERS_SIGNAL})
        # A session of its own: Ctrl-C reaches the job once, passed on by `_Stopping`, not again from the terminal.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1"},  # the log is for debugging
            start_new_session=True,
        )
        record = replace(record, pid=process.pid)
        _write(run, record)
        reader = Thread(target=_copy, args=(process, file, sweep.echo), daemon=True)
        reader.start()
        with _Stopping(process) as stopping:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = process.wait()
        if code != 0:
            # What it started, such as the processes of other devices, must not run on beside the next job.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        reader.join(timeout=10)
    record = replace(record, seconds=round(time.monotonic() - started, 1))
    if code == 0:
        return replace(record, state="done", metrics=_metrics(run, sweep.metrics)), stopping.asked
    reason = (
        f"killed by {signal.Signals(-code).name}"
        if code < 0
        else _failure(run) or _last_line(log) or f"exit code {code}"
    )
    return replace(record, state="stopped" if stopping.asked else "failed", reason=reason), stopping.asked


def _copy(process: subprocess.Popen[bytes], log: FileIO, echo: bool) -> None:
    """What the job prints into its log, and on to the screen."""
    assert process.stdout is not None
    with process.stdout as pipe:
        while chunk := os.read(pipe.fileno(), 65536):
            log.write(chunk)
            if echo:
                sys.stdout.write(chunk.decode(errors="replace"))
                sys.stdout.flush()


def _requeue() -> None:
    """Under the SLURM launcher: put the job that was stopped back into the queue and end, unless somebody cancelled it.

    SLURM puts back only what it had to kill, and this job has ended in time.
    """
    launchers = signal.getsignal(LAUNCHERS_SIGNAL)
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or not callable(launchers):
        return
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # one job of an array has the number of the array, and would name all
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "RUNNING":
        launchers(LAUNCHERS_SIGNAL, None)


class _Stopping:
    """While it is open, SIGINT, SIGTERM and the launcher's signal go on to the job, which saves and ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Stopping":
        for number in (signal.SIGINT, signal.SIGTERM, LAUNCHERS_SIGNAL):
            if number == LAUNCHERS_SIGNAL and not callable(signal.getsignal(number)):
                continue
            try:
                self._before[number] = signal.signal(number, self._pass_on)
            except ValueError:  # in a thread; its process handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if number != LAUNCHERS_SIGNAL:
            self.process.send_signal(number)
        elif not self.asked:  # it may follow a SIGTERM, and a second one would end the job before it has saved
            self.process.send_signal(signal.SIGTERM)
        self.asked = True


def _is_done(run: RunDirectory, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds this very run, finished. Anything else is for the job to judge."""
    stored = run.stored_config() if run.is_done else None
    # A run stores the root keys that belong to it; those of plans, for one, do not.
    return stored is not None and not differing(
        stored, {key: value for key, value in without_secrets(config).items() if key in stored}
    )


def _metrics(run: RunDirectory, names: Sequence[str]) -> dict[str, float]:
    try:
        results = json.loads(run.results.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # A run without held-out questions has no accuracy.
    return {name: float(results[name]) for name in names if name in results}


def _write(run: RunDirectory, record: JobRecord) -> None:
    atomic_write_json(run.path / "job.json", asdict(record))


def _failure(run: RunDirectory) -> str:
    """The first line of why a run says that it failed; empty where it says nothing."""
    try:
        return (run.path / "FAILED").read_text(encoding="utf-8").partition("\n")[0][:200]
    except OSError:
        return ""


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines and not lines[-1].startswith("$ ") else ""


def _slug(key: str, value: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-.")
    lost = plain != value
    return f"{key}-{plain[:40]}{f'.{_digest(value)}' if lost or len(plain) > 40 else ''}".replace("--", "-")


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 7]}.{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
