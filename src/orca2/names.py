"""Names that become names of files: stages, benchmarks, strategies, accounts.

A config may come from a stranger; a stage called `../../x` would be a run outside of the run directory.
"""

from pathlib import Path

LONGEST = 120
"""Characters; a file system takes 255 bytes, of which endings and signs that need two or more bytes are left room."""


def is_file_name(name: str) -> bool:
    """Whether a name stays in its folder as the name of a file: one part, printable, not hidden, not too long."""
    return (
        0 < len(name) <= LONGEST
        and name.isprintable()
        and not name.startswith((".", "~"))
        and "\\" not in name
        and Path(name).name == name
    )


def stays_below(path: str) -> bool:
    """Whether a name of one or more parts, such as `runs/mine`, stays below the folder that it is put behind."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts and "\0" not in path
