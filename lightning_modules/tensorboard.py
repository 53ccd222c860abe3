"""`logger=tensorboard`: the metrics of `metrics.csv`, under the same names, as TensorBoard reads them.

    tensorboard --logdir runs     shows every run by its folder

Event files lie in `<run>/tensorboard/`. A resumed run writes one more and tells TensorBoard which steps it makes again.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from orca2.errors import ConfigError


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger for one run directory, without its file of hyperparameters: `config.yaml` lies beside."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="tensorboard", version="")
        self._last = 0

    def keep_until(self, step: int) -> None:
        """Hide what was logged of steps after `step`: they will be made again. Call it before anything is logged."""
        self._kwargs["purge_step"] = max(0, step + 1)

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Metrics without a step, such as the results of a run, go to the last step that was logged."""
        self._last = self._last if step is None else step
        super().log_metrics(metrics, self._last)

    @override
    def save(self) -> None:
        self.experiment.flush()


@dataclass(frozen=True, kw_only=True)
class TensorBoardSpec:
    """Logging to event files in the run directory. `group` is W&B's, which sweeps set; TensorBoard goes by folders."""

    name: str
    group: str | None = None

    def require_here(self) -> None:
        """Raise ConfigError where the package is missing."""
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "logger=tensorboard needs the package tensorboard: pip install 'orca2-lightning[tensorboard]', or "
                "pip install -e '.[tensorboard]' in a clone"
            )

    def build(self, run_name: str, run_id: str, folder: Path, config: Mapping[str, Any]) -> RunTensorBoardLogger:
        """The logger; a run is known by its folder alone."""
        return RunTensorBoardLogger(folder)
