"""Newton-Schulz with half of the multiplications in two of its three products: x xᵀ is symmetric.

    x = g / ‖g‖;  repeat:  s = x xᵀ
                           p = a·I + b·s + c·s sᵀ        s is symmetric, so s s = s sᵀ: the same product once more
                           x = p x

One kernel computes beta · input + alpha · x xᵀ for both. A program takes a tile on or below the diagonal and
stores it twice, the second time mirrored. The last product has no such shape and is torch's. Together they cost
two thirds of the plain ones for a square matrix, three quarters for a very wide one.

a·x is part of the last product: added beside it (baddbmm), torch would copy x first, and read it once more. Rounding
a on the diagonal to bfloat16 costs nothing: after five steps of 768 x 3072 the error is 0.9 %, beside it 1.0 %.

Source: Jordan et al. 2024, "Muon"; mirrored tiles as in modded-nanogpt (Keller Jordan and others, 2024-25).
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from kernels.checks import check_matrices
from kernels.gpu.arithmetic import dot_precision
from kernels.launch import arch_of, cdiv, launch
from kernels.reference import QUINTIC


@triton.jit
def _symmetric_kernel(
    x, input, y, x_n, x_m, input_n, input_m, y_n, y_m, M, N, tiles, beta, alpha, diagonal,
    WHOLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One tile of y (n, M, M), on or below the diagonal. WHOLE: BLOCK_N divides N. diagonal: only beside an input."""
    n, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    i, j = _place(tile)
    i_rows, j_rows = _rows(x + n * x_n, i * BLOCK_M, M, x_m, BLOCK_M), _rows(x + n * x_n, j * BLOCK_M, M, x_m, BLOCK_M)
    column = tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_M], tl.float32)
    for n0 in range(0, N, BLOCK_N):
        if WHOLE:
            i_tile, j_tile = tl.load(i_rows + n0 + column), tl.load(j_rows + n0 + column)  # (BLOCK_M, BLOCK_N)
        else:
            i_tile = tl.load(i_rows + n0 + column, mask=column < N - n0, other=0.0)
            j_tile = tl.load(j_rows + n0 + column, mask=column < N - n0, other=0.0)
        total = tl.dot(i_tile, j_tile.T, total, input_precision=PRECISION)
    total *= alpha
    at, inside = _tile(input_m if input is not None else y_m, i * BLOCK_M, j * BLOCK_M, M, BLOCK_M)
    if input is not None:
        total += beta * tl.load(input + n * input_n + at, mask=inside, other=0.0).to(tl.float32)
        if i == j:
            own = tl.arange(0, BLOCK_M)[:, None] == tl.arange(0, BLOCK_M)[None, :]
            total = tl.where(own, total + diagonal, total)
    value = total.to(y.dtype.element_ty)
    if i == j:  # symmetric to the last bit, in whatever order the sums were taken
        lower = tl.arange(0, BLOCK_M)[:, None] >= tl.arange(0, BLOCK_M)[None, :]
        value = tl.where(lower, value, value.T)
    else:
        mirrored, inside_mirrored = _tile(y_m, j * BLOCK_M, i * BLOCK_M, M, BLOCK_M)
        tl.store(y + n * y_n + mirrored, value.T, mask=inside_mirrored)
    at_y, inside_y = _tile(y_m, i * BLOCK_M, j * BLOCK_M, M, BLOCK_M)
    tl.store(y + n * y_n + at_y, value, mask=inside_y)


@triton.jit
def _place(tile):
    """Row and column of a tile: 0 is (0, 0), 1 (1, 0), 2 (1, 1), 3 (2, 0). A root may be off by one, rounded."""
    i = ((tl.sqrt(8.0 * tile + 1.0) - 1.0) * 0.5).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > tile, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= tile, i + 1, i)
    return i, tile - i * (i + 1) // 2


@triton.jit
def _rows(x, start, M, stride, BLOCK: tl.constexpr):
    """Where rows start.. of a matrix begin: (BLOCK, 1). Beyond its end the last one again: nobody stores those."""
    row = tl.minimum(tl.arange(0, BLOCK), M - 1 - start)
    return x + tl.cast(start, tl.int64) * stride + (row * stride)[:, None]


@triton.jit
def _tile(stride, i0, j0, M, BLOCK: tl.constexpr):
    """Offsets of the tile whose corner is (i0, j0), and which of it lie in the (M, M) matrix: (BLOCK, BLOCK) each."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    return tl.cast(i0, tl.int64) * stride + j0 + (row * stride + column), (row < M - i0) & (column < M - j0)


class SymmetricTiles(NamedTuple):
    """Sides of a tile of the result and of what is multiplied at a time; warps and pipeline stages."""

    m: int
    n: int
    num_warps: int
    num_stages: int


def symmetric_tiles(arch: int, itemsize: int, odd: bool) -> SymmetricTiles:
    """For compute capability `arch`. odd: rows do not begin at multiples of 16 numbers, and are read one by one."""
    if arch == 0:
        return SymmetricTiles(32, 32, 4, 1)  # small ones, so that small matrices have many
    if itemsize == 4:
        return SymmetricTiles(64, 32, 4, 3)
    if odd:
        return SymmetricTiles(128, 32, 8, 2)  # each number has an address of its own in a register: fewer
    return SymmetricTiles(128, 64, 8, 4 if arch in (90, 100, 103) else 3)


def symmetric_product(
    x: Tensor, input: Tensor | None, beta: float, alpha: float, diagonal: float = 0.0
) -> Tensor:
    """beta · input + alpha · x xᵀ, equal to its own transpose to the last bit; with an input, + diagonal · I.

    Shapes: x (n, M, N), contiguous rows; input (n, M, M), symmetric, contiguous rows; returns (n, M, M).
    Dtypes: summed in float32; the result in x.dtype.
    """
    n, M, N = x.shape
    side = symmetric_tiles(arch_of(x), x.element_size(), odd=x.stride(1) % 16 != 0)
    tiles = cdiv(M, side.m) * (cdiv(M, side.m) + 1) // 2
    y = x.new_empty(n, M, M)
    launch(
        _symmetric_kernel, (n * tiles,), x, input, y, *x.stride()[:2], *(x if input is None else input).stride()[:2],
        *y.stride()[:2], M, N, tiles, beta, alpha, diagonal, WHOLE=N % side.n == 0, PRECISION=dot_precision(x),
        BLOCK_M=side.m, BLOCK_N=side.n, num_warps=side.num_warps, num_stages=side.num_stages,
    )  # fmt: skip
    return y


_symmetric_product = custom_op("minigpt::symmetric_product", symmetric_product, mutates_args=())


@_symmetric_product.register_fake
def _(x: Tensor, input: Tensor | None, beta: float, alpha: float, diagonal: float = 0.0) -> Tensor:
    return x.new_empty(x.size(0), x.size(1), x.size(1))


@torch.no_grad()
def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """Equation and shapes: `reference.newton_schulz`. No gradient: optimizers ask for none."""
    check_matrices(g)
    a, b, c = QUINTIC
    tall = g.size(-2) > g.size(-1)
    x = (g.mT if tall else g).reshape(math.prod(g.shape[:-2]), min(g.shape[-2:]), max(g.shape[-2:]))  # (n, M, N)
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).contiguous()
    product = _symmetric_product if torch.compiler.is_compiling() else symmetric_product
    for _ in range(steps):
        s = product(x, None, 0.0, 1.0)                                                                # (n, M, M)
        x = torch.bmm(product(s, s, b, c, a), x)                                                      # (n, M, N)
    x = x.view(*g.shape[:-2], *x.shape[-2:])
    return x.mT if tall else x


def uncovered_newton_schulz(g: Tensor, steps: int = 5) -> str | None:
    """Why plain torch must do it; None if this kernel can."""
    if g.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"{g.dtype} is not one of float32, float16, bfloat16"
    return None
