"""Options named by their path: found from anywhere, never mistaken for a file of the same name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orca2.errors import ConfigError
from orca2.settings.option_files import options_by_name

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf"
CONTENT = """\
defaults: [direct@members.direct, step_by_step@members.step_by_step, _self_]
_target_: orca2.strategies.StrategyMixture
name: mine
by_task: {}
default: step_by_step
"""


@pytest.fixture
def option(tmp_path: Path) -> Path:
    path = tmp_path / "a folder" / "strategy" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CONTENT)
    return path


def test_a_path_becomes_a_name_and_a_place_to_look(option: Path) -> None:
    """Values that end in .yaml but are not options, such as a source's path, must stay as they are."""
    overrides = ["size=3", f"strategy=direct,{option}", "source.path=x.yaml", "erasing=cautious"]
    assert options_by_name(overrides, CONF) == [
        "size=3", "strategy=direct,mine", "source.path=x.yaml", "erasing=cautious",
        f"hydra.searchpath=['file://{option.parent.parent}']",
    ]  # fmt: skip
    assert options_by_name(["strategy=direct"], CONF) == ["strategy=direct"]


def test_everything_wrong_with_the_files_is_said_at_once(option: Path) -> None:
    """Hydra would take conf/strategy/mixed.yaml instead of the user's file of that name, in silence."""
    (option.parent / "mixed.yaml").write_text(CONTENT)
    overrides = [f"strategy={option.parent}/none.yaml", "strategy=/none.yaml"]
    with pytest.raises(ConfigError, match=r"/none.yaml is not a file(?s:.)*=/none.yaml: /none.yaml is not a file"):
        options_by_name(overrides, CONF)
    overrides = [f"strategy={option.parent}/none.yaml", f"erasing={option}", f"strategy={option.parent}/mixed.yaml"]
    with pytest.raises(ConfigError) as caught:
        options_by_name(overrides, CONF)
    lines = str(caught.value).splitlines()
    assert "is not a file" in lines[1] and "folder named 'erasing'" in lines[2] and "has a mixed.yaml" in lines[3]


def test_an_entry_point_takes_the_file(option: Path) -> None:
    """The rewritten command line must reach Hydra, its checks and the members that the file composes."""
    command = [sys.executable, "show.py", f"strategy={option}", "examples=1", "source.size=28"]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "strategy step_by_step" in result.stdout or "strategy direct" in result.stdout
