"""Interleaving by weight: exact counts, the right shares everywhere, any position at once."""

from collections import Counter

import numpy as np
import pytest

from orca2.data.mixture import Mixture
from orca2.errors import ConfigError, DataError


@pytest.fixture
def make(lengths_source):
    def make(sizes, when_exhausted="continue", weights=None, rows=None):
        members = {key: lengths_source((5,) * size, name=key) for key, size in sizes.items()}
        return Mixture(name="m", members=members, when_exhausted=when_exhausted, weights=weights, rows=rows)

    return make


def ids(mixture, direct, epoch=0, seed=1):
    rows = mixture.order(seed, epoch).rows(0, mixture.size)
    return [mixture.read(row, direct).id for row in rows.tolist()]


@pytest.mark.parametrize("weights", [None, {"a": 4, "b": 1}, {"a": 1, "b": 1000}])
def test_continue_gives_everything_once(make, direct, weights):
    """The default must keep the promise of every example exactly once per epoch."""
    mixture = make({"a": 100, "b": 37}, weights=weights)
    for epoch in (0, 1):
        seen = ids(mixture, direct, epoch)
        assert sorted(seen) == sorted([f"a/{row}" for row in range(100)] + [f"b/{row}" for row in range(37)])
    assert ids(mixture, direct, 0) != ids(mixture, direct, 1)


def test_shares_hold_from_the_start(make, direct):
    """A weight must mean the same in the first thousand rows as in the last."""
    mixture = make({"a": 4000, "b": 1000}, weights={"a": 4, "b": 1})
    rows = mixture.order(1, 0).rows(0, 5000)
    shares = [(rows[begin : begin + 500] < 4000).mean() for begin in range(0, 5000, 500)]
    assert all(abs(share - 0.8) < 0.02 for share in shares)


def test_continue_uses_up_the_heavy_member_first(make, direct):
    """The weights say how fast each is used up, not how much of it."""
    seen = ids(make({"a": 100, "b": 100}, weights={"a": 3, "b": 1}), direct)
    assert Counter(identity[0] for identity in seen[:120])["a"] == pytest.approx(90, abs=3)
    assert {identity[0] for identity in seen[140:]} == {"b"}


def test_stop_ends_with_the_first_member(make, direct):
    """The rest of the longer member comes in other epochs, in another order."""
    mixture = make({"a": 100, "b": 10}, "stop", {"a": 2, "b": 1})
    assert mixture.size == 30
    first, second = ids(mixture, direct, 0), ids(mixture, direct, 1)
    assert Counter(identity[0] for identity in first) == {"a": 20, "b": 10}
    assert len(set(first)) == 30
    assert {identity for identity in first if identity[0] == "a"} != {i for i in second if i[0] == "a"}


def test_repeat_starts_over_until_the_longest_is_seen(make, direct):
    """Each lap of the short member is whole, and in another order."""
    mixture = make({"a": 90, "b": 10}, "repeat", {"a": 3, "b": 1})
    assert mixture.size == 120
    seen = ids(mixture, direct)
    counts = Counter(seen)
    assert {count for identity, count in counts.items() if identity[0] == "a"} == {1}
    assert {count for identity, count in counts.items() if identity[0] == "b"} == {3}
    laps = [identity for identity in seen if identity[0] == "b"]
    assert sorted(laps[:10]) == sorted(laps[10:20])
    assert laps[:10] != laps[10:20]


@pytest.mark.parametrize("mode", ["continue", "stop", "repeat"])
def test_any_position_without_walking_there(make, mode):
    """A resume in the middle of an epoch must continue the same interleaving."""
    mixture = make({"a": 300, "b": 70, "c": 11}, mode, {"a": 2, "b": 1.5, "c": 0.3})
    order = mixture.order(5, 2)
    whole = order.rows(0, mixture.size)
    for start in (0, 1, 17, mixture.size // 2, mixture.size - 1):
        assert np.array_equal(order.rows(start, min(start + 40, mixture.size)), whole[start : start + 40])
    some = np.array([mixture.size - 1, 3, 100])
    assert np.array_equal(order.at(some), whole[some])


def test_mixture_streams_and_resumes(make, make_loader, packs_of):
    """A mixture is a source like any other: all rows settled, and the same packs after a resume."""
    mixture = make({"a": 60, "b": 25}, weights={"a": 1, "b": 2})
    loader = make_loader(mixture, lanes=2)
    steps = list(loader)
    assert sum(step.rows for step in steps) == 170
    rest = list(make_loader(mixture, lanes=2, state=loader.state_after(steps[4])))
    assert [packs_of(step) for step in rest] == [packs_of(step) for step in steps[5:]]


def test_survey_adds_up(make, direct):
    """What is left out is shown for the whole mixture."""
    assert make({"a": 7, "b": 5}).survey(direct).kept == 12


@pytest.mark.parametrize(
    ("sizes", "mode", "weights", "message"),
    [
        ({}, "continue", None, "has no members"),
        ({"a": 3}, "cycle", None, r"when_exhausted='cycle'; allowed are \['continue', 'stop', 'repeat', 'first'\]"),
        ({"a": 3}, "stop", {"b": 1}, r"weights are given for \['b'\], members are \['a'\]"),
        ({"a": 3}, "stop", {"a": 0}, "must be above 0"),
    ],
)
def test_wrong_settings_are_refused(make, sizes, mode, weights, message):
    """Before any member is read."""
    with pytest.raises(ConfigError, match=message):
        make(sizes, mode, weights)


def test_members_need_their_own_names(lengths_source):
    """Two members of one name would share ids, and their random numbers."""
    member = lengths_source((5,))
    with pytest.raises(ConfigError, match=r"share the names \['lengths'\]"):
        Mixture(name="m", members={"a": member, "b": member}, when_exhausted="continue")


def test_empty_member_is_named(make):
    """An empty file is a mistake, not a member."""
    with pytest.raises(DataError, match="member 'b' has no rows"):
        make({"a": 3, "b": 0}).prepare()


def test_first_takes_the_first_member_once_and_the_others_beside_it(make, direct):
    """Replay: what is replayed must neither end the epoch nor prolong it, however long it is itself."""
    mixture = make({"own": 100, "long": 1000, "short": 3}, "first", {"own": 1, "long": 0.2, "short": 0.05})
    assert mixture.size == 125
    seen = Counter(ids(mixture, direct))
    assert Counter(identity.split("/")[0] for identity in seen.elements()) == {"own": 100, "long": 20, "short": 5}
    assert [seen[f"own/{row}"] for row in range(100)] == [1] * 100
    assert sorted(seen[f"short/{row}"] for row in range(3)) == [1, 2, 2]


def test_rows_cap_an_epoch_whatever_the_sizes(make, direct):
    """A mixture of millions of rows is taken in part, by its rates, and another part in each epoch."""
    mixture = make({"a": 1000, "b": 4}, "repeat", {"a": 3, "b": 1}, rows=40)
    assert mixture.size == 40
    assert Counter(identity[0] for identity in ids(mixture, direct)) == {"a": 30, "b": 10}
    assert set(ids(mixture, direct, 0)) != set(ids(mixture, direct, 1))
    for when_exhausted, rows in (("stop", 40), ("repeat", 0)):
        with pytest.raises(ConfigError, match="rows="):
            make({"a": 10}, when_exhausted, rows=rows)
