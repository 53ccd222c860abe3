"""The head process: starts the ranks of one job with torch's elastic agent (the engine of torchrun) and waits for them.

    python train.py … trainer=fsdp       head
    └─ python train.py … trainer=fsdp hydra.mode=RUN       rank 0, 1, …: each runs the job (ranks.py)

Ranks report errors in files, so the head prints one message, that of the rank which failed first. A signal to the head
is passed on to the ranks, which save and end; they also end when the head dies.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from orca2.errors import Orca2Error, RankError
from orca2.files import atomic_write_json
from orca2.processes.ranks import here, is_first

STOPPED = 130
"""Exit code of a run that was asked to stop and saved: the shells' code for Ctrl-C."""
MENDABLE = 2
"""Exit code for what a user can mend."""

SAVING_TIMEOUT_S = 900
"""Seconds that ranks have to finish their step and save once they are asked to stop."""

PATIENCE_S = 10
"""Seconds that a rank lives on once it knows that another one failed: the launcher hears the failed one first."""

LAST_S = 3
"""Seconds that the first rank of srun lives on after a clean stop: `--kill-on-bad-exit` kills what still runs."""

SIGNAL_S = 2
"""Seconds within which a signal that was sent to all ranks has reached each."""

_HEAD = "ORCA2_HEAD"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start_ranks(script: str, overrides: Sequence[str], processes: int) -> None:
    """Run `script` with Hydra `overrides` in `processes` ranks on this machine until all have ended.

    Raises RankError with the message of the rank that failed first, and SystemExit(STOPPED) after a clean stop.
    """
    with tempfile.TemporaryDirectory(prefix="orca2-ranks-") as folder, _signals_kept(), _variables(processes):
        _quiet_agent()
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(signal.name for signal in _SIGNALS),
        )
        try:
            elastic_launch(config, sys.executable)(script, *overrides, "hydra.mode=RUN")
        except ChildFailedError as error:
            if any(failure.exitcode == STOPPED for failure in error.failures.values()):
                raise SystemExit(STOPPED) from None
            raise RankError(_first_failure(error.failures)) from None
        except SignalException:
            raise SystemExit(STOPPED) from None


def _first_failure(failures: Mapping[int, ProcessFailure]) -> str:
    for rank, failure in failures.items():
        # A rank that was killed has no words; its fellows complain of the lost connection. SIGTERM is the agent's own.
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            name = signal.Signals(-failure.exitcode).name
            hint = " (is the machine out of memory?)" if name == "SIGKILL" else ""
            return f"rank {rank} was killed by {name}{hint}; the other ranks were stopped"
    left = {rank: _read(failure.error_file) for rank, failure in failures.items()}
    if not any(left.values()):
        rank, failure = next(iter(failures.items()))
        return f"rank {rank} ended with exit code {failure.exitcode} and left no message"
    _, rank, text = min((error[0], rank, error[1]) for rank, error in left.items() if error)
    return f"rank {rank}: {text}"


def _read(error_file: str) -> tuple[int, str] | None:
    """When a rank failed (nanoseconds) and why."""
    try:
        message = json.loads(Path(error_file).read_text(encoding="utf-8"))["message"]
        return int(message["extraInfo"]["time_ns"]), str(message["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _quiet_agent() -> None:
    """The agent's tables and warnings; we say what failed, in one message."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """The agent leaves its own handlers behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _variables(processes: int) -> Iterator[None]:
    """The environment that the ranks inherit."""
    ours = {_HEAD: str(os.getpid()), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING_TIMEOUT_S)}
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ours["OMP_NUM_THREADS"] = str(max(1, cores // processes))
    before = {name: os.environ.get(name) for name in ours}
    os.environ |= ours
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def started_by_head(environment: Mapping[str, str] = os.environ) -> bool:
    return _HEAD in environment


@contextmanager
def reporting() -> Iterator[None]:
    """Around all that a job does: a SIGTERM ends it with the code of a clean stop, also while it loads or exports.

    The errors of a rank reach the user once, and it does not outlive its head.
    """
    if here().world == 1:
        with _stopping_on_sigterm():
            yield
        return
    if started_by_head():
        threading.Thread(target=_end_with_head, daemon=True).start()
    try:
        with _stopping_on_sigterm():
            yield
    except (SystemExit, KeyboardInterrupt) as stop:
        raise SystemExit(_code_of_rank(STOPPED if isinstance(stop, KeyboardInterrupt) else stop.code)) from None
    except BaseException as error:
        mendable = isinstance(error, Orca2Error)
        if isinstance(error, RankError) or (here().rank != 0 and not started_by_head()):
            # Often every rank fails alike: without a head to choose, the first one is heard before it ends the others.
            time.sleep(PATIENCE_S)
        if not isinstance(error, RankError):
            _leave(f"{type(error).__name__}: {error}" if mendable else traceback.format_exc())
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: other threads and process groups may wait for ranks that are gone.
        os._exit(MENDABLE if mendable else 1)


@contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """The fit has a handler of its own, which saves; before and after it the last checkpoint counts."""

    def stop(*_: object) -> None:
        raise SystemExit(STOPPED)

    with _signals_kept():
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)
        try:
            yield
        except RuntimeError:  # torch's, where the signal reached another rank first and the connection to it closed
            # `stop` interrupts it. A head ends the others of a killed rank by SIGTERM, and knows by itself of a stop.
            time.sleep(SIGNAL_S if here().world > 1 and not started_by_head() else 0)
            raise


def _code_of_rank(code: object) -> Any:
    """The exit code of a rank after a stop. Only one of srun's tasks ends with STOPPED, and it ends last.

    srun kills the others as soon as one ends with a code that is not 0, and then returns the code of the killed ones.
    """
    if code != STOPPED or "SLURM_STEP_NUM_TASKS" not in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return code
    if not is_first():
        return 0
    time.sleep(LAST_S)
    return code


def _leave(text: str) -> None:
    """Say why this rank fails: to its head, or without one (torchrun, srun) to the user."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not started_by_head() or file is None:
        print(f"rank {here().rank}: {text}", file=sys.stderr)
        return
    extra = {"timestamp": int(time.time()), "time_ns": time.time_ns()}  # torch's own reader wants seconds
    atomic_write_json(Path(file), {"message": {"message": text, "extraInfo": extra}})


def _end_with_head() -> None:
    head = int(os.environ[_HEAD])
    while os.getppid() == head:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)  # saves and ends
