"""The end of a gradient that many programs share: their parts, added up and rounded, in one launch.

    total[c] = Σ_programs parts[program, c]

In a fixed order, without atomics: the same bits every time. A sum and a conversion by torch would be two launches of
a few microseconds each, after every norm of a model.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import arch_of, cdiv, launch


@triton.jit
def _sum_kernel(parts, total, count, C, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """BLOCK_C columns of one total, in its dtype."""
    row, column = tl.arange(0, ROWS)[:, None], tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    parts += tl.program_id(1).to(tl.int64) * count * C
    sums = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for row0 in range(0, count, ROWS):
        at = (row0 + row) * C + column
        sums += tl.load(parts + at, mask=(row < count - row0) & (column < C), other=0.0)
    column = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    tl.store(total + tl.program_id(1) * C + column, tl.sum(sums, 0).to(total.dtype.element_ty), mask=column < C)


def sum_parts(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, programs, C) in float32 -> (n, C) in dtype."""
    n, count, C = parts.shape
    total = parts.new_empty((n, C), dtype=dtype)
    rows = 4 if arch_of(parts) == 0 else 256  # a column is short and deep: few steps of many rows
    launch(_sum_kernel, (cdiv(C, 16), n), parts, total, count, C, ROWS=rows, BLOCK_C=16, num_warps=8)
    return total
