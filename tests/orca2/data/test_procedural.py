"""Generated rows: a pure function of the row, answered under the strategy that the choice assigns."""

import pickle
from collections import Counter

import pytest

from orca2.data.procedural import ProceduralSource
from orca2.errors import ConfigError, DataError
from orca2.records import Example
from orca2.rows.source import survey
from orca2.strategies import Strategy, StrategyMixture
from orca2.tasks.catalogue import families


def make(**changes):
    named = {"name": "p", "size": 60, "seed": 17, "split": "train", "level": 1}
    return ProceduralSource(**named | changes)


def test_rows_go_round_the_families(direct):
    """A family that is rarer than configured changes what the student learns."""
    rows = [make(size=6, families={"addition": 1, "sorting": 0.5}).read(row, direct) for row in range(6)]
    assert [row.task for row in rows] == ["addition", "addition", "sorting"] * 2
    shares = {name: family.share for name, family in families().items()}
    assert set(shares.values()) == {1, 2}
    everything = make(size=2 * sum(shares.values()))
    tasks = Counter(everything.read(row, direct).task for row in range(everything.size))
    assert tasks == {name: 2 * share for name, share in shares.items()}


def test_a_row_is_an_example_of_its_strategy(direct):
    """The instruction is the teacher's; erasing it is not the source's business."""
    row = make(families={"addition": 1}).read(7, direct)
    assert isinstance(row, Example)
    assert (row.id, row.source, row.teacher, row.strategy) == ("p/7", "p", "rule", "direct")
    assert row.system == "Answer at once."
    assert row.answer == f"Answer: {row.gold}"
    assert row == make(families={"addition": 1}, size=99).read(7, direct)


def test_a_mixture_follows_the_families(direct):
    """`strategy=mixed` must give each family the strategy that it suggests."""
    names = sorted({family.best for family in families().values()} | {"direct"})
    members = {name: Strategy(name=name, instruction=f"Use {name}.") for name in names}
    mixed = StrategyMixture(name="mixed", members=members, by_task={}, default="direct")
    source = make(size=len(families()), families=dict.fromkeys(families(), 1))
    rows = [source.read(row, mixed) for row in range(source.size)]
    assert [row.strategy for row in rows] == [family.best for family in families().values()]


def test_rows_without_the_strategy_are_left_out():
    """A strategy that a family does not offer must not become another one in silence."""
    name = "guess_and_check"
    offering = [family.name for family in families().values() if name in family.strategies]
    assert 0 < len(offering) < len(families())
    source, choice = make(size=2 * len(families())), Strategy(name=name, instruction="x")
    counts = source.survey(choice)
    kinds = Counter(type(source.read(row, choice)).__name__ for row in range(source.size))
    assert counts.kept == 2 * len(offering) == kinds["Example"]
    assert sum(counts.left_out.values()) == kinds["Rejected"]


def test_a_choice_that_leaves_nothing_is_refused():
    """An empty run would end at once and call itself done."""
    source, choice = make(families={"addition": 1}), Strategy(name="unheard_of", instruction="x")
    with pytest.raises(DataError, match=r"leaves no example of source 'p'.*'addition/unheard_of': 60"):
        survey(source, choice)


def test_worker_processes_get_the_same_source(direct):
    """Workers may be started afresh, not forked; families hold functions that cannot be sent."""
    source = make(families={"addition": 1, "sorting": 2})
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert [copy.read(row, direct) for row in range(6)] == [source.read(row, direct) for row in range(6)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size=0; it must be 1 or more"),
        ({"families": {"additon": 1}}, "did you mean 'addition'"),
        ({"families": {"addition": 0}}, "weight 0.0; it must be 0.01 or more"),
        ({"families": {}}, "no task families are named"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    """Before the first row."""
    with pytest.raises(ConfigError, match=message):
        make(**changes)
