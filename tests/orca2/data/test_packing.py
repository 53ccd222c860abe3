"""Packs: nothing lost, nothing over the brim, and as full as can be."""

from itertools import combinations, pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orca2.data.lanes import Lane
from orca2.data.packing import Packer, PackingSpec, best_fill
from orca2.data.rendered_rows import Rendered, Row
from orca2.errors import ConfigError


def pack_all(lengths, capacity, waiting):
    """Packs of keys 0, 1, 2, ..., and the largest pool that was left after a pack."""
    packer, packs = Packer(capacity, waiting), []
    for key, length in enumerate(lengths):
        packer.add(key, length)
        while (pack := packer.pop()) is not None:
            packs.append(pack)
    while (pack := packer.pop(flush=True)) is not None:
        packs.append(pack)
    return packs


def fullest(lengths, capacity):
    """The largest sum that holds the first length, by trying every subset."""
    others = range(1, len(lengths))
    sums = (
        lengths[0] + sum(lengths[index] for index in chosen)
        for count in range(len(lengths))
        for chosen in combinations(others, count)
    )
    return max(total for total in sums if total <= capacity)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.integers(20, 60))
@settings(max_examples=300, deadline=None)
def test_best_fill_is_as_good_as_trying_everything(lengths, capacity):
    """The bit arithmetic must find the same fill as the naive search."""
    chosen = best_fill(lengths, capacity)
    assert chosen[0] == 0 and chosen == sorted(set(chosen))
    assert sum(lengths[index] for index in chosen) == fullest(lengths, capacity)


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 120), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_and_no_pack_overflows(lengths, capacity, waiting):
    """A lost example is a silent change of the data; an overfull pack does not fit the model."""
    packs = pack_all(lengths, capacity, waiting)
    assert sorted(key for pack in packs for key in pack) == list(range(len(lengths)))
    assert all(sum(lengths[key] for key in pack) <= capacity for pack in packs)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=120), st.data())
@settings(max_examples=100, deadline=None)
def test_a_restored_packer_goes_on_as_before(lengths, data):
    """The state is only who waits; any other memory would break the resume."""
    stop = data.draw(st.integers(0, len(lengths)))
    packer, restored = Packer(64, 5), Packer(64, 5)
    packs, packs_restored = [], []
    for key, length in enumerate(lengths):
        if key == stop:
            packs.clear()
            for waiting in packer.waiting:
                restored.add(waiting, lengths[waiting])
        for each, out in ((packer, packs), (restored, packs_restored)):
            if each is packer or key >= stop:
                each.add(key, length)
                while (pack := each.pop()) is not None:
                    out.append(pack)
    if stop < len(lengths):
        assert packs == packs_restored
        assert packer.waiting == restored.waiting


def test_a_lane_resumes_between_two_packs_that_one_row_closed():
    """The saved pool holds a whole pack then; a row more would change which."""
    lengths = (7, 6, 6, 10, 4, 3, 8, 2)
    rows = [Row((0, at), Rendered(None, np.zeros(n, np.int32), np.ones(n, bool))) for at, n in enumerate(lengths)]

    def packs(state=None):
        lane = Lane(10, 2, state)
        for row in [row for row in rows if row.position in lane.missing or row.position >= lane.next]:
            lane.settle(row)
        lane.finish(1)
        return list(lane.ready)

    whole = packs()
    assert any(one.state["next"] == other.state["next"] != [1, 0] for one, other in pairwise(whole))
    for done, pack in enumerate(whole, start=1):
        assert [one.state for one in packs(pack.state)] == [one.state for one in whole[done:]]


def test_packs_of_a_small_case():
    """The drawing at the head of the module, exactly."""
    packer = Packer(10, 5)
    for key, length in zip("abcde", (6, 7, 3, 5, 1), strict=True):
        assert packer.pop() is None
        packer.add(key, length)
    assert packer.pop() == ["a", "c", "e"]
    assert packer.waiting == ["b", "d"]
    assert packer.pop() is None
    assert [packer.pop(flush=True) for _ in range(3)] == [["b"], ["d"], None]


def test_the_longest_waiting_is_preferred():
    """The fill with older examples wins among equal ones, so that none waits longer than needed."""
    assert best_fill([4, 3, 3, 3], 7) == [0, 1]
    assert best_fill([4, 1, 2, 3], 7) == [0, 1, 2]


def test_an_awkward_example_leaves_when_it_is_the_oldest():
    """An example that fits with nothing must not wait forever."""
    packs = pack_all([9] + [5] * 40, capacity=10, waiting=4)
    assert packs[0] == [0]


def test_many_short_examples_wait_until_a_pack_can_be_filled():
    """With a small `waiting` and short examples, packs would otherwise close half empty."""
    packs = pack_all([10] * 1000, capacity=500, waiting=4)
    assert len(packs) == 20


@pytest.mark.parametrize(("key", "value"), [("length", 1), ("waiting", 0), ("lanes", 0)])
def test_impossible_numbers_are_refused(key, value):
    """They would fail later, in a worker."""
    numbers = {"length": 32, "waiting": 4, "lanes": 1} | {key: value}
    with pytest.raises(ConfigError, match=f"{key}={value}; set it to"):
        PackingSpec(name="p", isolate=True, **numbers)


def test_realistic_lengths_fill_98_percent():
    """Log-normal lengths as chat data has them, one epoch, tail included."""
    rng = Random(1)
    lengths = [min(4096, max(20, int(rng.lognormvariate(5.7, 0.8)))) for _ in range(20_000)]
    assert 350 < sum(lengths) / len(lengths) < 450
    packs = pack_all(lengths, capacity=4096, waiting=64)
    assert sum(lengths) / (4096 * len(packs)) >= 0.98
