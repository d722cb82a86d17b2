"""Ranges as one index, every other place, an array to append to."""

import numpy as np

from minigpt.tokenizer.arrays import Growing, every_other, flat_places


def test_flat_places_are_ranges_one_after_the_other():
    """Empty ones among them, and none at all."""
    assert flat_places(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert flat_places(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_runs_are_merged_from_the_left():
    """a a a a a is (aa)(aa)a; what stands apart begins a row of its own."""
    places = np.array([0, 1, 2, 3, 5, 6, 8])
    assert every_other(places, np.diff(places) > 1).tolist() == [0, 2, 5, 8]
    assert every_other(places, np.ones(6, bool)).tolist() == places.tolist()
    assert every_other(places[:0], np.ones(0, bool)).tolist() == []


def test_what_is_appended_stays():
    """Also when the room behind the end is used up, many times over."""
    grown, expected = Growing(np.int32), []
    for n in (0, 1, 1000, 30, 5000):
        grown.append(np.arange(n))
        expected += range(n)
        assert grown.all.tolist() == expected and grown.all.dtype == np.int32
