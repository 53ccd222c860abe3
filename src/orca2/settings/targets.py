"""What a config node may name in `_target_`, and whether its values fit that target's signature.

Works on plain dictionaries; knows nothing of Hydra. A node and what is said about it:

    strategy:
      _target_: orca2.strategies.Strategi      module 'orca2.strategies' has no attribute 'Strategi'
      nam: direct                              takes no such argument; did you mean 'name'?
      instruction: 3                           wants str
"""

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from orca2.errors import ConfigError
from orca2.names import LONGEST, is_file_name

ALLOWED = ("orca2", "lightning", "lightning_modules", "datamodules")
"""Packages whose classes and functions a config may name. A config is data: it must not reach the rest
of Python, neither directly (`os.system`) nor through one of our modules (`orca2.runs.os.system`)."""

RESERVED = frozenset({"_target_", "_convert_", "_recursive_", "_partial_", "_args_"})
"""Keys of Hydra's own in a node; never arguments."""


def closest(name: str, choices: Collection[str]) -> str:
    """A hint to append to a complaint about `name`: the nearest right name, if one is near."""
    return "".join(f"; did you mean '{near}'?" for near in difflib.get_close_matches(name, choices, n=1))


def nearest(name: str, choices: Collection[str]) -> str:
    """The hint of `closest`, or a list of all names where none is near."""
    return closest(name, choices) or (f"; known: {', '.join(sorted(choices))}" if choices else "")


def locate(target: str) -> Any:
    """The class or function that `target` names. Raises ConfigError, naming the nearest right name."""
    first, *rest = target.split(".")
    if first not in ALLOWED or not rest:
        raise ConfigError(f"only things inside {', '.join(ALLOWED)} may be named")
    found: Any = _import(first)
    for part in rest:
        if not hasattr(found, part) and hasattr(found, "__path__"):
            _import_if_there(f"{found.__name__}.{part}")
        if not hasattr(found, part):
            kind = "module" if inspect.ismodule(found) else "class"
            hint = nearest(part, _names(found))
            raise ConfigError(f"{kind} '{found.__name__}' has no attribute '{part}'{hint}")
        found = getattr(found, part)
    home = str(getattr(found, "__module__", None) or "").partition(".")[0]
    if not callable(found) or home not in ALLOWED:
        raise ConfigError(f"not a class or function of {', '.join(ALLOWED)}")
    return found


def parameters(target: Any) -> tuple[dict[str, Any], bool]:
    """Argument names of a class or function with their annotations, and whether it takes other names too."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # builtins without a signature: nothing can be said
        return {}, True
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # annotations that exist only for type checkers
        hints = {}
    named, open_ended = {}, False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            named[name] = hints.get(name, Any)
    return named, open_ended


def problems(tree: Any, path: str = "") -> Iterator[str]:
    """All that is wrong with the targets in `tree` and below, each with its path."""
    if isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from problems(value, f"{path}[{index}]")
    if not isinstance(tree, dict):
        return
    if "_target_" in tree:
        yield from _node_problems(tree, path)
    for key, value in tree.items():
        yield from problems(value, f"{path}.{key}" if path else str(key))


def mismatches(value: Any, annotation: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """(path, value, what is wanted) for every primitive in `value` that does not fit `annotation`.

    Looks into mappings and sequences. Nested targets and annotations that only a type checker
    understands are taken to fit: the constructor has the last word.
    """
    annotation = _bare(annotation)
    arguments = typing.get_args(annotation)
    if isinstance(value, dict) and "_target_" not in value and _origin(annotation) in _MAPPINGS:
        for key, item in value.items() if len(arguments) == 2 else ():
            yield from mismatches(item, arguments[1], f"{path}.{key}")
    elif isinstance(value, list) and _origin(annotation) in _SEQUENCES:
        for index, item in enumerate(value if arguments else ()):
            yield from mismatches(item, arguments[0], f"{path}[{index}]")
    elif not _fits(value, annotation):
        yield path, value, _wanted(annotation)


_MAPPINGS = (dict, Mapping, MutableMapping)
_SEQUENCES = (list, tuple, set, frozenset, Sequence, MutableSequence, Collection, Iterable)


def _node_problems(node: dict[str, Any], path: str) -> Iterator[str]:
    name, prefix = node["_target_"], f"{path}." if path else ""
    if not isinstance(name, str):
        yield f"{prefix}_target_ = {name!r}: wants the dotted name of a class or function"
        return
    try:
        named, open_ended = parameters(locate(name))
    except ConfigError as error:
        yield f"{prefix}_target_ = {name}: {error}"
        return
    own = node["name"] if isinstance(node.get("name"), str) else None
    if own is not None and not is_file_name(own):
        rule = f"no slashes, no dot at its start, at most {LONGEST} signs"
        yield f"{prefix}name = {own!r}: becomes the name of files; {rule}"
    for key, value in node.items():
        if key in named:
            for where, wrong, wanted in mismatches(value, named[key], f"{prefix}{key}"):
                yield f"{where} = {wrong!r}: {name} wants {wanted}"
        elif key not in RESERVED and not open_ended:
            yield f"{prefix}{key}: {name} takes no such argument{nearest(str(key), named)}"


def _fits(value: Any, annotation: Any) -> bool:
    origin = _origin(annotation)
    if annotation in (Any, object):
        return True
    if origin in (Union, types.UnionType):
        return any(not list(mismatches(value, member, "")) for member in typing.get_args(annotation))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(annotation))
    if isinstance(value, dict) and "_target_" in value:
        return annotation not in (int, float, bool, str)
    if annotation in (int, float):
        return isinstance(value, int if annotation is int else (int, float)) and not isinstance(value, bool)
    if origin in _MAPPINGS:
        return isinstance(value, dict)
    if origin in _SEQUENCES:
        return isinstance(value, list)
    if origin is Path:
        return isinstance(value, str)
    if annotation in (None, type(None)):
        return value is None
    if not inspect.isclass(annotation) or getattr(annotation, "_is_protocol", False):
        return True
    return isinstance(value, annotation)


def _bare(annotation: Any) -> Any:
    """`annotation` without the wrappers that say nothing about values."""
    if typing.get_origin(annotation) is Annotated:
        return _bare(typing.get_args(annotation)[0])
    return Any if isinstance(annotation, TypeVar) or annotation is inspect.Parameter.empty else annotation


def _origin(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _wanted(annotation: Any) -> str:
    origin, arguments = _origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(_wanted(member) for member in arguments)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in _MAPPINGS:
        return "a mapping"
    if origin in _SEQUENCES:
        return "a list"
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # an import runs foreign code: whatever it raises is the reason
        raise ConfigError(f"module '{name}' cannot be imported: {type(error).__name__}: {error}") from error


def _import_if_there(name: str) -> None:
    if importlib.util.find_spec(name) is not None:
        _import(name)


def _names(found: Any) -> set[str]:
    """Public names inside a module or class, modules not yet imported included."""
    below = pkgutil.iter_modules(getattr(found, "__path__", []))
    return {name for name in (*dir(found), *(module.name for module in below)) if not name.startswith("_")}
