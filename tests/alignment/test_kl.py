"""Divergence: three estimators that are not interchangeable, the exact one, and the coefficient that follows it."""

import math

import pytest
import torch
from torch import Tensor

from minigpt.alignment.kl import adapted_coefficient, exact_kl, k1, k2, k3, ratio_weighted_k3
from minigpt.alignment.logprobs import log_distribution

DRAW = torch.Generator().manual_seed(1)
POLICY, OLD, REFERENCE = torch.randn(3, 9, generator=DRAW, dtype=torch.float64)


def mean_over(weights: Tensor, values: Tensor) -> Tensor:
    return (weights.exp() * values).sum()


def test_one_token_by_hand():
    """π = 1/2, π_ref = 1/4: d = -ln 2. k1 = ln 2, k2 = (ln 2)² / 2, k3 = 1/2 - 1 + ln 2   (Schulman 2020)"""
    p, q = torch.tensor(0.5, dtype=torch.float64).log(), torch.tensor(0.25, dtype=torch.float64).log()
    found = [k(p, q).item() for k in (k1, k2, k3)]
    assert found == pytest.approx([math.log(2), math.log(2) ** 2 / 2, math.log(2) - 0.5])


def test_k1_and_k3_are_the_divergence_in_the_mean_and_k2_is_not():
    """Over the whole vocabulary, weighted by the policy: no luck is involved."""
    p, q = log_distribution(POLICY), log_distribution(REFERENCE)
    exact = exact_kl(POLICY, REFERENCE)
    torch.testing.assert_close(mean_over(p, k1(p, q)), exact)
    torch.testing.assert_close(mean_over(p, k3(p, q)), exact)
    assert abs(mean_over(p, k2(p, q)) - exact) > 0.05 * exact


def test_means_over_draws_come_within_3_standard_errors():
    """As a run sees them: from drawn tokens alone."""
    p, q = log_distribution(POLICY), log_distribution(REFERENCE)
    drawn = torch.multinomial(p.exp(), 20_000, replacement=True, generator=torch.Generator().manual_seed(2))
    for estimator in (k1, k3):
        seen = estimator(p[drawn], q[drawn])
        assert (seen.mean() - exact_kl(POLICY, REFERENCE)).abs() < 3 * seen.std() / math.sqrt(len(seen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k3_is_never_negative(dtype):
    """Not even by a rounding, where the models hardly differ: exp(d) - 1 - d is, there."""
    d = torch.logspace(-12, 1, 20_000, dtype=torch.float64).to(dtype)
    for difference in (d, -d):
        assert (k3(torch.zeros_like(d), difference) >= 0).all()


def test_gradients_in_the_mean_are_of_what_the_table_says():
    """k1 in a loss does nothing at all, k2 pulls as KL(π, π_ref) does, k3 as KL(π_ref, π)."""
    logits = POLICY.clone().requires_grad_()
    p, q = log_distribution(logits), log_distribution(REFERENCE)

    def gradient(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    forward, backward = gradient(exact_kl(logits, REFERENCE)), gradient(exact_kl(REFERENCE, logits))
    here = p.detach()
    torch.testing.assert_close(gradient(mean_over(here, k1(p, q))), torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(gradient(mean_over(here, k2(p, q))), forward)
    torch.testing.assert_close(gradient(mean_over(here, k3(p, q))), backward)
    torch.testing.assert_close(gradient(mean_over(here, ratio_weighted_k3(p, here, q))), forward)


def test_the_ratio_corrects_for_an_older_policy():
    """Drawn from π_old, plain k3 is no longer the divergence of π; weighted it is."""
    p, old, q = (log_distribution(z) for z in (POLICY, OLD, REFERENCE))
    exact = exact_kl(POLICY, REFERENCE)
    torch.testing.assert_close(mean_over(old, ratio_weighted_k3(p, old, q)), exact)
    assert abs(mean_over(old, k3(p, q)) - exact) > 0.05 * exact
    torch.testing.assert_close(ratio_weighted_k3(p, p, q), k3(p, q))


def test_the_exact_divergence_is_at_the_samplings_temperature():
    """π at 0.7 is another policy than π at 1."""
    torch.testing.assert_close(exact_kl(POLICY, REFERENCE, temperature=0.7), exact_kl(POLICY / 0.7, REFERENCE / 0.7))
    assert exact_kl(POLICY, POLICY, temperature=0.7) == 0


def test_the_coefficient_by_hand():
    """0.1 · (1 + 0.1 · 0.1) for 10 % above the target; never more than a fifth counts   (Ziegler et al. 2019, 2.2)"""
    assert adapted_coefficient(0.1, 5.5, target=5.0) == pytest.approx(0.101)
    assert adapted_coefficient(0.1, 500.0, target=5.0) == pytest.approx(0.102)
    assert adapted_coefficient(0.1, 0.0, target=5.0) == pytest.approx(0.098)


@pytest.mark.parametrize("first", [0.001, 0.2, 5.0])
def test_the_coefficient_finds_its_target(first):
    """On a policy that strays the less, the dearer it is."""
    coefficient = first
    for _ in range(1000):
        kl = 0.3 / coefficient
        coefficient = adapted_coefficient(coefficient, kl, target=0.5)
    assert kl == pytest.approx(0.5, rel=0.01)


def test_no_divergence_cannot_be_aimed_at():
    """The error is relative to the target."""
    with pytest.raises(ValueError, match="above 0"):
        adapted_coefficient(0.1, 1.0, target=0.0)
