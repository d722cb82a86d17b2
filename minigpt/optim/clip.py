"""A gradient that is too long is shortened; one that is not finite is left for the loop to refuse."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The length of all gradients taken as one long vector.

        ‖g‖ = sqrt(Σᵢ ‖gᵢ‖²)

    Shapes: any; returns (). No gradient at all has length 0.
    Dtypes: the gradients' own, which is float32 under mixed precision: squares of float16 would overflow at
    256.
    """
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


@torch.no_grad()
def clip_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients by one factor so that their global norm is at most `max_norm`; returns the old one.

    One factor for all keeps the direction, and the length is that of one vector, so a single wild batch costs
    one step of bounded size. A norm of inf or NaN leaves every gradient untouched: scaling would turn inf
    into NaN, or all the others into 0, and hide where it came from.
    Source: Pascanu et al. 2013, section 3.2.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = global_norm(gradients)
    if max_norm < norm < float("inf"):
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm
