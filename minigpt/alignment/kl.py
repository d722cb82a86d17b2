"""How far has the policy gone from its reference?

    KL(π, π_ref) = E over tokens drawn from π of [ log π - log π_ref ]

The exact divergence needs both models' whole distributions. From the drawn tokens alone it can be estimated, in three
ways that are not interchangeable:

        with d = log π_ref - log π    mean over draws    one draw                  gradient, as a loss, in the mean
    k1  -d                            KL                 of either sign, noisy     0: of no use in a loss
    k2  d² / 2                        near KL            >= 0                      of KL(π, π_ref)
    k3  exp(d) - 1 - d                KL                 >= 0, less noisy near 0   of KL(π_ref, π)

Source: Schulman 2020, "Approximating KL Divergence".
"""

import torch
from torch import Tensor

from minigpt.alignment.logprobs import log_distribution


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log π - log π_ref at each drawn token: what PPO takes off the reward. Shapes: (...), (...) -> (...)"""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(log π - log π_ref)² / 2 at each drawn token. Shapes: (...), (...) -> (...)"""
    return (logprobs - ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """π_ref / π - 1 - log(π_ref / π) at each drawn token: what GRPO adds to the loss. Shapes: (...), (...) -> (...)

    Source: Shao et al. 2024, "DeepSeekMath", equation 4.
    """
    d = ref_logprobs - logprobs
    return torch.expm1(d) - d  # exp(d) - 1 would lose all its digits where the models hardly differ


def ratio_weighted_k3(logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """π / π_old · k3: unbiased also when the tokens were drawn from an older policy. Shapes: (...) -> (...)

    In a first inner step the ratio is 1 and the value that of k3; not so the gradient, which is then of KL(π, π_ref).
    TRL's GRPO does this unless `use_bias_correction_kl` is switched off.
    Source: DeepSeek-AI 2025, "DeepSeek-V3.2", section 3.1.
    """
    return (logprobs - old_logprobs).exp() * k3(logprobs, ref_logprobs)


def exact_kl(logits: Tensor, ref_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Σ p (log p - log q) over the vocabulary, at each place. Shapes: (..., V), (..., V) -> (...)"""
    log_p, log_q = (log_distribution(z, temperature=temperature) for z in (logits, ref_logits))  # (..., V) twice
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def adapted_coefficient(coefficient: float, kl: float, *, target: float, gain: float = 0.1) -> float:
    """The penalty's next coefficient: larger where the policy strays too far, smaller where it hardly moves.

        β ← β · (1 + gain · clip((KL - target) / target, -0.2, 0.2))

    The clip keeps one wild batch from undoing many steps.
    Raises: ValueError for a target that is not above 0.
    Source: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2.
    """
    if not target > 0:
        raise ValueError(f"a divergence of {target} cannot be aimed at: the target must be above 0")
    return coefficient * (1 + gain * min(0.2, max(-0.2, (kl - target) / target)))
