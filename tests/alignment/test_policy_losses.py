"""The clip in all four cases, the critic's clip, and token losses that add up over micro-batches."""

import math

import pytest
import torch

from minigpt.alignment.policy_losses import (
    AGGREGATIONS,
    clipped_policy_loss,
    clipped_value_loss,
    is_clipped,
    per_place,
    per_sequence,
    per_token,
    weighted_sum,
)

MASK = torch.tensor([[True, False, False], [True, True, True]])


@pytest.mark.parametrize(("ratio", "advantage", "loss", "stopped"), [
    (1.5, 2.0, -2.4, True),    # good and likelier than allowed: -1.2 · 2
    (0.5, 2.0, -1.0, False),   # good and too unlikely: led back
    (1.5, -2.0, 3.0, False),   # bad and too likely: led back
    (0.5, -2.0, 1.6, True),    # bad and less likely than allowed: 0.8 · 2
    (1.1, 2.0, -2.2, False),
    (0.9, -2.0, 1.8, False),
])  # fmt: skip
def test_the_clip_by_hand(ratio, advantage, loss, stopped):
    """clip 0.2; a maximum for the minimum, or a lost sign, is wrong in two cases   (Schulman et al. 2017, figure 1)"""
    logprobs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    arguments = logprobs, torch.zeros(1, 1), torch.tensor([[advantage]])
    found = clipped_policy_loss(*arguments)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert logprobs.grad.item() == pytest.approx(0.0 if stopped else -ratio * advantage)
    assert is_clipped(*arguments).item() is stopped


def test_clip_higher_lets_good_tokens_rise_further_and_no_others():
    """1.25 is beyond 1.2 and within 1.28; the lower end stays (Yu et al. 2025, DAPO, 3.1)."""
    good, old = torch.tensor([[math.log(1.25)]]), torch.zeros(1, 1)
    assert clipped_policy_loss(good, old, torch.ones(1, 1), clip_high=0.28).item() == pytest.approx(-1.25)
    assert clipped_policy_loss(good, old, torch.ones(1, 1)).item() == pytest.approx(-1.2)
    bad = torch.tensor([[math.log(0.75)]])
    assert clipped_policy_loss(bad, old, -torch.ones(1, 1), clip_high=0.28).item() == pytest.approx(0.8)
    assert is_clipped(bad, old, -torch.ones(1, 1), clip_high=0.28).item()


def test_the_first_inner_step_is_the_plain_policy_gradient():
    """The ratio is 1: the loss is -A and so is its gradient. A column of advantages is one to each answer."""
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], requires_grad=True)
    advantages = torch.tensor([[2.0], [-1.0]])
    loss = clipped_policy_loss(logprobs, logprobs.detach(), advantages)
    loss.sum().backward()
    torch.testing.assert_close(loss, -advantages.expand(2, 2))
    torch.testing.assert_close(logprobs.grad, -advantages.expand(2, 2))


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
@pytest.mark.parametrize("loss", [clipped_policy_loss, is_clipped])
def test_advantages_that_would_be_spread_over_places_are_refused(loss, shape):
    """(2,) beside (2, 2) is one to each place, for torch: the second answer's advantage on the first one's tokens."""
    with pytest.raises(ValueError, match="column of one to each answer"):
        loss(torch.zeros(2, 2), torch.zeros(2, 2), torch.ones(shape))


@pytest.mark.parametrize(("value", "target", "loss", "slope"), [
    (0.1, 1.0, 0.405, -0.9),   # within the clip: (0.1 - 1)² / 2
    (0.5, 1.0, 0.32, 0.0),     # held at 0.2: (0.2 - 1)² / 2 is more than (0.5 - 1)² / 2
    (-0.5, -1.0, 0.32, 0.0),
    (0.5, -1.0, 1.125, 1.5),   # it went the wrong way: led back
])  # fmt: skip
def test_the_critics_clip_by_hand(value, target, loss, slope):
    """The old value is 0, the clip 0.2. The larger error counts: the smaller one would reward running away."""
    values = torch.tensor([[value]], requires_grad=True)
    found = clipped_value_loss(values, torch.zeros(1, 1), torch.tensor([[target]]))
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert values.grad.item() == pytest.approx(slope)


# --- from token losses to one number ------------------------------------------------------------------------------


def test_weights_by_hand():
    """Answers of 1 and 3 tokens, of at most 5: what each token counts."""
    none, each = 0.0, 1 / 4
    torch.testing.assert_close(per_sequence(MASK, 5), torch.tensor([[1 / 2, none, none], [1 / 6, 1 / 6, 1 / 6]]))
    torch.testing.assert_close(per_token(MASK, 5), torch.tensor([[each, none, none], [each, each, each]]))
    torch.testing.assert_close(per_place(MASK, 5), torch.tensor([[0.1, none, none], [0.1, 0.1, 0.1]]))


@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
def test_micro_batches_of_unequal_length_add_up_to_the_whole(kind):
    """Weights are made once for a step and cut with its answers."""
    losses = torch.randn(6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.arange(8) < torch.tensor([8, 7, 8, 1, 2, 1])[:, None]
    weights = AGGREGATIONS[kind](mask, 8)
    whole = weighted_sum(losses, weights)
    parts = [weighted_sum(x, w) for x, w in zip(losses.split(2), weights.split(2), strict=True)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=0)


def test_means_of_micro_batches_are_not_the_mean_of_the_whole():
    """The trap that the weights avoid: a token of a short micro-batch would count for four of a long one."""
    losses = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    whole = weighted_sum(losses, per_token(MASK, 3))
    of_parts = sum(weighted_sum(x, per_token(m, 3)) for x, m in zip(losses.split(1), MASK.split(1), strict=True)) / 2
    assert (whole.item(), of_parts.item()) == (0.25, 0.5)


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_an_answer_that_is_masked_away_counts_nothing(kind):
    """One that was cut off, say: 0 / 0 would be in every weight of the model."""
    mask = torch.tensor([[False, False], [False, False]])
    assert not AGGREGATIONS[kind](mask, 4).any()
    one = AGGREGATIONS[kind](torch.tensor([[False, False], [True, True]]), 4)
    assert one.isfinite().all() and not one[0].any() and one[1].all()


def test_a_long_wrong_answer_is_not_forgiven():
    """Dr. GRPO: each of its tokens counts as much as those of a short one. GRPO's count a third."""
    assert per_place(MASK, 5)[1, 0] == per_place(MASK, 5)[0, 0]
    assert per_sequence(MASK, 5)[1, 0] == pytest.approx(per_sequence(MASK, 5)[0, 0].item() / 3)
