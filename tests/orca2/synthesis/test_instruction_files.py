"""The shipped instructions against what the papers say of theirs, and against the kinds of task that exist."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from orca2.rows.collections.natural_instructions import NaturalInstructions
from orca2.rows.items import TaskItem
from orca2.settings import build, compose_config
from orca2.synthesis.instructions import ExplanationTuning, InstructionLibrary

CONF = Path(__file__).parents[3] / "conf"
SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
NATURAL_INSTRUCTIONS_CATEGORIES = 76
"""Kinds of task that the documentation of Natural Instructions v2 lists."""


def built(file: str) -> Any:
    group = file.partition("/")[0]
    return build(compose_config(file)[group])


@pytest.fixture(scope="module")
def library() -> InstructionLibrary:
    return built("instructions/orca2")  # type: ignore[no-any-return]


def test_each_category_has_its_own_instruction_under_a_known_strategy(library: InstructionLibrary) -> None:
    """Two categories with one text are one category; a label that no strategy file has cannot be selected by."""
    strategies = {path.stem for path in (CONF / "strategy").glob("*.yaml")}
    assert len(library.categories) >= 20
    by_text = defaultdict(list)
    for name, category in library.categories.items():
        assert category["strategy"] in strategies, name
        assert len(category["instruction"].split()) >= 30, name
        by_text[category["instruction"], category.get("check", "")].append(name)
    assert [names for names in by_text.values() if len(names) > 1] == []


def test_story_ordering_has_five_steps(library: InstructionLibrary) -> None:
    """The paper's one printed instruction leads through five steps (arXiv 2311.11045, figure 3)."""
    text = library.categories["story_ordering"]["instruction"]
    assert re.findall(r"Step (\d):", text) == ["1", "2", "3", "4", "5"]


def test_natural_instructions_are_covered(library: InstructionLibrary) -> None:
    """A category of the collection without an entry would fall back to the default in silence."""
    assert len(library.by_category) >= NATURAL_INSTRUCTIONS_CATEGORIES
    folder = SHARED / "tasks/natural_instructions"
    if not folder.is_dir():
        pytest.skip("the shared tasks are not here")
    firsts: dict[str, TaskItem] = {}
    for row in NaturalInstructions(name="natural_instructions", folder=str(folder)).stream():
        if isinstance(row, TaskItem):
            firsts.setdefault(row.task, row)
    assert len(firsts) > 90
    assert sorted({row.category for row in firsts.values() if library.category_of(row) is None}) == []


PUBLISHED = {
    1: 8.82, 2: 8.82, 3: 20.14, 4: 12.28, 5: 8.82, 6: 0.98, 7: 21.10, 8: 6.14,
    9: 0.96, 10: 6.14, 11: 0.98, 12: 0.96, 13: 0.96, 14: 0.96, 15: 0.96, 16: 0.98,
}  # fmt: skip
"""Share of all examples under each of Orca 1's messages, percent, as the OpenOrca project reconstructs them."""


def test_explanation_tuning_reproduces_the_published_shares() -> None:
    """Sixteen messages at the wrong quotas are another data set than Orca 1's."""
    tuning: ExplanationTuning = built("instructions/orca1")
    quotas = {part: share for part, share in built("tasks/orca1").shares.items() if share}
    assert len(tuning.messages) == 16 and sum(quotas.values()) == 5090
    percent: defaultdict[str, float] = defaultdict(float)
    for part, quota in quotas.items():
        weights = tuning.weights[part]
        for message, weight in weights.items():
            percent[message] += 100 * quota / sum(quotas.values()) * weight / sum(weights.values())
    assert {int(name.removeprefix("orca1_")): pytest.approx(value, abs=0.011) for name, value in percent.items()} == (
        PUBLISHED
    )
    assert set(tuning.choice_only) == {"orca1_08", "orca1_10"}
