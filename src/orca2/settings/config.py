"""From YAML to a checked config, and from a config to plain Python objects."""

import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from yaml import YAMLError

from orca2.errors import ConfigError, Orca2Error
from orca2.modelling.optimization import default_learning_rate
from orca2.names import stays_below
from orca2.processes.ranks import here
from orca2.settings.default_names import data_name, model_name
from orca2.settings.schemas import SCHEMAS, number_problem
from orca2.settings.targets import nearest, problems

# Defaults that follow from other keys, by OmegaConf's resolvers: `--cfg job --resolve` shows what they are here.
OmegaConf.register_new_resolver("default_learning_rate", lambda *, _root_: _learning_rate(_root_), replace=True)
OmegaConf.register_new_resolver("default_packs", lambda *, _root_: _default_packs(_root_), replace=True)

OmegaConf.register_new_resolver("launched", lambda what: getattr(here(), what), replace=True)
OmegaConf.register_new_resolver("data_name", lambda *, _root_: data_name(_root_), replace=True)
OmegaConf.register_new_resolver("model_name", lambda *, _root_: model_name(_root_), replace=True)

for _root in SCHEMAS:
    ConfigStore.instance().store(name=f"{_root}_schema", node=SCHEMAS[_root])

PACKS_PER_STEP = 2
"""Ours, for `tiny`; more ranks take more packs."""


def compose_config(root: str, overrides: Sequence[str] = (), folder: Path | None = None) -> DictConfig:
    """Compose `<folder>/<root>.yaml` with overrides, as the command line would. Raises ConfigError.

    `folder` is the project's `conf/` where not given.
    """
    folder = folder or Path(__file__).resolve().parents[3] / "conf"
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        return composed(root, overrides)


def check(cfg: DictConfig) -> None:
    """Raise one ConfigError that lists everything wrong with a composed config; build nothing."""
    raise_all(config_problems(cfg))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain dictionaries, interpolations resolved."""
    return cast(dict[str, Any], _plain(cfg))


def storable(cfg: DictConfig, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Do what `plain` does, but values from the environment stay `${oc.env:NAME}`: they may be secrets.

    A trainer's precision is stored as what it is here: `auto` on another machine may be another computation.
    `leave_out`: root keys that change nothing in what is stored. What a plan may leave out stays missing.
    """
    cfg = _untyped_copy(cfg)
    if cfg.get("trainer"):
        cfg.trainer.precision = build(cfg.trainer).resolved_precision
    for node, key, raw, _ in _leaves(cfg):
        if isinstance(raw, str) and "${oc.env:" in raw:
            node[key] = raw.replace("${oc.env:", r"\${oc.env:")
    resolved = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return {key: value for key, value in resolved.items() if key not in leave_out}


def _learning_rate(cfg: DictConfig) -> float:
    weights, rank = OmegaConf.select(cfg, "model.weights"), OmegaConf.select(cfg, "lora.rank")
    return default_learning_rate(pretrained=weights is not None, with_lora=bool(rank))


def _default_packs(cfg: DictConfig) -> int:
    try:
        return max(PACKS_PER_STEP, int(build(cfg.trainer).world))
    except (Orca2Error, OmegaConfBaseException):  # told of the trainer itself
        return PACKS_PER_STEP


def build(node: DictConfig, **runtime: Any) -> Any:
    """Make the object that `node._target_` names, and those nested in it, from plain Python values.

    `runtime` adds arguments that no config can hold, such as a tokenizer; they are passed as they are.
    Orca2 errors of constructors are raised again with the node's path before them, a call that does
    not fit as ConfigError, anything else as it was raised.
    """
    where = str(node._get_full_key(None))
    try:
        # The last call is ours: Hydra would turn dataclasses among the runtime arguments into dictionaries.
        deferred = instantiate(node, _convert_="all", _partial_=True)
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, Exception):
            raise ConfigError(f"{where}: {_first_line(error)}") from error
        raise _with_path(cause, str(error).rpartition("full_key: ")[2]) from cause.__cause__
    try:
        return deferred(**runtime)
    except Exception as error:
        raise _with_path(error, where) from error.__cause__


def build_all(cfg: DictConfig, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Every root key with its value: nodes with a `_target_` built, all others plain. Collects errors."""
    built, found = {}, []
    for key in sorted(set(map(str, cfg)) - set(leave_out)):
        node = cfg[key]
        try:
            built[key] = build(node) if OmegaConf.is_dict(node) and "_target_" in node else _plain(node)
        except Orca2Error as error:
            found.append(str(error))
    raise_all(found)
    return built


def config_problems(cfg: DictConfig) -> Iterator[str]:
    schema = schema_of(cfg)
    known = {item.name: item for item in fields(schema)}
    tree = _untyped_copy(cfg)  # so that bad leaves can be taken out
    bad = []
    for node, key, raw, path in _leaves(tree):
        try:
            node[key]
        except OmegaConfBaseException as error:
            bad.append((node, key))
            if raw == "???" and not is_to_come(cfg, path):
                yield f"{path}: has no value; give one with {path}=…"
            elif raw != "???" and not isinstance(
                error, InterpolationToMissingValueError
            ):  # else said of the missing value
                yield f"{path} = {raw}: {_first_line(error)}"
    for node, key in bad:
        del node[key]
    for key, value in plain(tree).items():
        if key not in known:
            yield f"{key}: not a key of {schema.__name__}{nearest(key, known)}"
        elif found := number_problem(value, known[key], schema):
            yield found
    name = OmegaConf.select(tree, "name")
    if isinstance(name, str) and not stays_below(name):
        yield f"name = {name!r}: becomes a folder below the runs; for another place give run_dir= or out_dir="
    yield from problems(plain(tree))


def is_to_come(cfg: DictConfig, path: str) -> bool:
    """Whether a plan may leave a value out: one of the source of a stage that states its `expected_tokens`."""
    within = path.split(".")
    if not cfg.get("plan") or within[:2] != ["curriculum", "stages"] or within[3] != "source":
        return False
    return cfg.curriculum.stages[within[2]].get("expected_tokens") is not None


def _leaves(node: DictConfig | ListConfig, path: str = "") -> Iterator[tuple[Any, Any, Any, str]]:
    """(container, key, unresolved value, path) of every leaf."""
    raw = OmegaConf.to_container(node)
    for key, value in list(raw.items() if isinstance(raw, dict) else enumerate(raw)):  # type: ignore[arg-type]
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, (dict, list)):
            yield from _leaves(node[key], here)
        else:
            yield node, key, value, here


def composed(root: str, overrides: Sequence[str], keep_hydra: bool = False) -> DictConfig:
    try:
        return hydra.compose(root, list(overrides), return_hydra_config=keep_hydra)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if not isinstance(cause, OmegaConfBaseException):
        return str(error).partition("\n")[0]
    schema, key = cast(type[Any], cause.object_type), str(cause.full_key or cause.key)
    if schema in SCHEMAS.values() and key not in (known := [item.name for item in fields(schema)]):
        return f"{key}: not a key of {schema.__name__}{nearest(key, known)}"
    return f"{key}: {_first_line(cause)}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def schema_of(cfg: DictConfig) -> type[Any]:
    """The dataclass of a root config. Without one (`<root>_schema` not in its defaults) nothing is known."""
    schema = OmegaConf.get_type(cfg)
    if schema not in SCHEMAS.values():
        raise ConfigError("the defaults list of a root config must start with its schema, such as train_schema")
    return cast(type[Any], schema)


def _plain(value: Any) -> Any:
    if not OmegaConf.is_config(value):
        return value
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)


def _untyped_copy(cfg: DictConfig) -> DictConfig:
    return OmegaConf.create(cast(dict[str, Any], OmegaConf.to_container(cfg)))


def _with_path(error: Exception, path: str) -> Exception:
    """`error` with the config path before its message, if a user can mend it; otherwise as it is."""
    if isinstance(error, Orca2Error):
        return type(error)(f"{path}: {error}")
    if isinstance(error, TypeError) and _is_about_the_call(error):
        return ConfigError(f"{path}: {error}")
    return error


def _is_about_the_call(error: Exception) -> bool:
    """Whether the arguments did not fit: raised where Hydra makes the call, not inside the target."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith("hydra.")


def raise_all(found: Iterable[str]) -> None:
    listed = list(dict.fromkeys(found))
    if listed:
        raise ConfigError("this config cannot be run:" + "".join(f"\n  - {problem}" for problem in listed))
