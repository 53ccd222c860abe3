"""Loggers of metrics: always a CSV file in the run directory, and W&B through Lightning's own logger.

W&B never asks anything: without a key (`WANDB_API_KEY` or a netrc entry) runs are written offline and can
be sent later with `wandb sync`.
"""

import csv
import netrc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from typing_extensions import override

from orca2.errors import ConfigError
from orca2.files import append_whole, atomic_write_text, unwritten_is_a_warning

INIT_TIMEOUT_S = 30.0
"""Seconds that W&B may take to answer before a run in mode `auto` goes on offline."""


class RunCsvLogger(Logger):
    """`metrics.csv`, one row a log point. On resuming, rows after the checkpoint's step are dropped.

    Lightning's CSVLogger deletes the file of the run that it resumes, so it cannot serve here.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                self.columns = list(csv.DictReader(file).fieldnames or ())

    @property
    @override
    def name(self) -> str:
        return "csv"

    @property
    @override
    def version(self) -> str:
        return ""

    @override
    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the configuration lies beside the file, in `config.yaml`."""

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self.columns]
        with unwritten_is_a_warning(self.path):
            if new:
                self._rewrite(self._rows(), [*self.columns, *new])
            append_whole(self.path, _csv_line([str(row.get(name, "")) for name in self.columns]))

    def keep_until(self, step: int) -> None:
        """Drop the rows of steps after `step`: they will be made again."""
        if not self.path.exists():
            return
        with unwritten_is_a_warning(self.path):
            self._rewrite([row for row in self._rows() if int(row["step"]) <= step], self.columns)

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            # A process killed while writing leaves half a row as the last one.
            return [row for row in csv.DictReader(file) if row["step"].isdigit() and None not in row.values()]

    def _rewrite(self, rows: list[dict[str, str]], columns: list[str]) -> None:
        lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
        atomic_write_text(self.path, "".join(_csv_line(line) for line in lines))
        self.columns = columns


def _csv_line(cells: list[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell for cell in cells) + "\n"


class RunWandbLogger(WandbLogger):
    """Lightning's logger of W&B; where W&B's own process is gone, the run goes on without it.

    SLURM signals every process of a job that has to stop, and W&B's ends at once: an error there would cost the
    checkpoint that the run is about to save.
    """

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with lost_wandb_is_a_warning():
            super().log_metrics(metrics, step)

    @override
    def log_text(self, *args: Any, **kwargs: Any) -> None:
        with lost_wandb_is_a_warning():
            super().log_text(*args, **kwargs)


@contextmanager
def lost_wandb_is_a_warning() -> Iterator[None]:
    """Within the block something is told to W&B's own process; where it is gone, that is said once."""
    global _lost
    try:
        yield
    except (OSError, wandb.errors.Error) as error:
        if not _lost:
            print(
                f"WARNING: W&B's process has ended ({error}); the run goes on without it, and metrics.csv holds all",
                file=sys.stderr,
            )
        _lost = True


_lost = False


@dataclass(frozen=True, kw_only=True)
class WandbSpec:
    """Whether and how a run is logged to W&B."""

    name: str
    mode: Literal["auto", "online", "offline", "off"]
    """`auto`: online when a key is found, else offline."""
    project: str
    group: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline", "off"):
            raise ConfigError(f"logger.mode = {self.mode!r}: one of auto, online, offline, off")

    def require_here(self) -> None:
        """Nothing: W&B comes with this package."""

    def build(self, run_name: str, run_id: str, folder: Path, config: Mapping[str, Any]) -> WandbLogger | None:
        """The logger, with the run's configuration attached; None when W&B is off.

        `run_id` is the same whenever the run is resumed, so that its curve goes on where it stopped. `WANDB_MODE`
        of the environment can only hold back: with `offline` nothing is sent, with `disabled` nothing written.
        """
        held_back = os.environ.get("WANDB_MODE")
        if self.mode == "off" or held_back == "disabled":
            return None
        may_send = self.mode != "offline" and held_back not in ("offline", "dryrun")
        online = may_send and _key_found()
        if self.mode == "online" and may_send and not online:
            raise ConfigError("logger.mode=online, but no W&B key was found: set WANDB_API_KEY or use logger.mode=auto")
        try:
            experiment = self._start("online" if online else "offline", run_name, run_id, folder, config)
        except wandb.errors.Error as error:
            if self.mode == "online":
                raise ConfigError(
                    f"W&B cannot be reached ({error}); use logger.mode=offline, and `wandb sync` later"
                ) from error
            experiment = self._start("offline", run_name, run_id, folder, config)
        return RunWandbLogger(experiment=experiment)

    def _start(
        self,
        mode: Literal["online", "offline"],
        run_name: str,
        run_id: str,
        folder: Path,
        config: Mapping[str, Any],
    ) -> Any:
        run = wandb.init(
            project=self.project,
            name=run_name,
            id=run_id,
            group=self.group,
            dir=folder,
            mode=mode,
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(silent=True, init_timeout=INIT_TIMEOUT_S),
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return run


@contextmanager
def finishing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the W&B run after the block, as failed where it raised, and event files.

    Else the next job of a sweep in this process would write into it (wandb #1314).
    """
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                with lost_wandb_is_a_warning():
                    logger.experiment.finish(exit_code=exit_code)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.close()
        if _lost:  # else its hook at the end of the program fails as well, with a traceback
            with suppress(OSError, wandb.errors.Error):
                wandb.teardown()


def _key_found() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)
