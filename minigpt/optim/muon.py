"""Muon: one step per matrix, its gradient with all singular values set to 1.

The gradient of a weight matrix is dominated by a few directions. Muon keeps the directions and evens out
their lengths: for G = U Σ Vᵀ it steps along U Vᵀ, so that rare directions are learned as fast as loud ones.
U Vᵀ needs no singular value decomposition: five rounds of a polynomial in G, matrix products only, come close
enough.

`muon_step_` is the specification: one matrix. `Muon` stacks the matrices of equal shape, so that a model with
many layers costs a few batched products.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import kernels

TOGETHER = 2**22  # numbers per stack, 16 MB in float32: fills the machine, and is small beside activations


def step_scale(shape: torch.Size) -> float:
    """Makes Muon's step as long as AdamW's, so that one learning rate and one decay suit both.

        0.2 · sqrt(max(M, N))

    An M x N matrix whose singular values are all 1 has numbers of root mean square 1/sqrt(max(M, N));
    those of AdamW's steps are measured at 0.2 to 0.4.
    Source: Liu et al. 2025, "Muon is Scalable for LLM Training" (Moonlight), section 2.2.
    """
    return 0.2 * max(shape) ** 0.5


@torch.no_grad()
def muon_step_(
    parameter: Tensor, gradient: Tensor, momentum: Tensor, *, lr: float, beta: float, weight_decay: float
) -> None:
    """One step on one matrix, in place: the slow twin.

        m ← beta · m + (1 - beta) · g                    running mean of the gradient
        d = (1 - beta) · g + beta · m                    Nesterov: look one step of m ahead
        p ← p · (1 - lr · weight_decay) - lr · 0.2 · sqrt(max(M, N)) · orthogonal(d)

    Shapes: parameter, gradient, momentum (M, N).
    """
    momentum.mul_(beta).add_(gradient, alpha=1 - beta)
    direction = (1 - beta) * gradient + beta * momentum                            # (M, N)
    parameter.mul_(1 - lr * weight_decay)
    parameter.sub_(lr * step_scale(parameter.shape) * kernels.newton_schulz(direction))


class Muon:
    """Muon for a group of matrices; equal to `muon_step_` on each of them.

    A matrix whose `.grad` is None takes no part in a step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, beta: float, weight_decay: float) -> None:
        for name, p in parameters.items():
            assert p.ndim == 2, f"Muon is for matrices, {name} has shape {tuple(p.shape)}"
        self.beta, self.weight_decay = beta, weight_decay
        self.parameters = dict(parameters)
        self.momentum = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.stacks = _stacks(self.parameters)

    @torch.no_grad()
    def step(self, step: int, lr: float) -> None:
        """Move every matrix that has a gradient. (`step` is for rules that correct a bias: not this one.)"""
        for names in self.stacks:
            names = [name for name in names if self.parameters[name].grad is not None]
            if names:
                self._step_together(names, lr)

    def _step_together(self, names: list[str], lr: float) -> None:
        """The same step for n matrices of one shape."""
        parameters = [self.parameters[name] for name in names]
        gradients = [p.grad for p in parameters]
        momenta = [self.momentum[name] for name in names]
        torch._foreach_lerp_(momenta, gradients, 1 - self.beta)
        directions = torch.stack(torch._foreach_lerp(gradients, momenta, self.beta))  # (n, M, N)
        updates = kernels.newton_schulz(directions)                                   # (n, M, N)
        torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        torch._foreach_add_(parameters, updates.unbind(), alpha=-lr * step_scale(parameters[0].shape))

    def state(self) -> dict[str, Tensor]:
        """The momentum by parameter name; the very tensors in use, not copies."""
        return {f"{name}.momentum": tensor for name, tensor in self.momentum.items()}


def _stacks(parameters: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of equal shape together, as many as fit TOGETHER."""
    by_shape: dict[torch.Size, list[str]] = {}
    for name, p in parameters.items():
        by_shape.setdefault(p.shape, []).append(name)
    stacks = []
    for shape, names in by_shape.items():
        room = max(1, TOGETHER // shape.numel())
        stacks += [names[i : i + room] for i in range(0, len(names), room)]
    return stacks
