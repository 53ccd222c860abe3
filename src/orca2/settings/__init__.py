"""The border between Hydra and the rest: the only part that imports hydra or omegaconf.

    command line ──▶ run_main ──▶ every override and the composed config are checked, all problems at once
                                   └▶ Hydra runs the job ──▶ function(cfg), or starts each job of a sweep
    function(cfg):   plain(cfg.x) or build(cfg.x) hands ordinary Python values to everything below

An entry point is one function and `run_main("train", main)`; its config is `conf/train.yaml` beside it.
"""

from orca2.settings.command_line import check_command_line
from orca2.settings.config import build, build_all, check, compose_config, plain, storable
from orca2.settings.main import job_overrides, run_main
from orca2.settings.stage_configs import expected_tokens, stage_configs

__all__ = [
    "build",
    "build_all",
    "check",
    "check_command_line",
    "compose_config",
    "expected_tokens",
    "job_overrides",
    "plain",
    "run_main",
    "stage_configs",
    "storable",
]
