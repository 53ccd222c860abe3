"""The answer to `--help`: what a command does, examples of it, its groups with their options, its keys.

All of it is read from the entry point's docstring and from the comments of `conf/<command>.yaml`, so that the
help agrees with both. This module imports nothing that takes time to import: it is called before torch is.
"""

import ast
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

WIDEST = 120
"""Characters of a line on a wide terminal."""
OWN = ("hydra",)
"""Groups that only say how Hydra itself behaves."""
FLAGS = """\
Flags
  --cfg job --resolve   print every key with its value and stop
  -m, --multirun        one job for each combination: key=a,b  key=range(1,4)  group=glob(*)
  --hydra-help          all flags of Hydra"""


def answer_help(script: str, arguments: Sequence[str] | None = None) -> None:
    """Print the help of an entry point and end the program if the command line asks for it; else do nothing.

    `script`: the entry point's file, with `conf/` beside it; `arguments`: those of the command line by default.
    """
    if {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments):
        try:
            print(help_of(Path(script), min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)), flush=True)
        except BrokenPipeError:  # of `--help | head`; without another stdout Python would complain again as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def help_of(script: Path, width: int) -> str:
    """The whole text, in lines of at most `width` characters wherever an option or a comment leaves the choice."""
    folder = script.resolve().parent / "conf"
    text = (folder / f"{script.stem}.yaml").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    groups = dict(_groups(yaml.safe_load(text)["defaults"]))
    parts = [docstring, f"Usage: python {script.name} [group=option ...] [key=value ...] [flags]"]
    if groups:
        listed = "".join(_group(folder, name, default, width) for name, default in groups.items())
        parts.append(f"Groups (group=default: options, one file each in conf/<group>/; or a path to a file){listed}")
    parts.append(f"Keys (key=value; of conf/{script.stem}.yaml, the chosen files have more)\n{_keys(text)}")
    return "\n\n".join([*parts, FLAGS])


def _groups(defaults: list[Any]) -> Iterator[tuple[str, str | None]]:
    """Each group of a defaults list with its default option; None where nothing is chosen."""
    for entry in defaults:
        if isinstance(entry, dict):
            yield from ((name, option) for name, option in entry.items() if name not in OWN)


def _group(folder: Path, name: str, default: str | None, width: int) -> str:
    options = ", ".join(sorted(file.stem for file in (folder / name).glob("*.yaml")))
    line = f"  {name}={'null' if default is None else default}: {options}"
    return "\n" + textwrap.fill(line, width, subsequent_indent=" " * 6, break_on_hyphens=False)


def _keys(text: str) -> str:
    """The lines of a root config below its defaults list, without the keys of Hydra."""
    lines = text.partition("\n\n")[2].partition("\nhydra:")[0].strip().splitlines()
    return "\n".join(f"  {line}".rstrip() for line in lines)
