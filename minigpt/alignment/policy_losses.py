"""Make tokens that did better than expected likelier, and the others less: in small steps.

The losses are given for each token (B, T). Beside the advantage, how the tokens are averaged is what the variants of
GRPO disagree on; it is a matrix of weights here, made from the mask alone:

    loss = Σ weights · losses

    AGGREGATIONS["grpo"]      each answer counts the same, so a token of a long one counts less
    AGGREGATIONS["dapo"]      each token counts the same; "bnpo": within each micro-batch
    AGGREGATIONS["dr_grpo"]   each token counts the same, whatever was drawn beside it

Make the weights for all answers of one step, before these are cut into micro-batches. Then the gradients add up to that
of the whole, which means of micro-batches of unequal length do not. (Losses that `fit` divides by the number of
micro-batches must be multiplied by it.) The weights are float32 for a mask of bool, else in the mask's dtype.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """PPO's: follow the advantage, but not further from the policy that drew the token than the clip allows.

        ratio = exp(log π - log π_old)
        loss  = -min(ratio · A, clip(ratio, 1 - clip_low, 1 + clip_high) · A)

    The minimum stops only a step that has gone too far in the advantage's own direction; one that went the wrong way
    is always led back. DAPO's `clip_high` above `clip_low` lets unlikely tokens rise further.

    Shapes: logprobs, old_logprobs (B, T); advantages (B, T), or (B, 1) for one to an answer; returns (B, T).
    Raises: ValueError for other shapes: (B,) would be taken for one to each place.
    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7.
    """
    _check_advantages(logprobs, advantages)
    ratio = (logprobs - old_logprobs).exp()                                                # (B, T)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def is_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """Which tokens the clip stops: too likely already and good, or too unlikely already and bad.

    Shapes: as `clipped_policy_loss`; returns (B, T) of bool. Worth logging: a large share says steps are too large.
    """
    _check_advantages(logprobs, advantages)
    ratio = (logprobs - old_logprobs).exp()                                                # (B, T)
    return ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float = 0.2) -> Tensor:
    """The critic's squared error, or that of its prediction held within the clip of the old one: the larger.

        1/2 max((V - R)², (V_old + clip(V - V_old, -clip, clip) - R)²)

    Shapes: (B, T) each; returns (B, T).
    Source: OpenAI's baselines, `ppo2`; Huang et al. 2022, "The 37 Implementation Details of PPO", 9.
    """
    held = old_values + (values - old_values).clamp(-clip, clip)                           # (B, T)
    return torch.maximum((values - returns).square(), (held - returns).square()) / 2


# --- from token losses to one number ------------------------------------------------------------------------------


def weighted_sum(losses: Tensor, weights: Tensor) -> Tensor:
    """Σ weights · losses. Shapes: (B, T), (B, T) -> ()"""
    return (weights * losses).sum()


def per_sequence(mask: Tensor, max_new_tokens: int) -> Tensor:
    """Mean over each answer's tokens, then over answers: 1 / (B · length). Shapes: (B, T) -> (B, T)

    Source: Shao et al. 2024, "DeepSeekMath", equation 3.
    """
    return mask / (mask.size(0) * mask.sum(-1, keepdim=True).clamp(min=1))


def per_token(mask: Tensor, max_new_tokens: int) -> Tensor:
    """Mean over all tokens: 1 / Σ lengths. Shapes: (B, T) -> (B, T)

    Source: Yu et al. 2025, "DAPO", section 3.3.
    """
    return mask / mask.sum().clamp(min=1)


def per_place(mask: Tensor, max_new_tokens: int) -> Tensor:
    """Sum over all tokens, over the number that there could be: 1 / (B · max_new_tokens). Shapes: (B, T) -> (B, T)

    A wrong answer is not forgiven for being long, as a mean over its tokens would.
    Source: Liu et al. 2025, "Understanding R1-Zero-Like Training", section 3.
    """
    return mask / (mask.size(0) * max_new_tokens)


AGGREGATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "grpo": per_sequence,
    "bnpo": per_token,  # of each micro-batch's own mask
    "dapo": per_token,
    "dr_grpo": per_place,
}


def _check_advantages(logprobs: Tensor, advantages: Tensor) -> None:
    if advantages.dim() != logprobs.dim() or advantages.size(0) != logprobs.size(0):
        raise ValueError(f"advantages {tuple(advantages.shape)} beside log-probabilities {tuple(logprobs.shape)}: "
                         "give one to each token, or a column of one to each answer")  # fmt: skip
