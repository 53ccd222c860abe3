"""What `--help` prints, and that it needs none of the libraries that take seconds to import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orca2.help import help_of
from tests.commands import ENVIRONMENT, ROOT

COMMANDS = sorted(file.stem for file in ROOT.glob("*.py"))


def test_there_are_commands() -> None:
    """The tests below pass on an empty list."""
    assert {"train", "synthesize", "evaluate"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_the_command_takes(command: str) -> None:
    """A help that lists the groups of other commands, or leaves a key out, sends its reader to the source."""
    text = help_of(ROOT / f"{command}.py", 100)
    config = yaml.safe_load((ROOT / "conf" / f"{command}.yaml").read_text(encoding="utf-8"))
    groups = {name for entry in config.pop("defaults") if isinstance(entry, dict) for name in entry} - {"hydra"}
    assert set(re.findall(r"^  ([\w/]+)=[\w.]+: ", text, re.MULTILINE)) == groups
    assert set(re.findall(r"^  (\w+):", text, re.MULTILINE)) == set(config) - {"hydra"}
    assert len(re.findall(rf"^    python {command}\.py", text, re.MULTILINE)) >= 2, "two examples"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_answered_before_the_heavy_imports(command: str, tmp_path: Path) -> None:
    """Importing torch and its like takes seconds; here that would end the command with an error."""
    for name in ("torch", "transformers", "lightning", "hydra", "rich"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')", encoding="utf-8")
    shadowed = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    done = subprocess.run(
        [sys.executable, str(ROOT / f"{command}.py"), "--help"], env=shadowed, capture_output=True, text=True
    )
    assert done.returncode == 0 and f"Usage: python {command}.py" in done.stdout, done.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """Fails if `train.py --help | head -1` ends with a traceback."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "--help"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0
