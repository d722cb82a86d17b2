"""AdamW: one step size per number, from the sizes of its recent gradients.

`adamw_step_` is the specification: one tensor, a line per equation. `AdamW` does the same for a whole group,
and its idea is only about overhead. A small GPT has dozens of gains and biases of a few hundred numbers each,
and for those the eight calls cost far more than the arithmetic. So the small tensors of a group travel
together: their values and gradients are gathered into one vector, updated as one tensor, and copied back. The
moments stay gathered for good.

Parameters keep their own storage. Making them views of one long vector would save the two copies, but whoever
holds a parameter's storage (tied weights, DDP's buckets, a loaded checkpoint, `.to(device)`) could part from
it silently.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

import kernels

# Numbers in a tensor that no longer travels with others. Measured on one core of an AMD EPYC with torch 2.13,
# milliseconds a step for 52 tensors of 0.8M numbers and for 68 of 5.4M: none gathered 2.5 and 11.9, those
# below 2**12 1.9 and 11.8, below 2**15 1.7 and 11.7, all 2.2 and 42. (torch.optim.AdamW: 3.5 and 14.5;
# foreach=True 2.5 and 15.4; fused=True, which makes one pass in C++ where we make eight, 0.7 and 4.3.)
SMALL = 2**15


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
        self.small = {name: p for name, p in parameters.items() if p.numel() < SMALL}
        self.large = {name: p for name, p in parameters.items() if p.numel() >= SMALL}
        self.gathered_avg, small_avg = _gathered_zeros(self.small)
        self.gathered_sq, small_sq = _gathered_zeros(self.small)
        self.exp_avg = small_avg | {name: torch.zeros_like(p) for name, p in self.large.items()}
        self.exp_avg_sq = small_sq | {name: torch.zeros_like(p) for name, p in self.large.items()}

    @torch.no_grad()
    def step(self, step: int, lr: float) -> None:
        """Move every parameter that has a gradient. `step` counts from 1."""
        small = list(self.small.values())
        together = bool(small) and all(p.grad is not None for p in small)
        alone = self.large if together else self.small | self.large
        alone = {name: p for name, p in alone.items() if p.grad is not None}
        values = list(alone.values())
        gradients = [p.grad for p in values]
        exp_avgs = [self.exp_avg[name] for name in alone]
        exp_avg_sqs = [self.exp_avg_sq[name] for name in alone]
        if together:
            values.append(_gathered(small))
            gradients.append(_gathered([p.grad for p in small]))
            exp_avgs.append(self.gathered_avg)
            exp_avg_sqs.append(self.gathered_sq)
        kernels.adamw_(values, gradients, exp_avgs, exp_avg_sqs, step=step, lr=lr, **self.settings)
        if together:
            torch._foreach_copy_(small, _parts(values[-1], small))

    def state(self) -> dict[str, Tensor]:
        """Both moments by parameter name; the very tensors in use, not copies."""
        slots = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return {f"{name}.{slot}": moments[name] for slot, moments in slots.items() for name in moments}


def _gathered(tensors: Sequence[Tensor]) -> Tensor:
    """Many small tensors -> one long vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _parts(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """One long vector -> views of it, shaped as `like`."""
    pieces = vector.split([tensor.numel() for tensor in like])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]


def _gathered_zeros(parameters: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """A vector of zeros with room for all parameters, and the views of it that belong to each name."""
    if not parameters:
        return torch.zeros(0), {}
    tensors = list(parameters.values())
    vector = torch.zeros_like(_gathered(tensors), requires_grad=False)
    return vector, dict(zip(parameters, _parts(vector, tensors), strict=True))
