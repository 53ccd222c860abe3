"""The task families by name, found by importing every module of `orca2.tasks.families`."""

import difflib
import importlib
import math
import pkgutil
from collections.abc import Collection, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

from orca2.errors import ConfigError
from orca2.tasks import families as package
from orca2.tasks.family import Family


@cache
def _all_families() -> dict[str, Family[Any]]:
    found: dict[str, Family[Any]] = {}
    for module_info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        family = vars(module).get("FAMILY")
        if not isinstance(family, Family):
            raise ConfigError(f"{module.__file__}: a family module must define `FAMILY = Family(...)`")
        if family.name != module_info.name:
            raise ConfigError(f"{module.__file__}: FAMILY is named {family.name!r}; name it {module_info.name!r}")
        found[family.name] = family
    return found


def families(names: Collection[str] | None = None) -> dict[str, Family[Any]]:
    """The named families, or all of them, sorted by name.

    Raises ConfigError for an unknown name (with the nearest known one), an empty collection, or a
    module of `orca2.tasks.families` without a well-named `FAMILY`.
    """
    known = _all_families()
    if names is None:
        return dict(known)
    if isinstance(names, str):
        raise ConfigError(f"names={names!r} is one text; give a collection of names such as [{names!r}]")
    if not names:
        raise ConfigError(f"no task families are named; allowed are {list(known)}, or None for all")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown task family {name!r}; did you mean {near!r}? Known: {list(known)}")
    return {name: known[name] for name in sorted(names)}


def family_turns(weights: Mapping[str, float] | None) -> tuple[Family[Any], ...]:
    """The families of consecutive rows of a generated collection; after the last it starts over.

    `weights` are exact to two decimals; None takes all families, each with its own share. Raises ConfigError
    for an unknown family and a weight below 0.01.
    """
    exact = {name: Fraction(family.share) for name, family in families().items()}
    if weights is not None:
        exact = {name: Fraction(weight).limit_denominator(100) for name, weight in weights.items()}
    for name, weight in exact.items():
        if weight <= 0:
            raise ConfigError(
                f"family {name!r} has weight {float(weight)}; it must be 0.01 or more, leave the family out instead"
            )
    unit = math.lcm(*(weight.denominator for weight in exact.values()))
    known = families(list(exact))
    return tuple(known[name] for name in exact for _ in range(int(exact[name] * unit)))
