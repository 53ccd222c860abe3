"""The order of an epoch must be a permutation, differ from epoch to epoch, and look random."""

import numpy as np
import pytest

from orca2.rows.order import Permutation, uniform


@pytest.mark.parametrize("size", [*range(1, 40), 255, 256, 257, 1000, 4096, 65_537])
def test_every_row_once(size):
    """A row that is missing or doubled changes the data set in silence."""
    rows = Permutation(size, seed=17, epoch=0).rows(0, size)
    assert rows.dtype == np.int64
    assert np.array_equal(np.sort(rows), np.arange(size))


def test_blocks_agree_with_the_whole():
    """A resumed run computes the order from another start."""
    order = Permutation(1000, seed=17, epoch=3)
    whole = order.rows(0, 1000)
    assert np.array_equal(np.concatenate([order.rows(0, 1), order.rows(1, 700), order.rows(700, 1000)]), whole)
    assert np.array_equal(order.at(np.array([999, 0, 512])), whole[[999, 0, 512]])


def test_order_is_fixed():
    """The same seed must give the same run on every machine and version."""
    assert Permutation(10, seed=17, epoch=0).rows(0, 10).tolist() == FIXED[0]
    assert Permutation(10, seed=17, epoch=1).rows(0, 10).tolist() == FIXED[1]


FIXED = (
    [3, 6, 8, 2, 1, 9, 7, 0, 4, 5],
    [9, 1, 4, 8, 5, 6, 2, 3, 0, 7],
)


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 18}])
def test_another_epoch_or_seed_is_another_order(other):
    """Equal epochs would show the same neighbours again and again."""
    named = {"seed": 17, "epoch": 0}
    first = Permutation(10_000, **named).rows(0, 10_000)
    second = Permutation(10_000, **named | other).rows(0, 10_000)
    assert (first == second).sum() < 10  # 1 expected by chance


@pytest.mark.parametrize("size", [5, 60, 7473])
def test_positions_are_spread_evenly(size):
    """A biased order would show some rows early in every epoch. Chi-square over quarters, 200 epochs."""
    tracked = size // 2
    quarters = np.zeros(min(4, size), dtype=int)
    for epoch in range(200):
        position = int(np.flatnonzero(Permutation(size, seed=1, epoch=epoch).rows(0, size) == tracked)[0])
        quarters[position * len(quarters) // size] += 1
    shares = np.bincount(np.arange(size) * len(quarters) // size) / size
    chi_square = (((quarters - 200 * shares) ** 2) / (200 * shares)).sum()
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


def test_neighbours_are_independent():
    """A stride or a run of consecutive rows would put rows of one document into one pack."""
    rows = Permutation(100_000, seed=2, epoch=0).rows(0, 100_000)
    correlation = np.corrcoef(rows[:-1], rows[1:])[0, 1]
    assert abs(correlation) < 0.02
    assert (np.abs(np.diff(rows)) == 1).sum() < 20  # 2 expected


def test_uniform_is_a_fixed_number():
    """Mixtures are interleaved by these numbers; they must not change between versions."""
    values = [uniform(1, 0, "a", counter) for counter in range(1000)]
    assert all(0 <= value < 1 for value in values)
    assert 0.45 < sum(values) / 1000 < 0.55
    assert uniform(1, 0, "a", 0) != uniform(1, 0, "b", 0) != uniform(1, 1, "b", 0)
