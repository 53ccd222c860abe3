"""Options of a config group that lie outside `conf/`, named by their path.

    strategy=out/strategy/measured_x.yaml  ──▶  strategy=measured_x  hydra.searchpath=[file:///…/out]

The file's folder is named after the group, as in `conf/`, so that what it composes (`direct@members.direct`) is found.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from orca2.errors import ConfigError

_OVERRIDE = re.compile(r"(?P<key>[\w/]+(?:@[\w.:]+)?)=(?P<values>[^\[\](){}'\"]+\.yaml)")
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")


def options_by_name(overrides: Sequence[str], conf: Path) -> list[str]:
    """The overrides with every option that is a path replaced by its name, and where to look for it.

    Raises:
        ConfigError: all files that are missing, lie in the wrong folder, or are named like an option of `conf`.
    """
    found: list[str] = []
    folders: dict[str, None] = {}
    renamed = []
    for override in overrides:
        match = _OVERRIDE.fullmatch(override)
        group = match["key"].partition("@")[0] if match else ""
        if match is None or not (conf / group).is_dir():
            renamed.append(override)
            continue
        names = []
        for value in match["values"].split(","):
            if value.endswith(".yaml"):
                if wrong := _problems(override, value, group, conf):
                    found += wrong
                else:
                    folders[f"file://{Path(value).resolve().parents[group.count('/') + 1]}"] = None
                value = Path(value).stem
            names.append(value)
        renamed.append(f"{match['key']}={','.join(names)}")
    if folders and any(override.startswith("hydra.searchpath") for override in overrides):
        found.append(
            "hydra.searchpath cannot stand beside an option that is a path; add the file's folder to it instead"
        )
    if found:
        raise ConfigError("this config cannot be run:" + "".join(f"\n  - {problem}" for problem in found))
    # Quoted: a folder's name may hold what Hydra's grammar reserves.
    return renamed + ([f"hydra.searchpath=[{','.join(map(quoted, folders))}]"] if folders else [])


def _problems(override: str, value: str, group: str, conf: Path) -> list[str]:
    path = Path(value)
    if not path.is_file():
        return [f"{override}: {value} is not a file"]
    if not path.resolve().parent.as_posix().endswith(f"/{group}"):
        return [f"{override}: {value} must lie in a folder named {group!r}, as the options of conf/{group} do"]
    if (conf / group / path.name).exists() and not path.samefile(conf / group / path.name):
        return [f"{override}: conf/{group} has a {path.name} as well; rename the file, and the `name` in it"]
    return []


def quoted(text: str) -> str:
    """`text` as a value on Hydra's command line, whatever signs are in it; a plain path stays as it is."""
    if _PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "\\'") + "'"
