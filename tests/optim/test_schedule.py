"""The learning rate, step by step."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.optim.config import OptimConfig
from minigpt.optim.schedule import constant_lr, cosine_lr, linear_lr, lr_at, trapezoid_lr

FALLING = {"cosine": cosine_lr, "linear": linear_lr, "trapezoid": trapezoid_lr}


@st.composite
def runs(draw):
    """(schedule, settings) with a warmup that ends within the run."""
    max_steps = draw(st.integers(2, 400))
    lr = draw(st.floats(1e-5, 1.0))
    settings = {
        "lr": lr, "min_lr": lr * draw(st.floats(0.0, 1.0)),
        "warmup_steps": draw(st.integers(0, max_steps - 1)), "max_steps": max_steps,
    }  # fmt: skip
    return FALLING[draw(st.sampled_from(sorted(FALLING)))], settings


@given(runs())
def test_every_step_taken_has_a_rate_above_zero_and_at_most_lr(run):
    """A step of rate 0 is a wasted batch; above lr is not what was asked for."""
    schedule, settings = run
    rates = [schedule(step, **settings) for step in range(settings["max_steps"])]
    assert all(0 < rate <= settings["lr"] * (1 + 1e-12) for rate in rates)


@given(runs())
def test_the_rate_rises_to_lr_and_then_only_falls(run):
    """Two monotone parts that meet at lr: a dip or a second hump would be a bug in the joint."""
    schedule, settings = run
    top = settings["warmup_steps"]
    rates = [schedule(step, **settings) for step in range(settings["max_steps"] + 1)]
    tiny = settings["lr"] * 1e-12
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert rates[top] == pytest.approx(settings["lr"])
    assert all(a >= b - tiny for a, b in pairwise(rates[top:]))


@given(runs())
def test_the_rate_is_min_lr_from_the_first_step_not_taken_on(run):
    """A run that is asked for one step more than planned must not see a rate below the floor."""
    schedule, settings = run
    for beyond in (0, 1, 1000):
        assert schedule(settings["max_steps"] + beyond, **settings) == settings["min_lr"]


@given(runs())
def test_the_rate_has_no_jumps(run):
    """No two neighbours differ by more than the steepest part of each schedule allows."""
    schedule, settings = run
    warmup, max_steps, lr = settings["warmup_steps"], settings["max_steps"], settings["lr"]
    shortest_fall = max_steps - warmup
    if schedule is trapezoid_lr:
        shortest_fall = min(shortest_fall, max_steps - int(max_steps * 0.8))
    steepest = max(lr / (warmup + 1), lr * math.pi / 2 / max(1, shortest_fall))
    rates = [schedule(step, **settings) for step in range(max_steps + 1)]
    assert all(abs(a - b) <= steepest * (1 + 1e-9) for a, b in pairwise(rates))


def test_ten_steps_worked_by_hand():
    """Warmup 1/4, 2/4, 3/4 of lr; then lr at step 3, half way down at step 5, the end at step 7."""
    settings = {"lr": 1.0, "min_lr": 0.2, "warmup_steps": 3, "max_steps": 7}
    cosine = [cosine_lr(step, **settings) for step in (0, 1, 2, 3, 5, 7)]
    assert cosine == pytest.approx([0.25, 0.5, 0.75, 1, 0.6, 0.2])
    linear = [linear_lr(step, **settings) for step in (0, 3, 4, 5, 6, 7)]
    assert linear == pytest.approx([0.25, 1, 0.8, 0.6, 0.4, 0.2])
    assert cosine_lr(4, **settings) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


def test_a_trapezoid_is_flat_until_its_last_fifth():
    """Warmup, flat, then straight down: 100 steps with decay over the last 20."""
    rates = [trapezoid_lr(step, lr=1.0, min_lr=0.0, warmup_steps=10, max_steps=100) for step in range(101)]
    assert set(rates[10:81]) == {1.0}
    assert rates[90] == pytest.approx(0.5)
    assert rates[81] - rates[82] == pytest.approx(rates[98] - rates[99]) == pytest.approx(0.05)


def test_the_flat_part_of_a_trapezoid_does_not_know_the_end():
    """So a finished run can be made longer from a checkpoint before its decay; a cosine cannot."""
    short, long = ([trapezoid_lr(step, lr=1.0, min_lr=0.0, warmup_steps=5, max_steps=n) for step in range(80)]
                   for n in (100, 1000))  # fmt: skip
    assert short == long


def test_a_constant_rate_is_constant_after_its_warmup():
    """Fine-tuning in a few hundred steps often wants no decay at all."""
    assert [constant_lr(step, lr=2.0, warmup_steps=1) for step in (0, 1, 2, 10**9)] == [1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("name", ["cosine", "linear", "trapezoid", "constant"])
def test_lr_at_asks_the_schedule_that_the_config_names(name):
    """The loop knows only `lr_at`: each name must reach its own function, with min_lr as a share of lr."""
    config = OptimConfig(schedule=name, lr=0.5, min_lr_ratio=0.1, warmup_steps=4)
    rates = [lr_at(step, config, 50) for step in range(51)]
    settings = {"lr": 0.5, "min_lr": 0.05, "warmup_steps": 4, "max_steps": 50}
    if name == "constant":
        assert rates == [constant_lr(step, lr=0.5, warmup_steps=4) for step in range(51)]
    else:
        assert rates == pytest.approx([FALLING[name](step, **settings) for step in range(51)])


def test_a_warmup_takes_at_most_half_of_the_run():
    """`--max-steps 20` on a preset with 100 steps of warmup is a trial, and should reach the rate it tries."""
    config = OptimConfig(lr=1.0, warmup_steps=100)
    rates = [lr_at(step, config, max_steps=20) for step in range(20)]
    assert max(rates) == rates[10] == 1.0
    assert rates == [lr_at(step, OptimConfig(lr=1.0, warmup_steps=10), max_steps=20) for step in range(20)]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"lr": 0.0}, "--lr 0.0: needs a finite number above 0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"lr": float("inf")}, "--lr inf"),
        ({"beta1": 1.0}, "--beta1 1.0: needs at least 0 and less than 1"),
        ({"beta2": -0.1}, "--beta2"),
        ({"muon_momentum": 1.5}, "--muon-momentum"),
        ({"adam_eps": 0.0}, "--adam-eps"),
        ({"min_lr_ratio": 2.0}, "--min-lr-ratio 2.0: is a share"),
        ({"weight_decay": -0.1}, "--weight-decay"),
        ({"weight_decay": 10.0, "lr": 1.0}, "--weight-decay 10.0 with --lr 1.0"),
        ({"warmup_steps": -1}, "--warmup-steps"),
        ({"clip_norm": 0.0}, "--clip-norm 0.0: needs a number above 0; inf never shortens"),
        ({"clip_norm": float("nan")}, "--clip-norm"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_flag(setting, complaint):
    """One line that names the flag, the number and what would work, before any data is read."""
    with pytest.raises(ValueError, match="(?s)" + complaint.replace("(", r"\(")):
        OptimConfig(**setting)
