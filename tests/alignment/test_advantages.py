"""Advantages: worked by hand, blind to padding, and never across prompts."""

import math

import pytest
import torch

from minigpt.alignment.advantages import (
    at_last,
    centred_advantages,
    ended_or,
    gae,
    group_advantages,
    informative,
    token_rewards,
    unit_variance,
    whitened,
)

NAN = math.nan
MASK = torch.tensor([[False, True, True, False], [True, True, True, True], [False, False, True, False]])


def test_gae_by_hand():
    """γ = 1, λ = 0.95: δ = .1, .1, .7; A = .7, .1 + .95 · .7 = .765, .1 + .95 · .765 = .82675

    Nothing follows the end: bootstrapping from a fourth value would add it to the last δ.
    """
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.1, 0.2, 0.3]])
    found = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=0.95)
    torch.testing.assert_close(found, torch.tensor([[0.82675, 0.765, 0.7]]))


@pytest.mark.parametrize("junk", [5.0, NAN])
def test_gae_sees_neither_prompt_nor_padding(junk):
    """A critic gives values there, too; one of them in a sum would move every advantage of the row."""
    rewards, values = torch.tensor([[junk, 0.0, 0.0, 1.0, junk]]), torch.tensor([[junk, 0.1, 0.2, 0.3, junk]])
    mask = torch.tensor([[False, True, True, True, False]])
    found = gae(rewards, values, mask, gamma=1.0, lam=0.95)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.82675, 0.765, 0.7, 0.0]]))


def test_gae_is_the_sum_it_is_defined_by():
    """A_t = Σ (γλ)^l δ_{t+l}, by two loops."""
    rewards, values = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = gae(rewards, values, MASK, gamma=0.9, lam=0.8)
    for row in range(3):
        places = MASK[row].nonzero()[:, 0].tolist()
        for t in places:
            later = [u for u in places if u >= t]
            deltas = [rewards[row, u] + 0.9 * (values[row, u + 1] if u + 1 in places else 0) - values[row, u]
                      for u in later]  # fmt: skip
            torch.testing.assert_close(found[row, t], sum(0.72**n * delta for n, delta in enumerate(deltas)))


def test_a_reward_is_read_at_the_last_token():
    """Not in the padding, where a model gives a number as well."""
    values = torch.arange(12.0).view(3, 4)
    assert at_last(values, MASK).tolist() == [2.0, 7.0, 10.0]


def test_the_score_stands_at_the_last_token_and_the_penalty_at_each():
    """r = score at the end - 0.5 · kl   (Ziegler et al. 2019, equation 2)"""
    kl = torch.tensor([[9.0, 0.2, 0.4, 9.0], [0.0, 0.2, 0.0, -0.2], [9.0, 9.0, 0.0, 9.0]])
    found = token_rewards(torch.tensor([1.0, 2.0, -3.0]), kl, MASK, coefficient=0.5)
    expected = torch.tensor([[0.0, -0.1, 0.8, 0.0], [0.0, -0.1, 0.0, 2.1], [0.0, 0.0, -3.0, 0.0]])
    torch.testing.assert_close(found, expected)


def test_a_row_without_a_token_has_no_place_for_a_reward():
    """It would be read from, or written to, some other place."""
    with pytest.raises(ValueError, match="row 1 has no token"):
        at_last(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


@pytest.mark.parametrize("wrong", [NAN, math.inf])
def test_a_reward_that_is_no_number_is_refused(wrong):
    """One NaN would be in every weight after one step."""
    with pytest.raises(ValueError, match="reward 1 of 3 is"):
        token_rewards(torch.tensor([0.0, wrong, 1.0]), torch.zeros(3, 4), MASK, coefficient=0.1)
    with pytest.raises(ValueError, match="reward 3 of 4 is"):
        group_advantages(torch.tensor([[0.0, 1.0], [1.0, wrong]]))


def test_an_answer_that_was_cut_off_is_not_rewarded():
    """Else a model learns that it need not end."""
    ended = torch.tensor([True, False, True])
    assert ended_or(torch.tensor([0.5, 0.75, 2.0]), ended, otherwise=-1.0).tolist() == [0.5, -1.0, 2.0]


# --- whitening ----------------------------------------------------------------------------------------------------


def test_whitening_by_hand():
    """1, 2, 3: mean 2, variance 1 with n - 1. With the mean put back they are what they were."""
    values, mask = torch.tensor([[1.0, 2.0, 50.0], [-70.0, 3.0, NAN]]), torch.tensor([[1, 1, 0], [0, 1, 0]]).bool()
    torch.testing.assert_close(whitened(values, mask), torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(unit_variance(values, mask), torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 0.0]]))


def test_rewards_keep_their_mean_and_advantages_do_not():
    """Over the mask alone; with the padding's zeros counted, mean and variance would depend on the lengths."""
    values = 3 + 5 * torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for whiten, mean in ((whitened, 0.0), (unit_variance, values[MASK].mean().item())):
        found = whiten(values, MASK)
        assert found[MASK].mean().item() == pytest.approx(mean, abs=1e-9)
        assert found[MASK].var().item() == pytest.approx(1.0)
        assert not found[~MASK].any()


def test_equal_advantages_whiten_to_0():
    """Not to NaN."""
    assert not whitened(torch.full((3, 4), 0.25), MASK).any()


def test_one_token_cannot_be_whitened():
    """Its variance with n - 1 is 0 / 0."""
    with pytest.raises(ValueError, match="needs 2"):
        whitened(torch.ones(1, 2), torch.tensor([[True, False]]))


# --- groups -------------------------------------------------------------------------------------------------------


def test_a_group_by_hand():
    """0, 0, 1, 1: mean 1/2, std with n - 1 is sqrt(1/3), so ±0.5 / 0.577450 = ±0.865875"""
    rewards = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(group_advantages(rewards), torch.tensor([[-1.0, -1.0, 1.0, 1.0]]) * 0.865875)
    assert centred_advantages(rewards).tolist() == [[-0.5, -0.5, 0.5, 0.5]]


@pytest.mark.parametrize("advantages", [group_advantages, centred_advantages])
def test_equal_rewards_give_exactly_0(advantages):
    """Neither NaN from 0 / 0, nor the mean's rounding magnified by 1 / 1e-4: seven times 0.1 is not 0.7."""
    rewards = torch.tensor([[0.1] * 7, [0.3] * 7, [1.0] * 7])
    assert not advantages(rewards).any()


@pytest.mark.parametrize("advantages", [group_advantages, centred_advantages])
def test_an_answer_is_compared_within_its_prompt_only(advantages):
    """Across prompts, an easy prompt's answers would all look good."""
    easy, hard = torch.tensor([0.9, 1.0, 0.8]), torch.tensor([0.0, 0.1, 0.0])
    together = advantages(torch.stack([easy, hard]))
    torch.testing.assert_close(together, torch.cat([advantages(easy[None]), advantages(hard[None])]))


def test_a_group_of_one_is_refused():
    """There is nothing to compare it to; its standard deviation is NaN."""
    with pytest.raises(ValueError, match="2 answers"):
        group_advantages(torch.ones(3, 1))


def test_a_prompt_that_all_or_no_answers_get_right_is_not_informative():
    """What dynamic sampling draws anew."""
    assert informative(torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])).tolist() == [True, False, False]
