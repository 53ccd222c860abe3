"""The start of every entry point: check the command line, then run one job, or a sweep of them."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import uuid4

import hydra
from hydra._internal.utils import get_args_parser  # Hydra has no public way to tell flags from overrides
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from orca2.console import open_console
from orca2.errors import ConfigError, Orca2Error
from orca2.runs import OPERATIONAL, RunDirectory
from orca2.settings.command_line import check_command_line, texts, with_parameters
from orca2.settings.config import check, composed, storable
from orca2.settings.option_files import options_by_name, quoted
from orca2.settings.sweep_table import close_sweep
from orca2.settings.sweeps import Sweep, grid_name, job_name, job_records, run_job

OTHER_CONFIG = ("config_name", "config_path", "config_dir")
"""Hydra's flags by which a command is composed from other files than those in `conf/`."""


def run_main(root: str, function: Callable[[DictConfig], float | None], sweep_metrics: tuple[str, ...] = ()) -> None:
    """Run `function` on the config that the command line asks for; every Hydra flag works.

    An optimizing sweeper sees the value that it returns. Where `sweep_metrics` names entries of `results.json`, a
    sweep runs each job in a process of its own (`sweeps.py`) and ends with a table of them, the first one by seed.

    A mistake of the user ends the program with one clean message and exit code 2: before any job
    starts if a check can see it. A sweep with failed jobs ends with exit code 1, after all others.
    """
    script = Path(inspect.getfile(function)).resolve()
    folder = script.parent / "conf"
    failed = []
    sweep: Sweep | None = None

    @wraps(function)
    def job(cfg: DictConfig) -> float | None:
        if sweep is not None:
            return _start_job(sweep, cfg)
        try:
            check(cfg)
            return function(cfg)
        except Orca2Error as error:
            failed.append(error)
            _complain(error)
            return None

    arguments = get_args_parser().parse_args()
    no_job = ("help", "hydra_help", "cfg", "info", "shell_completion")
    if not any(getattr(arguments, flag) for flag in (*no_job, *OTHER_CONFIG)):
        try:
            named = options_by_name(arguments.overrides, folder)
            check_command_line(root, named, folder, arguments.multirun)
            if sweep_metrics:
                sweep = _sweep_of(root, named, arguments.multirun, script, sweep_metrics)
            # Hydra reads the arguments itself; what is not an override is a flag.
            sys.argv[1:] = [*(text for text in sys.argv[1:] if text not in arguments.overrides), *named]
        except ConfigError as error:
            _complain(error)
            sys.exit(2)
    start = hydra.main(config_path=str(folder), config_name=root, version_base="1.3")(job)
    if sweep is not None:
        sys.argv.append(f"hydra.sweep.dir={quoted(sweep.run_dir)}")  # Hydra's own record, multirun.yaml
        sys.exit(_run_sweep(sweep, start))
    start()
    if failed:
        sys.exit(2)


def job_overrides() -> list[str]:
    """The arguments that make the job that is running, also in further processes of it.

    Its own overrides, where to look for options that are files, and Hydra's flags that name another config.
    """
    given = get_args_parser().parse_args()
    # As they were written: read one by one, OmegaConf would put the values of environment variables in their place.
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides, resolve=False)
    flags = [f"--{flag.replace('_', '-')}={value}" for flag in OTHER_CONFIG if (value := getattr(given, flag))]
    searched = (text for text in overrides["hydra"] if text.startswith("hydra.searchpath="))
    return [*flags, *overrides["task"], *searched]


def _sweep_of(
    root: str, overrides: Sequence[str], multirun: bool, script: Path, metrics: tuple[str, ...]
) -> Sweep | None:
    """The sweep that a checked command line asks for; None where it asks for a single job.

    Its name is `name=`, or the file in sweeps/, or what the jobs share and differ in; its folder is `run_dir`.
    """
    with hydra.initialize_config_dir(str(script.parent / "conf"), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        given = parser.parse_overrides(list(overrides))
        shared = [override for override in given if not override.is_sweep_override()]
        base = composed(root, texts(shared), keep_hydra=True)
        if not multirun and base.hydra.mode is not RunMode.MULTIRUN:
            return None
        if base.get("plan"):
            raise ConfigError("plan=true plans one run, and this is a sweep: leave out -m or sweeps=")
        every = [each for each in with_parameters(parser, base, given) if not each.is_hydra_override()]
    # What the file sweeps stays in the jobs' names, also where the command line leaves one value of it.
    of_file = base.hydra.sweeper.get("params") or {}
    swept = tuple(key for each in every if (key := each.get_key_element()) in of_file or each.is_sweep_override())
    fixed = {key: each.get_value_element_as_str() for each in every if (key := each.get_key_element()) not in swept}
    if "name" not in fixed:
        telling = {key: value for key, value in fixed.items() if not key.startswith((*OPERATIONAL, "debug"))}
        base.name = base.hydra.runtime.choices.get("sweeps") or grid_name(telling, swept)
    echo = base.hydra.runtime.choices["hydra/launcher"] == "basic"
    with open_dict(base):
        base.pop("hydra")
    stored = storable(base)
    return Sweep(
        name=stored["name"],
        run_dir=stored["run_dir"],
        folder=Path(base.run_dir),
        script=script,
        swept=swept,
        metrics=metrics,
        invocation=uuid4().hex,
        echo=echo,
    )


def _run_sweep(sweep: Sweep, start: Callable[[], None]) -> int:
    """All jobs of the sweep and its closing table; the exit code of the program."""
    try:
        with RunDirectory(sweep.folder).locked():
            code = 0
            try:
                start()
            except KeyboardInterrupt:
                code = 130
            except SystemExit as stop:  # Hydra has said why, such as a pool or a cluster that broke
                code = int(stop.code or 0)
            records = job_records(sweep)
            close_sweep(sweep, records, open_console())
    except Orca2Error as error:
        _complain(error)
        return 2
    return code or int(any(record.state != "done" for record in records))


def _start_job(sweep: Sweep, cfg: DictConfig) -> float:
    """Called by a launcher, maybe in another process or on another machine than the head of the sweep."""
    own = HydraConfig.get()
    given = dict(text.partition("=")[::2] for text in job_overrides())
    values = {key: given[key] for key in sweep.swept}
    where = {"run_dir": quoted(f"{sweep.run_dir}/{job_name(values)}"), "name": f"{sweep.name}/{job_name(values)}"}
    if OmegaConf.select(cfg, "logger.group", default="") is None:
        where["logger.group"] = sweep.name
    lines = [*(f"{key}={value}" for key, value in (given | where).items()), "hydra.mode=RUN"]
    return run_job(sweep, int(own.job.num), values, lines, storable(cfg))


def _complain(error: Orca2Error) -> None:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
