"""Checks of the command line: every problem of every job, before the first one starts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from orca2.errors import ConfigError
from orca2.settings.config import composed, config_problems, raise_all, schema_of
from orca2.settings.schemas import number_problem
from orca2.settings.targets import RESERVED, closest, locate, nearest, parameters


def check_command_line(root: str, overrides: Sequence[str], folder: Path, multirun: bool = False) -> None:
    """Raise one ConfigError that lists everything wrong with the overrides and what they compose to.

    In a sweep each value of each swept key is tried once, the other keys at their first value.
    """
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        parsed, found = [], []
        for text in overrides:
            try:
                parsed += parser.parse_overrides([text])
            except HydraException:
                found.append(f"{text}: cannot be read; write key=value")
        hydras = [override for override in parsed if override.is_hydra_override()]
        mine = [override for override in parsed if not override.is_hydra_override()]
        # A file of sweeps/ decides whether this is a sweep, and of what.
        sweeps = [each for each in mine if each.key_or_group == "sweeps" and _option_problem(each) is None]
        base = composed(root, texts([*hydras, *sweeps]), keep_hydra=True)
        found += _missing_plugins(base)
        if multirun or base.hydra.mode is RunMode.MULTIRUN:
            mine = with_parameters(parser, base, mine)
        else:
            found += [
                f"{override.input_line}: several values; add --multirun to run one job for each"
                for override in mine
                if override.is_sweep_override()
            ]
            mine = [override for override in mine if not override.is_sweep_override()]
        for variant in _variants(parser, mine):
            found += _job_problems(root, base, hydras, variant)
    raise_all(found)


def _missing_plugins(base: DictConfig) -> Iterator[str]:
    for kind in ("launcher", "sweeper"):
        package = ".".join(base.hydra[kind]._target_.split(".")[:2])
        if package.startswith("hydra_plugins.") and not _installed(package):
            choice = base.hydra.runtime.choices[f"hydra/{kind}"]
            yield f"hydra/{kind}={choice}: not installed; pip install 'orca2-lightning[sweeps]'"


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


def with_parameters(parser: OverridesParser, base: DictConfig, overrides: list[Override]) -> list[Override]:
    """The overrides of all jobs of a sweep: its file's, and over them those of the command line."""
    parameters = base.hydra.sweeper.get("params") or {}
    given = [parser.parse_override(f"{key}={value}") for key, value in parameters.items()]
    return list({override.get_key_element(): override for override in [*given, *overrides]}.values())


def _job_problems(root: str, base: DictConfig, hydras: list[Override], overrides: list[Override]) -> Iterator[str]:
    """Problems of the overrides of one job; a bad one is left out so that the others are checked too."""
    chosen = _groups_of(base)
    groups: list[Override] = list(hydras)
    values: list[Override] = []
    for override in sorted(overrides, key=lambda override: "@" in override.get_key_element()):
        key = override.get_key_element()
        if "@" in key and key not in chosen:  # a group that a chosen option composes in turn
            chosen = _groups_of(composed(root, texts(groups), keep_hydra=True))
        group = override.type is OverrideType.CHANGE and key in chosen
        problem = _option_problem(override, texts(hydras)) if group else None
        if problem:
            yield problem
        else:
            (groups if group else values).append(override)
    cfg = composed(root, texts(groups))
    found = [(override, _value_problem(cfg, override, chosen)) for override in values]
    yield from (problem for _, problem in found if problem)
    good = [*groups, *(override for override, problem in found if not problem)]
    try:
        cfg = composed(root, texts(good))
    except ConfigError:  # one by one, to tell which
        good = list(groups)
        for override, problem in found:
            try:
                if not problem:
                    cfg = composed(root, texts([*good, override]))
                    good.append(override)
            except ConfigError as error:
                yield f"{override.input_line}: {error}"
    yield from config_problems(cfg)


def _variants(parser: OverridesParser, overrides: list[Override]) -> Iterator[list[Override]]:
    """The jobs to try: all swept keys at their first value, then each other value of each key in turn."""
    choices = []
    for override in overrides:
        if not override.is_sweep_override():
            choices.append([override])
        else:
            key, swept = override.get_key_element(), override.value()
            # An optimizing sweeper takes any value between two.
            ends = (swept.start, swept.end) if isinstance(swept, IntervalSweep) else None
            values: Iterable[object] = ends or override.sweep_string_iterator()
            choices.append([parser.parse_override(f"{key}={value}") for value in values])
    choices = [options for options in choices if options]
    first = [options[0] for options in choices]
    yield first
    for index, options in enumerate(choices):
        for value in options[1:]:
            yield [*first[:index], value, *first[index + 1 :]]


def _groups_of(cfg: DictConfig) -> set[str]:
    """The groups of a composed config whose option can be changed, nested ones as `group@where`."""
    return {group for group in cfg.hydra.runtime.choices if group.partition("/")[0] != "hydra"}


def _option_problem(override: Override, hydras: Sequence[str] = ()) -> str | None:
    group = override.key_or_group
    loader = GlobalHydra.instance().config_loader()
    options = loader.get_group_options(group, config_name=None, overrides=list(hydras))
    if override.value() in options:
        return None
    known, hint = ", ".join(options), closest(str(override.value()), options)
    return f"{override.input_line}: conf/{group} has {known}{hint}"


def _value_problem(cfg: DictConfig, override: Override, groups: set[str]) -> str | None:
    """What is wrong with `a.b=value` where the config has no such key, or a root key has another type."""
    if override.type is not OverrideType.CHANGE:
        return None  # Hydra judges additions and deletions; what an addition adds is checked afterwards
    schema = schema_of(cfg)
    *parents, last = override.key_or_group.split(".")
    first = override.key_or_group.partition(".")[0]
    if first not in cfg:
        hint = nearest(first, {*map(str, cfg), *groups})
        return f"{override.input_line}: '{first}' is not a key of {schema.__name__}{hint}"
    node = OmegaConf.select(cfg, ".".join(parents), throw_on_resolution_failure=False) if parents else cfg
    if isinstance(node, DictConfig) and last not in set(node.keys()):  # `in` denies keys whose value is ???
        named = _argument_names(node)
        if last in named:
            return f"{override.input_line}: not set in this config; write +{override.input_line} to add it"
        hint = nearest(last, {*map(str, node), *named} - RESERVED)
        remedy = "" if "_target_" in node else f" (+{override.input_line} adds it)"
        return f"{override.input_line}: no such key in '{'.'.join(parents)}'{remedy}{hint}"
    if node is None and (absent := _absent_argument(cfg, parents)):
        return f"{override.input_line}: '{absent}' is not set in this config; write +{override.input_line} to add it"
    item = None if parents else {item.name: item for item in fields(schema)}.get(last)
    return number_problem(override.value(), item, schema) if item else None


def _absent_argument(cfg: DictConfig, path: Sequence[str]) -> str | None:
    """The first node on `path` that is not there, if its parent's target takes an argument of that name."""
    for depth in range(1, len(path)):
        node = OmegaConf.select(cfg, ".".join(path[:depth]), throw_on_resolution_failure=False)
        if isinstance(node, DictConfig) and node.get(path[depth]) is None:
            return ".".join(path[: depth + 1]) if path[depth] in _argument_names(node) else None
    return None


def _argument_names(node: DictConfig) -> dict[str, Any]:
    try:
        return parameters(locate(node._target_))[0] if "_target_" in node else {}
    except ConfigError:  # said again, as a problem of the node, once the whole config is checked
        return {}


def texts(overrides: Sequence[Override]) -> list[str]:
    return [str(override.input_line) for override in overrides]
