"""AdamW: the loop twin is the specification, torch's own the oracle."""

import copy

import pytest
import torch
from budget import assert_within_budget
from torch import Tensor, nn

from minigpt.optim.adamw import SMALL, AdamW, adamw_step_

SETTINGS = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
SHAPES = {"gain": (16,), "matrix": (80, 60), "bias": (7,), "table": (2 * SMALL + 5, 1), "cube": (2, 3, 4)}


def made_parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for name, shape in SHAPES.items()
    }


def gradients(step: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The same gradients for everybody, of very different sizes, sometimes exactly zero."""
    generator = torch.Generator().manual_seed(step)
    sizes = dict(zip(SHAPES, (1e-6, 1e-2, 1.0, 1e3, 0.0 if step % 3 else 1e-9), strict=True))
    return {
        name: (torch.randn(shape, generator=generator, dtype=torch.float64) * sizes[name]).to(dtype)
        for name, shape in SHAPES.items()
    }


def rates(step: int) -> float:
    return 1e-2 / (1 + step / 50)


def by_group(steps: int, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    parameters = made_parameters(dtype)
    rule = AdamW(parameters, **SETTINGS)
    for step in range(1, steps + 1):
        for name, gradient in gradients(step, dtype).items():
            parameters[name].grad = gradient
        rule.step(step, rates(step))
    return parameters


def by_loop(steps: int, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    parameters = made_parameters(dtype)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
    for step in range(1, steps + 1):
        for name, gradient in gradients(step, dtype).items():
            adamw_step_(parameters[name], gradient, *moments[name], step=step, lr=rates(step), **SETTINGS)
    return parameters


def by_torch(steps: int, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    parameters = made_parameters(dtype)
    optimizer = torch.optim.AdamW(parameters.values(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = rates(step)
        for name, gradient in gradients(step, dtype).items():
            parameters[name].grad = gradient
        optimizer.step()
    return parameters


@pytest.mark.parametrize("path", [by_group, by_loop])
def test_two_hundred_steps_equal_torch_optim_adamw(path):
    """The bar is 1e-6 over 200 steps of the same gradients; in float64 the formulas agree to rounding."""
    for dtype, allowed in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        ours, theirs = path(200, dtype), by_torch(200, dtype)
        for name in SHAPES:
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=allowed)


def test_the_group_strays_no_further_than_its_twin():
    """Gathering small tensors reorders no arithmetic; the float32 paths are judged against float64."""
    fast, plain, truth = by_group(50), by_loop(50), by_loop(50, torch.float64)
    for name in SHAPES:
        assert_within_budget(fast[name], plain[name], truth[name], slack=1e-7)


def test_the_first_step_worked_by_hand():
    """m̂ = g and v̂ = g² at step 1, so each number moves by lr against its sign, after 1 - 0.1 · 0.1."""
    weight, zero = torch.tensor([2.0, -3.0]), torch.zeros(2)
    adamw_step_(weight, torch.tensor([0.5, -40.0]), zero.clone(), zero.clone(), step=1, lr=0.1, **SETTINGS)
    torch.testing.assert_close(weight, torch.tensor([2.0 * 0.99 - 0.1, -3.0 * 0.99 + 0.1]))


def test_decay_does_not_depend_on_the_gradient():
    """Decoupled: weights with gradients a thousandfold apart lose the same share. L2 spares the loud one."""
    decayed, plain = made_parameters(), made_parameters()
    for parameters, decay in ((decayed, 0.1), (plain, 0.0)):
        rule = AdamW(parameters, **{**SETTINGS, "weight_decay": decay})
        for name, gradient in gradients(3).items():
            parameters[name].grad = gradient
        rule.step(1, lr=0.5)
    for name, start in made_parameters().items():
        torch.testing.assert_close(plain[name] - decayed[name], 0.5 * 0.1 * start, rtol=1e-4, atol=1e-6)


def test_the_step_does_not_depend_on_the_scale_of_the_loss():
    """Multiplying every gradient by 1000 changes nothing but the part of eps, a thousandth of lr here."""
    ends = []
    for scale in (1.0, 1000.0):
        parameters = made_parameters(torch.float64)
        rule = AdamW(parameters, **SETTINGS)
        for step in range(1, 6):
            parameters["matrix"].grad = gradients(step, torch.float64)["matrix"] * scale
            rule.step(step, 1e-2)
        ends.append(parameters["matrix"])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-4)


def test_a_parameter_without_gradient_is_left_alone():
    """.grad None: took no part. Neither moved nor decayed, its moments stay; the others must not notice."""
    parameters, all_present = made_parameters(), made_parameters()
    rules = AdamW(parameters, **SETTINGS), AdamW(all_present, **SETTINGS)
    absent = {"bias", "table"}  # a small one and a large one
    for step in (1, 2, 3):
        for name, gradient in gradients(step).items():
            all_present[name].grad = gradient.clone()
            parameters[name].grad = None if name in absent and step != 2 else gradient.clone()
        before = copy.deepcopy(parameters)
        for rule in rules:
            rule.step(step, 1e-2)
        for name in absent:
            assert torch.equal(parameters[name], before[name]) == (step != 2)
    for name in SHAPES.keys() - absent:
        assert torch.equal(parameters[name], all_present[name])


def test_parameters_keep_their_storage():
    """Tied weights, DDP and safetensors hold on to it; gathering must not move it."""
    parameters = made_parameters()
    rule = AdamW(parameters, **SETTINGS)
    before = {name: p.data_ptr() for name, p in parameters.items()}
    for name, gradient in gradients(1).items():
        parameters[name].grad = gradient
    rule.step(1, 1e-2)
    assert before == {name: p.data_ptr() for name, p in parameters.items()}


def test_the_gradients_are_not_changed():
    """DDP may own them, and the loop may still want to look at them."""
    parameters = made_parameters()
    rule = AdamW(parameters, **SETTINGS)
    for name, gradient in gradients(1).items():
        parameters[name].grad = gradient
    rule.step(1, 1e-2)
    assert all(torch.equal(parameters[name].grad, gradient) for name, gradient in gradients(1).items())
