"""Was it better than expected? From an answer's reward to a number for each of its tokens.

The mask (B, T) of bool says which places are tokens of the answer; every other place comes out as 0.
"""

import torch
from torch import Tensor

# --- rewards ------------------------------------------------------------------------------------------------------


def at_last(values: Tensor, mask: Tensor) -> Tensor:
    """The value at the last place of each row that the mask marks: a reward is read there, never from the padding.

    Shapes: values (B, T); mask (B, T); returns (B,).
    Raises: ValueError for a row that is not marked anywhere.
    """
    return values.gather(1, _last(mask)[:, None])[:, 0]


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """What PPO is rewarded with: the answer's score at its last token, less a penalty at each for its distance.

        r_t = [t is the last] · score - coefficient · kl_t

    Shapes: scores (B,); kl (B, T), `kl.k1`; mask (B, T); returns (B, T).
    Raises: ValueError for a score that is not finite, and for a row without a token.
    Source: Ziegler et al. 2019, equation 2.
    """
    _check_finite(scores)
    return (-coefficient * kl * mask).scatter_add(1, _last(mask)[:, None], scores[:, None].to(kl.dtype))


def ended_or(scores: Tensor, ended: Tensor, *, otherwise: float) -> Tensor:
    """The scores of answers that ended by themselves; `otherwise` for those that were cut off.

    An answer cut off at the limit has no end to judge. Rewarded like others, a model learns not to end.

    Shapes: (B,), (B,) of bool -> (B,).
    Source: Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO": the EOS trick.
    """
    return scores.masked_fill(~ended, otherwise)


# --- PPO: against a critic ----------------------------------------------------------------------------------------


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimation, from the last token to the first.

        δ_t = r_t + γ V_{t+1} - V_t
        A_t = δ_t + γ λ A_{t+1},        V = A = 0 after the end

    λ = 1: the whole reward that came, less the value; λ = 0: one step, and then trust the critic. The returns that the
    critic learns are A + V.

    Shapes: rewards, values and mask (B, T), an answer's tokens side by side; returns (B, T).
    Source: Schulman et al. 2015, "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
            equation 16.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)  # a critic sees padding, too
    advantages, advantage, value_after = [], torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for reward, value in zip(reversed(rewards.unbind(1)), reversed(values.unbind(1)), strict=True):  # (B,) each
        delta = reward + gamma * value_after - value
        advantage, value_after = delta + gamma * lam * advantage, value
        advantages.append(advantage)
    return torch.stack(advantages[::-1], dim=1).masked_fill(~mask, 0.0)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the marked places, whatever stands in the others.

        (x - mean) / sqrt(var + 1e-8),   var with n - 1

    Shapes: (B, T), (B, T) -> (B, T), 0 where the mask is.
    Source: Huang et al. 2024: advantage whitening.
    """
    mean, scale = _moments(values, mask)
    return ((values - mean) / scale).masked_fill(~mask, 0.0)


def unit_variance(values: Tensor, mask: Tensor) -> Tensor:
    """As `whitened`, and the mean put back: for rewards, whose sign and whose zero mean something.

    Shapes: (B, T), (B, T) -> (B, T), 0 where the mask is. Source: Huang et al. 2024: reward whitening.
    """
    mean, scale = _moments(values, mask)
    return ((values - mean) / scale + mean).masked_fill(~mask, 0.0)


# --- GRPO: against the other answers to the same prompt -----------------------------------------------------------


def group_advantages(rewards: Tensor) -> Tensor:
    """How an answer compares to the others of its prompt, in standard deviations.

        (r - mean) / (std + 1e-4),   std with n - 1, over one prompt's answers

    Shapes: rewards (P, G), a row for each prompt; returns (P, G). Equal rewards give 0.
    Raises: ValueError for a reward that is not finite, and for groups of one.
    Source: Shao et al. 2024, "DeepSeekMath", section 4.1.2; n - 1 and 1e-4 as in TRL.
    """
    return centred_advantages(rewards) / (rewards.std(-1, keepdim=True) + 1e-4)


def centred_advantages(rewards: Tensor) -> Tensor:
    """How an answer compares to the others of its prompt: r - mean.

    Dr. GRPO leaves the division out: it makes prompts that nearly all or nearly no answers get right count more.

    Shapes: rewards (P, G), a row for each prompt; returns (P, G). Equal rewards give 0.
    Raises: ValueError for a reward that is not finite, and for groups of one.
    Source: Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.
    """
    _check_finite(rewards)
    if rewards.size(-1) < 2:
        raise ValueError("an answer alone cannot be compared: groups need 2 answers to a prompt at least")
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred.masked_fill(~informative(rewards)[:, None], 0.0)  # a mean of equal numbers may be off by a rounding


def informative(rewards: Tensor) -> Tensor:
    """Whether a prompt's answers differ in reward at all: where they do not, there is nothing to learn.

    Shapes: (P, G) -> (P,) of bool. Source: Yu et al. 2025, "DAPO", section 3.2, dynamic sampling.
    """
    return rewards.amax(-1) > rewards.amin(-1)


# --- within -------------------------------------------------------------------------------------------------------


def _last(mask: Tensor) -> Tensor:
    """(B, T) -> (B,)"""
    if not mask.any(-1).all():
        raise ValueError(f"row {int((~mask.any(-1)).nonzero()[0])} has no token: a reward has nowhere to stand")
    return mask.size(1) - 1 - mask.flip(1).int().argmax(1)


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if mask.sum() < 2:
        raise ValueError(f"{int(mask.sum())} token has no variance: whitening needs 2 at least")
    marked = values[mask]
    return marked.mean(), (marked.var() + 1e-8).sqrt()


def _check_finite(rewards: Tensor) -> None:
    if not rewards.isfinite().all():
        wrong = (~rewards.isfinite()).flatten().nonzero()[0]
        raise ValueError(f"reward {int(wrong)} of {rewards.numel()} is {rewards.flatten()[wrong].item()}: rewards must "
                         "be finite numbers")  # fmt: skip
