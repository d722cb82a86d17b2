"""An order that is computed, not stored."""

from math import isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.batches.shuffle import ROUNDS, round_keys, scramble, shuffled


def order(n: int, seed: int, epoch: int = 0) -> list[int]:
    return shuffled(np.arange(n), n, round_keys(seed, epoch)).tolist()


def slowly(index: int, n: int, keys: np.ndarray) -> int:
    """The same cipher on Python's own integers, one number at a time."""
    base = isqrt(n) + (isqrt(n) ** 2 < n)
    while True:
        left, right = divmod(index, base)
        for key in map(int, keys[:ROUNDS]):
            x = right ^ key
            x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
            left, right = right, (left + (x ^ x >> 31) % base) % base
        index = left * base + right
        if index < n:
            return index


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 9))
def test_every_window_comes_up_once(n, seed, epoch):
    """Whatever the number of windows: a permutation, no more and no less."""
    assert sorted(order(n, seed, epoch)) == list(range(n))


@given(st.integers(1, 10**15), st.integers(0, 99), st.data())
def test_it_equals_its_slow_twin(n, seed, data):
    """Also far beyond what could be listed: a quadrillion windows need no memory."""
    index = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
    keys = round_keys(seed, 0)
    assert shuffled(np.array(index), n, keys).tolist() == [slowly(one, n, keys) for one in index]


def test_the_scrambler_is_splitmix64():
    """Its published first output for seed 0: the finaliser of the golden ratio 2^64 / phi."""
    assert scramble(np.array([0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_golden_order():
    """Written down once: if it changes, no run from before can be resumed exactly."""
    assert order(10, seed=1) == [2, 7, 4, 3, 6, 8, 5, 9, 1, 0]


def test_seeds_and_epochs_give_different_orders():
    """Otherwise every epoch would present the same neighbours."""
    orders = {tuple(order(50, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


@pytest.mark.parametrize("n", [7, 50])
def test_the_order_looks_like_chance(n):
    """Each window takes each place equally often: chi-square over 4,000 seeds, 6 standard deviations."""
    counts = np.zeros((n, n))
    for seed in range(4000):
        counts[np.arange(n), order(n, seed)] += 1
    expected = 4000 / n
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (n - 1) ** 2
    assert abs(chi_square - freedom) < 6 * (2 * freedom) ** 0.5


def test_neighbours_are_torn_apart():
    """A shuffle that only turns or mirrors the list would pass the test above."""
    steps = np.diff(order(10_000, seed=3))
    assert (np.abs(steps) < 100).mean() < 0.03  # chance: 2 %
    assert len(np.unique(steps)) > 5000
