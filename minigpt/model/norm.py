"""Keep activations at a size that the next layer can work with. Two ways, one signature."""

import torch
from torch import Tensor, nn

import kernels


class RMSNorm(nn.Module):
    """Length only, no mean: as good in practice as LayerNorm, and cheaper. It never has a bias."""

    def __init__(self, width: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)  # (..., C)


class LayerNorm(nn.Module):
    """GPT-2's: mean and length."""

    def __init__(self, width: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_parameter("bias", nn.Parameter(torch.zeros(width)) if bias else None)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return kernels.layer_norm(x, self.weight, self.bias, self.eps)  # (..., C)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}
