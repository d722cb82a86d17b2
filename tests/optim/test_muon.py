"""Muon: the loop twin is the specification, linear algebra the oracle."""

import pytest
import torch
from budget import assert_within_budget
from torch import Tensor, nn

import kernels
from minigpt.optim import muon
from minigpt.optim.muon import Muon, muon_step_, step_scale

SETTINGS = {"beta": 0.95, "weight_decay": 0.1}
SHAPES = {
    "q": (24, 24), "up0": (48, 16), "down0": (16, 48), "k": (24, 24), "up1": (48, 16), "v": (24, 24),
    "thin": (1, 9),
}  # fmt: skip


def made_parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for name, shape in SHAPES.items()
    }


def gradients(step: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in SHAPES.items()
    }


def by_group(steps: int, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    parameters = made_parameters(dtype)
    rule = Muon(parameters, **SETTINGS)
    for step in range(1, steps + 1):
        for name, gradient in gradients(step, dtype).items():
            parameters[name].grad = gradient
        rule.step(step, 0.02)
    return parameters


def by_loop(steps: int, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    parameters = made_parameters(dtype)
    momenta = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for step in range(1, steps + 1):
        for name, gradient in gradients(step, dtype).items():
            muon_step_(parameters[name], gradient, momenta[name], lr=0.02, **SETTINGS)
    return parameters


def test_stacking_equals_one_matrix_at_a_time():
    """Batched products may round differently, never by more than float32 already does."""
    fast, plain, truth = by_group(8), by_loop(8), by_loop(8, torch.float64)
    for name in SHAPES:
        assert_within_budget(fast[name], plain[name], truth[name], slack=1e-5)


def test_equal_shapes_share_a_stack_and_a_stack_has_a_bound(monkeypatch):
    """Few products for many layers, but no more memory at once than TOGETHER numbers."""
    stacks = Muon(made_parameters(), **SETTINGS).stacks
    assert stacks == [["q", "k", "v"], ["up0", "up1"], ["down0"], ["thin"]]
    monkeypatch.setattr(muon, "TOGETHER", 24 * 24 * 2)
    stacks = Muon(made_parameters(), **SETTINGS).stacks
    assert stacks == [["q", "k"], ["v"], ["up0"], ["up1"], ["down0"], ["thin"]]


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 64), (1, 8), (8, 1)])
def test_a_step_has_all_singular_values_in_muons_band(shape):
    """U Vᵀ up to the band that five quintic steps reach, 0.6 to 1.3, scaled by lr and 0.2 sqrt(max(M, N))."""
    generator = torch.Generator().manual_seed(1)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    gradient = u @ torch.diag(torch.logspace(0, -2, min(shape))) @ vt  # singular values 1 to 0.01: (M, N)
    parameter = torch.zeros(shape)
    muon_step_(parameter, gradient, torch.zeros(shape), lr=1.0, beta=0.0, weight_decay=0.0)
    values = torch.linalg.svdvals(parameter / step_scale(parameter.shape))
    assert values.min() > 0.6 and values.max() < 1.3, values


def test_a_step_keeps_the_singular_vectors_of_the_gradient():
    """Uᵀ step V is diagonal: directions stay, only their lengths are evened out."""
    gradient = torch.randn(12, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parameter = torch.zeros(12, 20, dtype=torch.float64)
    muon_step_(parameter, gradient, torch.zeros_like(gradient), lr=1.0, beta=0.0, weight_decay=0.0)
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    inside = -u.T @ parameter @ vt.T  # (12, 12)
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-9)
    assert (inside.diagonal() > 0).all()


def test_a_step_turns_with_the_gradient():
    """Rotating a gradient rotates the step: no coordinate axis is special, unlike in Adam."""
    generator = torch.Generator().manual_seed(3)
    gradient = torch.randn(10, 14, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64)).Q
    steps = []
    for g in (gradient, rotation @ gradient):
        parameter = torch.zeros_like(g)
        muon_step_(parameter, g, torch.zeros_like(g), lr=1.0, beta=0.0, weight_decay=0.0)
        steps.append(parameter)
    torch.testing.assert_close(rotation @ steps[0], steps[1], rtol=0, atol=1e-9)


def test_tall_matrices_step_like_their_transposes():
    """The small product is taken on either side; which one must not show."""
    gradient = torch.randn(40, 8, generator=torch.Generator().manual_seed(4))
    tall, wide = torch.zeros(40, 8), torch.zeros(8, 40)
    muon_step_(tall, gradient, torch.zeros(40, 8), lr=1.0, beta=0.0, weight_decay=0.0)
    muon_step_(wide, gradient.T.contiguous(), torch.zeros(8, 40), lr=1.0, beta=0.0, weight_decay=0.0)
    torch.testing.assert_close(tall.T, wide)


@pytest.mark.parametrize("shape", [(256, 256), (64, 256), (512, 128)])
def test_a_step_is_as_long_as_one_of_adamw(shape):
    """Moonlight's point: root mean square 0.2 per unit of lr, for every shape, so one lr suits both rules."""
    parameter = torch.zeros(shape)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    muon_step_(parameter, gradient, torch.zeros(shape), lr=1.0, beta=0.0, weight_decay=0.0)
    assert parameter.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_the_scale_of_a_square_and_of_a_wide_matrix_by_hand():
    """0.2 · sqrt(100) = 2 and 0.2 · sqrt(max(25, 400)) = 4."""
    assert step_scale(torch.Size((100, 100))) == pytest.approx(2.0)
    assert step_scale(torch.Size((25, 400))) == step_scale(torch.Size((400, 25))) == pytest.approx(4.0)


def test_the_direction_is_nesterovs():
    """Two steps of g1, g2 by hand: m = 0.5·(0.5 g1) + 0.5 g2, d = 0.5 g2 + 0.5 m; the step is along d."""
    generator = torch.Generator().manual_seed(6)
    g1, g2 = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    parameter, momentum = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
    muon_step_(parameter, g1, momentum, lr=1.0, beta=0.5, weight_decay=0.0)
    parameter.zero_()
    muon_step_(parameter, g2, momentum, lr=1.0, beta=0.5, weight_decay=0.0)
    torch.testing.assert_close(momentum, 0.25 * g1 + 0.5 * g2)
    direction = 0.5 * g2 + 0.5 * (0.25 * g1 + 0.5 * g2)
    torch.testing.assert_close(parameter, -0.2 * 6**0.5 * kernels.newton_schulz(direction))


def test_decay_is_decoupled_from_the_step():
    """Weights lose lr · weight_decay of themselves whatever the gradient."""
    decayed, plain = made_parameters(), made_parameters()
    for parameters, decay in ((decayed, 0.1), (plain, 0.0)):
        rule = Muon(parameters, beta=0.9, weight_decay=decay)
        for name, gradient in gradients(1).items():
            parameters[name].grad = gradient
        rule.step(1, lr=0.5)
    for name, start in made_parameters().items():
        torch.testing.assert_close(plain[name] - decayed[name], 0.05 * start, rtol=1e-4, atol=1e-6)


def test_a_matrix_without_gradient_is_left_alone():
    """.grad None: neither moved nor decayed; the others of its stack step as ever."""
    parameters, start = made_parameters(), made_parameters()
    rule = Muon(parameters, **SETTINGS)
    for name, gradient in gradients(1).items():
        parameters[name].grad = None if name in ("k", "thin") else gradient
    rule.step(1, 0.02)
    assert [name for name in SHAPES if torch.equal(parameters[name], start[name])] == ["k", "thin"]
    expected = by_loop(1)
    torch.testing.assert_close(parameters["q"], expected["q"])
    torch.testing.assert_close(parameters["v"], expected["v"])


def test_a_zero_gradient_gives_no_step():
    """0 / 0 inside the normalisation would be NaN for ever."""
    parameter = torch.ones(4, 4)
    muon_step_(parameter, torch.zeros(4, 4), torch.zeros(4, 4), lr=0.1, beta=0.9, weight_decay=0.0)
    assert torch.equal(parameter, torch.ones(4, 4))
