"""What several kernels compute alike: powers of two instead of e, a softcap, the precision of a product.

    exp(x) = exp2(x · log2 e)                  exp2 is the GPU's own instruction
    tanh(u) = 1 - 2 / (exp(2u) + 1)            finite for every u
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import next_power_of_2

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NOTHING_YET = tl.constexpr(-1e30)  # a maximum over no score; finite, so that -inf - it is not NaN


@triton.jit
def capped(x, factor, height):
    """height · tanh(x · factor), and 1 - tanh²: its slope, but for factor · height."""
    tanh = 1 - 2 / (tl.exp2(x * (2 * LOG2E * factor)) + 1)
    return tanh * height, 1 - tanh * tanh


def padded(side: int) -> int:
    """A side of a tile for the matrix units: a power of two, 16 at least."""
    return max(16, next_power_of_2(side))


def dot_precision(x: Tensor) -> str:
    """How float32 is multiplied: exactly, or on the matrix units if torch.set_float32_matmul_precision allows it."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
