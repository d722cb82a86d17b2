"""Pairs: where the losses begin, which way they pull, and what noise in the labels does to them."""

import math
from functools import partial

import pytest
import torch

from minigpt.alignment.preference_losses import (
    conservative_dpo_loss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    preference_margin,
    reward_loss,
    robust_dpo_loss,
)

LOSSES = {
    "dpo": partial(dpo_loss, beta=0.1),
    "conservative": partial(conservative_dpo_loss, beta=0.1, label_smoothing=0.1),
    "robust": partial(robust_dpo_loss, beta=0.1, label_smoothing=0.1),
    "hinge": partial(hinge_loss, beta=0.1),
    "ipo": partial(ipo_loss, beta=0.1),
}
MARGINS = torch.tensor([-3.0, -0.5, 0.0, 0.7, 4.0], dtype=torch.float64)


@pytest.mark.parametrize("kind", ["dpo", "conservative", "robust"])
def test_dpo_begins_at_log_two(kind):
    """Policy equals reference at step 0, so each pair costs -log sigmoid(0), whatever the noise."""
    same = torch.tensor([-12.5, -3.0])
    margin = preference_margin(chosen=same, rejected=same - 1, ref_chosen=same, ref_rejected=same - 1)
    torch.testing.assert_close(LOSSES[kind](margin), torch.full((2,), math.log(2.0)))


@pytest.mark.parametrize("kind", LOSSES)
def test_a_likelier_chosen_answer_costs_less(kind):
    """Swapped sides train as smoothly, towards the answer nobody wanted."""
    sides = {name: torch.full((2,), -5.0, requires_grad=True) for name in ("chosen", "rejected")}
    reference = {"ref_chosen": torch.tensor([-4.0, -6.0]), "ref_rejected": torch.tensor([-5.0, -5.5])}
    LOSSES[kind](preference_margin(**sides, **reference)).sum().backward()
    assert (sides["chosen"].grad < 0).all()
    assert (sides["rejected"].grad > 0).all()


def test_the_margin_by_hand():
    """(-3 + 5) - (-4 + 4.5) = 1.5"""
    sides = {"chosen": -3.0, "rejected": -4.0, "ref_chosen": -5.0, "ref_rejected": -4.5}
    assert preference_margin(**{name: torch.tensor([x]) for name, x in sides.items()}).item() == 1.5


def test_without_noise_all_three_are_one():
    """Label smoothing 0 is DPO."""
    plain = dpo_loss(MARGINS, beta=0.3)
    torch.testing.assert_close(conservative_dpo_loss(MARGINS, beta=0.3, label_smoothing=0.0), plain)
    torch.testing.assert_close(robust_dpo_loss(MARGINS, beta=0.3, label_smoothing=0.0), plain)


def test_robust_dpo_sees_through_flipped_labels():
    """Its mean over labels flipped with probability ε is DPO's loss on the true ones (Chowdhury et al. 2024)."""
    robust = partial(robust_dpo_loss, beta=0.3, label_smoothing=0.2)
    torch.testing.assert_close(0.8 * robust(MARGINS) + 0.2 * robust(-MARGINS), dpo_loss(MARGINS, beta=0.3))


def test_conservative_dpo_is_content_where_the_label_is_as_likely_as_it_claims():
    """σ(β m) = 1 - ε: beyond it the gradient turns round (Mitchell 2023)."""
    content = math.log(0.9 / 0.1) / 0.3
    margin = torch.tensor([content - 0.1, content, content + 0.1], dtype=torch.float64, requires_grad=True)
    conservative_dpo_loss(margin, beta=0.3, label_smoothing=0.1).sum().backward()
    assert margin.grad[0] < 0 < margin.grad[2]
    assert margin.grad[1].abs() < 1e-12


@pytest.mark.parametrize("label_smoothing", [-0.1, 0.5, 1.0])
def test_labels_that_say_nothing_are_refused(label_smoothing):
    """At one half the loss divides by 0, beyond it the pairs are swapped."""
    with pytest.raises(ValueError, match="label_smoothing"):
        robust_dpo_loss(MARGINS, beta=0.1, label_smoothing=label_smoothing)


def test_a_clear_pair_teaches_hinge_nothing():
    """max(0, 1 - 0.5 m) at m = 1, 2, 3"""
    assert hinge_loss(torch.tensor([1.0, 2.0, 3.0]), beta=0.5).tolist() == [0.5, 0.0, 0.0]


def test_ipo_wants_one_margin_and_no_more():
    """1 / 2β = 5 nats a token for β = 0.1: (0 - 5)², 0, (7 - 5)²   (Azar et al. 2023, equation 17)"""
    torch.testing.assert_close(ipo_loss(torch.tensor([0.0, 5.0, 7.0]), beta=0.1), torch.tensor([25.0, 0.0, 4.0]))


def test_equal_rewards_cost_log_two_and_a_constant_costs_nothing():
    """Pairs say nothing about the zero of rewards."""
    chosen, rejected = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    loss = reward_loss(chosen, rejected)
    torch.testing.assert_close(loss, torch.tensor([math.log(2.0), math.log1p(math.exp(-3.0))]))
    torch.testing.assert_close(reward_loss(chosen + 7, rejected + 7), loss)


def test_centering_pulls_the_mean_to_0():
    """And leaves the difference alone: the gradients that it adds are the same on both sides."""
    chosen, rejected = torch.tensor([5.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    added = reward_loss(chosen, rejected, centering=0.01) - reward_loss(chosen, rejected)
    torch.testing.assert_close(added, torch.tensor([0.64]))
    added.sum().backward()
    torch.testing.assert_close(chosen.grad, torch.tensor([0.16]))
    torch.testing.assert_close(rejected.grad, torch.tensor([0.16]))


def test_a_hopeless_pair_costs_a_finite_number():
    """log(sigmoid(-200)) is -inf in float32; logsigmoid is -200."""
    assert dpo_loss(torch.tensor([-2000.0]), beta=0.1).item() == pytest.approx(200.0)
    assert reward_loss(torch.tensor([-100.0]), torch.tensor([100.0])).item() == pytest.approx(200.0)
