"""Shortening a gradient that is too long."""

import math

import pytest
import torch

from minigpt.optim.clip import clip_, global_norm


def parameters(seed: int = 0, scale: float = 1.0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 5), (7,), (2, 2, 2))]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    return made


def test_the_global_norm_is_the_length_of_one_long_vector():
    """3, 4 and 12 in three tensors: sqrt(9 + 16 + 144) = 13."""
    assert global_norm([torch.tensor([3.0]), torch.tensor([[4.0]]), torch.tensor([0.0, 12.0])]) == 13.0
    assert global_norm([]) == 0.0


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 100.0])
def test_clipping_equals_torch(max_norm):
    """torch divides by norm + 1e-6, we by the norm itself: equal but for that."""
    ours, theirs = parameters(), parameters()
    before = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(clip_(ours, max_norm), before)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=2e-5, atol=0)


def test_a_clipped_gradient_keeps_its_direction_and_has_the_length_allowed():
    """One factor for all tensors; a factor per tensor would turn the step."""
    clipped, before = parameters(scale=50.0), parameters(scale=50.0)
    clip_(clipped, 1.0)
    gradients = torch.cat([p.grad.flatten() for p in clipped])
    original = torch.cat([p.grad.flatten() for p in before])
    assert gradients.norm().item() == pytest.approx(1.0)
    assert torch.cosine_similarity(gradients, original, dim=0).item() == pytest.approx(1.0)


def test_a_short_gradient_is_left_to_the_last_bit():
    """Also by a limit of inf, which is how clipping is switched off."""
    for max_norm in (1e4, math.inf):
        kept, before = parameters(), parameters()
        clip_(kept, max_norm)
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(kept, before, strict=True))


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_is_left_alone_and_told(poison):
    """Scaling would spread it: inf · 0 is NaN, x · 1/inf is 0. The loop sees the norm and skips the step."""
    kept, before = parameters(), parameters()
    kept[1].grad[3] = poison
    norm = clip_(kept, 1.0)
    assert not torch.isfinite(norm)
    assert torch.equal(kept[0].grad, before[0].grad) and torch.equal(kept[2].grad, before[2].grad)


def test_parameters_without_gradient_do_not_count():
    """A frozen or unused layer has .grad None."""
    some = [*parameters(), torch.nn.Parameter(torch.ones(4))]
    torch.testing.assert_close(clip_(some, math.inf), clip_(parameters(), math.inf))
    assert clip_([torch.nn.Parameter(torch.ones(4))], 1.0) == 0.0
