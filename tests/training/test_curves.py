"""Curves as small pictures: nothing that one looks for is lost, and nothing flattens the rest."""

import re

import numpy as np
import pytest

from minigpt.training import curves
from minigpt.training.curves import NARROW, WIDE, envelope, loss_figure, short, smooth


def test_a_million_steps_make_a_small_figure():
    """One number per step would be a page of 60 MB."""
    steps = np.arange(1.0, 1e6 + 1)
    loss = 3 + 1 / steps + 0.1 * np.sin(steps)
    figure = loss_figure("loss", "a label", WIDE, (steps, loss), {1_000_000: 3.0}, [])
    assert len(figure) < 100_000


def test_the_envelope_loses_no_spike():
    """Thinning by taking every hundredth step would hide just what one looks for."""
    values = np.zeros(100_000)
    values[[77, 50_001, 99_999]] = 9, -5, 7
    at, low, high = envelope(values)
    assert sorted(high[high > 0]) == [7, 9] and low[low < 0] == [-5]
    assert len(at) == curves.MOST_POINTS and at[0] < 100_000 / curves.MOST_POINTS and at[-1] > 99_000


def test_smoothing_by_hand():
    """Of 80 steps, two neighbours on either side count; at the start as many as there are on both sides."""
    values = np.arange(80.0) ** 2
    values[41] = np.nan
    mean = smooth(values)
    np.testing.assert_allclose(mean[[0, 1, 10]], [0, (0 + 1 + 4) / 3, (64 + 81 + 100 + 121 + 144) / 5])
    np.testing.assert_allclose(mean[40], (38**2 + 39**2 + 40**2 + 42**2) / 4)
    np.testing.assert_allclose(mean[79], (77**2 + 78**2 + 79**2) / 3)
    assert np.isnan(smooth(np.full(5, np.nan))).all()


@pytest.mark.parametrize(
    ("value", "text"), [(0.004, "0.004"), (9000, "9000"), (12_000, "12k"), (1.5e6, "1.5M"), (2e9, "2G")]
)
def test_numbers_on_an_axis_are_short(value, text):
    """Labels must fit into 40 pixels."""
    assert short(value) == text


def test_one_step_that_shoots_up_does_not_flatten_the_rest():
    """The picture fits what is smooth: with the spike inside, everything else would be one flat line."""
    steps, loss = np.arange(1.0, 401), np.linspace(4, 3, 400)
    calm = tick_labels(loss_figure("loss", "a label", NARROW, (steps, loss), {}, []))
    loss[200] = 8.0
    assert tick_labels(loss_figure("loss", "a label", NARROW, (steps, loss), {}, [])) == calm


def test_the_first_fall_leaves_the_picture_only_where_that_pays():
    """From ln 4096 = 8.3 a loss falls to 4 in no time; drawn whole, all that comes later would be flat."""
    steps = np.arange(1.0, 401)
    fast, slow = 3 + 5.3 * np.exp(-steps / 10), 3 + 5.3 * np.exp(-steps / 300)
    assert "6" not in tick_labels(loss_figure("loss", "a label", NARROW, (steps, fast), {}, []))
    assert "8" in tick_labels(loss_figure("loss", "a label", NARROW, (steps, slow), {}, []))


def tick_labels(figure: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", figure)
