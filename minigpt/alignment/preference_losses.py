"""One answer is better than another: what should a model make of it?

Each loss is given for every pair (B,); the objective is their mean.

    Bradley-Terry   P(chosen beats rejected) = σ(r_chosen - r_rejected)

makes a reward model out of pairs. DPO's observation: the policy that is best under a reward r and a penalty β · KL has
r = β log(π / π_ref) + const, and the constant cancels in a pair. So the policy is its own reward model, and its pairs'
margin takes the place of the rewards' difference:

    margin = (log π - log π_ref)(chosen) - (log π - log π_ref)(rejected)

Sources: Christiano et al. 2017, "Deep Reinforcement Learning from Human Preferences", section 2.2.3;
         Rafailov et al. 2023, "Direct Preference Optimization".
"""

import torch.nn.functional as F
from torch import Tensor


def reward_loss(chosen: Tensor, rejected: Tensor, *, centering: float = 0.0) -> Tensor:
    """Bradley-Terry: the negative log-probability that the chosen answer wins.

        -log σ(r_c - r_r) + centering · (r_c + r_r)²

    A constant added to every reward changes no pair; `centering` pulls the mean to 0, so that rewards can be compared.

    Shapes: rewards (B,) and (B,); returns (B,).
    Source: Ouyang et al. 2022, "InstructGPT", equation 1; centering: Eisenstein et al. 2023, "Helping or Herding?"
    """
    return -F.logsigmoid(chosen - rejected) + centering * (chosen + rejected).square()


def preference_margin(*, chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """By how much more than its reference the policy prefers the chosen answer, in nats.

    Shapes: log-probabilities of whole answers, (B,) each; returns (B,). Of answers' sums for all losses but
            `ipo_loss`, which takes the margin of means over tokens.
    """
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo_loss(margin: Tensor, *, beta: float) -> Tensor:
    """-log σ(β · margin). Shapes: (B,) -> (B,). Source: Rafailov et al. 2023, equation 7."""
    return -F.logsigmoid(beta * margin)


def conservative_dpo_loss(margin: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """The cross-entropy with a label that is wrong with probability ε: the margin stops growing where σ(β m) = 1 - ε.

        -(1 - ε) log σ(β m) - ε log σ(-β m)

    Shapes: (B,) -> (B,). Source: Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
    """
    return (1 - label_smoothing) * dpo_loss(margin, beta=beta) + label_smoothing * dpo_loss(-margin, beta=beta)


def robust_dpo_loss(margin: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Its mean over labels flipped with probability ε is DPO's loss on the true ones; one pair's may be negative.

        (-(1 - ε) log σ(β m) + ε log σ(-β m)) / (1 - 2ε)

    Shapes: (B,) -> (B,).
    Raises: ValueError for ε >= 1/2: such labels say nothing.
    Source: Chowdhury et al. 2024, "Provably Robust DPO", section 3.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing {label_smoothing}: labels wrong half of the time or more teach nothing; "
                         "give the share of wrong labels, from 0 to below 0.5")  # fmt: skip
    kept, flipped = dpo_loss(margin, beta=beta), dpo_loss(-margin, beta=beta)
    return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge_loss(margin: Tensor, *, beta: float) -> Tensor:
    """max(0, 1 - β · margin): pairs that are clear already teach nothing more.

    Shapes: (B,) -> (B,). Source: Zhao et al. 2023, "SLiC-HF", section 2, with DPO's margin: Liu et al. 2023, "RSO".
    """
    return (1 - beta * margin).relu()


def ipo_loss(mean_margin: Tensor, *, beta: float) -> Tensor:
    """(margin - 1 / 2β)²: a margin to reach and not to pass; DPO's would grow without end on a pair without noise.

    Shapes: (B,) -> (B,). The margin is that of means over tokens (`logprobs.averaged`), as its authors ran it: that of
            sums grows with the length, and 1 / 2β does not.
    Source: Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences",
            equation 17.
    """
    return (mean_margin - 1 / (2 * beta)).square()
