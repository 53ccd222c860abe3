"""Every config of tasks, instructions and verification builds, and says what the code expects."""

from pathlib import Path

import pytest

from orca2.settings import build, compose_config

CONF = Path(__file__).parents[3] / "conf"
GROUPS = ("tasks", "instructions", "verification")
FILES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
NEEDS = {
    "jsonl": ["++tasks.path=mine.jsonl"],
    "hub": ["++tasks.repo=somebody/something", f"++tasks.revision={'0' * 40}"],
}


def built(group: str, name: str, *overrides: str) -> object:
    return build(compose_config(f"{group}/{name}", [*NEEDS.get(name, []), *overrides])[group])


def test_every_group_has_files() -> None:
    """A moved folder would leave the parametrized tests empty and green."""
    assert {group for group, _ in FILES} == set(GROUPS)


@pytest.mark.parametrize(("group", "name"), FILES)
def test_config_builds_under_its_own_name(group: str, name: str) -> None:
    """A renamed parameter or a wrong target in one of the files."""
    if name == "reasoning_gym":
        pytest.importorskip("reasoning_gym")
    assert built(group, name).name == name  # type: ignore[attr-defined]


def test_the_papers_mix_keeps_its_shares_at_any_size() -> None:
    """Shares that no longer add up to 602 + 55 + 160 + 2 thousand, or that are lost when the size changes."""
    mix = built("tasks", "orca2", "++tasks.size=8190")
    sizes = mix.sizes  # type: ignore[attr-defined]
    flan = ("natural_instructions", "flan_cot", "flan2021", "t0")
    mathematics = ("gsm8k", "aqua_rat", "arithmetic")
    assert sum(sizes[part] for part in flan) == 6020
    assert sum(sizes[part] for part in mathematics) == 1600
    assert sizes["doctor_patient"] == 20
    assert mix.few_shot == sizes["few_shot"] == 550  # type: ignore[attr-defined]
