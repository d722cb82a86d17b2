"""AdamW: one step size per number, from the sizes of its recent gradients.

`adamw_step_` is the specification: one tensor, a line per equation. `AdamW` does the same for a whole group
by one call of `kernels.adamw_`, which reads and writes each number once instead of once per line.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import kernels


@torch.no_grad()
def adamw_step_(
    parameter: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step on one tensor, in place: the slow twin.

        p ← p · (1 - lr · weight_decay)
        m ← beta1 · m + (1 - beta1) · g              running mean of the gradient
        v ← beta2 · v + (1 - beta2) · g²             running mean of its square
        p ← p - lr · m̂ / (sqrt(v̂) + eps)             m̂ = m / (1 - beta1ᵗ), v̂ = v / (1 - beta2ᵗ)

    m and v begin at 0 and are too small at first; the divisors, with t = step counted from 1, undo exactly
    that. m̂ / sqrt(v̂) is about ±1 where gradients agree and about 0 where they contradict each other, so a
    step moves each number by up to lr, whatever the scale of the loss.
    Source: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.
    """
    # decay weights before the Adam step, not through the gradient: dividing decay by sqrt(v) would spare
    # exactly the weights with large gradients
    parameter.mul_(1 - lr * weight_decay)
    exp_avg.mul_(beta1).add_(gradient, alpha=1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    mean = exp_avg / (1 - beta1**step)
    root = (exp_avg_sq / (1 - beta2**step)).sqrt()
    parameter.sub_(lr * mean / (root + eps))


class AdamW:
    """AdamW for a group of parameters that share their settings; equal to `adamw_step_` on each of them.

    A parameter whose `.grad` is None takes no part in a step: it is neither moved nor decayed.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> None:
        self.settings = {"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
        self.parameters = dict(parameters)
        self.exp_avg = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, step: int, lr: float) -> None:
        """Move every parameter that has a gradient. `step` counts from 1."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        kernels.adamw_(
            [self.parameters[name] for name in names],
            [self.parameters[name].grad for name in names],
            [self.exp_avg[name] for name in names],
            [self.exp_avg_sq[name] for name in names],
            step=step, lr=lr, **self.settings,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Both moments by parameter name; the very tensors in use, not copies."""
        slots = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return {f"{name}.{slot}": moments[name] for slot, moments in slots.items() for name in moments}
