"""Every file in conf/ composes, passes the check and builds. A new file is found by itself."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from orca2.errors import ConfigError
from orca2.settings import build, check, compose_config
from orca2.settings.schemas import SCHEMAS

CONF = Path(__file__).parents[1] / "conf"
OVERLAYS = {"hydra", "debug", "sweeps"}
"""Groups that change other keys instead of being one; they have no `name`."""
ELSEWHERE = {"hydra/launcher", "hydra/sweeper", "stage"}
"""Groups that no root composes by itself; test_sweeps.py and test_curriculum.py hold their files."""
CAN_BUILD = {
    ("tasks", "reasoning_gym"): find_spec("reasoning_gym") is not None,
}
"""Files that refuse some machines."""


def groups_of(root: str) -> set[str]:
    """The groups that can be chosen for a root by `group=option`; nested ones are reached through their parents."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        choices = compose(root, return_hydra_config=True).hydra.runtime.choices
    return {key for key in choices if not key.startswith("hydra/") and "@" not in key}


GROUPS = {root: groups_of(root) for root in SCHEMAS}
OPTIONS = [
    (root, group, file.stem)
    for root, groups in GROUPS.items()
    for group in sorted(groups)
    for file in sorted((CONF / group).glob("*.yaml"))
]


def test_every_root_has_a_schema() -> None:
    """A root without one would accept any key."""
    assert {file.stem for file in CONF.glob("*.yaml")} == set(SCHEMAS)


def test_every_group_is_reached() -> None:
    """A folder that no root composes is dead, or its files are tested by nobody."""
    folders = {str(file.parent.relative_to(CONF)) for file in CONF.glob("*/**/*.yaml")} - ELSEWHERE
    assert folders == set().union(*GROUPS.values())
    assert {group for _, group, _ in OPTIONS} == folders
    assert len(OPTIONS) > len(folders)


@pytest.mark.parametrize("root", SCHEMAS)
def test_root_is_complete(root: str) -> None:
    """The plain command of each entry point must run as it is."""
    check(compose_config(root))


@pytest.mark.parametrize(("root", "group", "option"), OPTIONS)
def test_option(root: str, group: str, option: str) -> None:
    """A file that cannot be chosen from the command line is found here, not by a user."""
    cfg = compose_config(root, [f"{group}={option}"])
    try:
        check(cfg)
    except ConfigError as error:
        # Other nodes are other cases; values that only a user can give, such as a file's path, are `???`.
        own = [line for line in str(error).split("\n") if line.startswith(f"  - {group}.") or group in OVERLAYS]
        assert all(": has no value; give one with " in line for line in own), "\n".join(own)
        if own:
            return
    if group in OVERLAYS or not CAN_BUILD.get((group, option), True):
        return
    built = build(cfg[group])
    assert getattr(built, "name", None) == option


FILES = sorted(CONF.glob("*/**/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_file_keeps_the_rules(file: Path) -> None:
    """One target at most, at the top; a name like the file's; mappings, because a list cannot be merged."""
    content = yaml.safe_load(file.read_text())
    group = file.relative_to(CONF).parts[0]
    text = file.read_text()
    assert text.count("_target_:") <= (2 if group == "hydra" else 1)  # an Optuna sampler stands inside its sweeper
    assert "${now:" not in text and ("${hydra:" not in text or group == "hydra")
    if group in OVERLAYS:
        return
    assert content["name"] == file.stem
    assert list(content)[:3] in (
        ["defaults", "_target_", "name"],
        ["_target_", "name", *list(content)[2:3]],
        ["name", *list(content)[1:3]],
        ["defaults", "name", *list(content)[2:3]],
    )
    assert _keys_of_lists({**content, "defaults": None}) == []


def _keys_of_lists(node: object, path: str = "") -> list[str]:
    if isinstance(node, list):
        return [path]
    children = node.items() if isinstance(node, dict) else ()
    return [found for key, value in children for found in _keys_of_lists(value, f"{path}.{key}")]
