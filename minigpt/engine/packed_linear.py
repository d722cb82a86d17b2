"""Linear layers of four-bit weights: an eighth of the bytes, and a scale for each group.

    y = x Wᵀ + bias,    W = (number - 8) · scale of the group,    x in bfloat16, sums in float32

torch's own product reads the four-bit numbers as they lie. Its activations must be bfloat16: with float32 the same
call is 6 to 25 times slower than a float32 layer (measured, torch 2.13). Each row of x is treated alone, so a row has
the same bits in any company, as in `IntegerLinear`; but x loses 16 of its bits, where `IntegerLinear` keeps 1/254.
"""

import torch
from torch import Tensor, nn

from kernels.quantization import check_quantized, grouped

ROWS = 16  # torch wants a multiple of so many outputs


class PackedLinear(nn.Module):
    """A linear layer of int4 weights on a CPU.

    Shapes: weight (N, K/2) of uint8, scale (N, K/group), bias (N,) or none; x (..., K) -> (..., N).
    Dtypes: scales in bfloat16; the result in x.dtype.
    Twin:   kernels.quantized_linear, which computes in float32.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        check_quantized(weight, scale)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self._tiled: tuple[Tensor, Tensor] | None = None

    @property
    def in_features(self) -> int:
        return 2 * self.weight.size(1)

    @property
    def out_features(self) -> int:
        return self.weight.size(0)

    @staticmethod
    def stacked(layers: "list[PackedLinear]") -> "PackedLinear":
        """Layers that read the same rows, as one: their outputs side by side."""
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return PackedLinear(torch.cat([layer.weight for layer in layers]), torch.cat([x.scale for x in layers]), bias)

    def forward(self, x: Tensor) -> Tensor:
        if self._tiled is None:
            self._tiled = tiled(self.weight, self.scale)
        weight, scale = self._tiled
        group = 2 * self.weight.size(1) // self.scale.size(1)
        rows = x.reshape(-1, x.size(-1)).bfloat16()                                       # (M, K)
        y = torch._weight_int4pack_mm_for_cpu(rows, weight, group, scale)                 # (M, N, rounded up)
        y = y[:, : self.out_features].to(x.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], -1)


def tiled(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and scale as torch's product wants them: (N', K/2) in its own order, (K/group, N', 2).

    N' is N rounded up to a multiple of ROWS; the second of two numbers is what is added: 0.
    """
    more = -weight.size(0) % ROWS
    numbers = grouped(weight, scale)[0].flatten(1).int() + 8                              # (N, K), 1 .. 15
    numbers = torch.cat((numbers, numbers.new_full((more, numbers.size(1)), 8)))
    scale = torch.cat((scale.bfloat16(), scale.new_zeros(more, scale.size(1)).bfloat16()))
    both = torch.stack((scale.T, torch.zeros_like(scale.T)), dim=-1).contiguous()
    return torch._convert_weight_to_int4pack_for_cpu(numbers, 1), both
