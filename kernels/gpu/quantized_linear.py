"""y = x Wᵀ for the few rows of decoding, W stored in 8 or 4 bits a number (`quantization.py` has the formats).

A new token per sequence reads the whole weight and multiplies each number with a handful of others: the time is that
of reading, and half or a quarter of the bytes is half or a quarter of the time. So nothing here is ever written back
in full: integers become floats in registers, and the scale multiplies sums, not numbers:

    int8   y[n] = scale[n] · Σ_k x[k] · number[n, k]
    int4   y[n] = Σ_groups scale[n, group] · Σ_{k in group} x[k] · (number[n, k] - 8)

A single row is multiplied and summed, which streams 16 bytes of weights per thread and load; up to 16 rows are padded
to a tile of 16 for the matrix units, in which the small integers are exact at any dtype. More rows are bound by
arithmetic, not by reading: the weight is written out once in x.dtype, and torch multiplies.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from kernels.gpu.arithmetic import dot_precision
from kernels.launch import arch_of, cdiv, launch
from kernels.quantization import check_quantized_linear, columns, grouped

FEW = 16  # rows of x: what a tile of the matrix units takes at least


@triton.jit
def _number(stored, ZERO: tl.constexpr):
    """stored - ZERO as a float, for bytes: set into the mantissa of 2²³, from which 2²³ + ZERO is taken again.

    Two instructions at full speed; the GPU's converter of 8 and 16 bits is too slow to keep up with memory.
    """
    return (stored.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + ZERO)


@triton.jit
def _one_row_kernel(
    x, weight, scale, y, weight_n, scale_n, N, K, group,
    FOUR_BITS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK_N numbers of y. A row of weights is walked BLOCK pieces of 16 bytes at a time."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, N - 1).to(tl.int64)                                # the tail repeats the last row
    total = tl.zeros([BLOCK_N, BLOCK, 1 if FOUR_BITS else 16], tl.float32)
    width = K // 2 if FOUR_BITS else K                                     # bytes of a row
    for start in range(0, width, BLOCK * 16):
        piece = start + tl.arange(0, BLOCK) * 16
        at = piece[:, None] + tl.arange(0, 16)[None, :]                    # (BLOCK, 16)
        there = (piece < width)[:, None] if FOUR_BITS else at < width      # four bits: K/2 divides by 16
        bytes_at = weight + row[:, None, None] * weight_n + at[None]
        w = tl.load(bytes_at, mask=there[None], other=0)                   # (BLOCK_N, BLOCK, 16)
        if FOUR_BITS:
            pair = 2 * at[:, :, None] + tl.arange(0, 2)[None, None, :]     # (BLOCK, 16, 2): as weights lie in threads
            even, odd = tl.split(tl.load(x + pair, mask=there[:, :, None], other=0.0).to(tl.float32))
            of_piece = row[:, None] * scale_n + (2 * piece // group)[None, :]
            s = tl.load(scale + of_piece, mask=(piece < width)[None, :], other=0.0).to(tl.float32)
            products = _number(w & 15, 8) * even[None] + _number(w >> 4, 8) * odd[None]
            total += s[:, :, None] * tl.sum(products, 2, keep_dims=True)
        else:
            row_x = tl.load(x + at, mask=there, other=0.0).to(tl.float32)  # (BLOCK, 16)
            total += _number(w.to(tl.uint8, bitcast=True) ^ 128, 128) * row_x[None]
    result = tl.sum(tl.sum(total, 2), 1)
    if not FOUR_BITS:
        result *= tl.load(scale + row * scale_n).to(tl.float32)
    tl.store(y + n, result.to(y.dtype.element_ty), mask=n < N)


@triton.jit
def _few_rows_kernel(
    x, weight, scale, y, x_m, weight_n, scale_n, M, N, K, group,
    FOUR_BITS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y (M, BLOCK_N of N). With 4 bits BLOCK_K divides the group, so that a step has one scale per row."""
    m = tl.arange(0, BLOCK_M)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(n, N - 1).to(tl.int64)
    x_row = x + tl.minimum(m, M - 1)[:, None] * x_m                        # (BLOCK_M, 1)
    w_row = weight + row[:, None] * weight_n                               # (BLOCK_N, 1)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        x_tile = tl.load(x_row + k[None, :], mask=(k < K)[None, :], other=0.0)              # (BLOCK_M, BLOCK_K)
        if FOUR_BITS:
            w = tl.load(w_row + (k0 // 2 + tl.arange(0, BLOCK_K // 2))[None, :])
            low, high = _number(w & 15, 8), _number(w >> 4, 8)             # (BLOCK_N, BLOCK_K / 2)
            even, odd = tl.split(tl.reshape(x_tile, (BLOCK_M, BLOCK_K // 2, 2)))
            part = tl.dot(even, low.to(x_tile.dtype).T, input_precision=PRECISION)
            part = tl.dot(odd, high.to(x_tile.dtype).T, part, input_precision=PRECISION)
            total += part * tl.load(scale + row * scale_n + k0 // group).to(tl.float32)[None, :]
        else:
            w = tl.load(w_row + k[None, :], mask=(k < K)[None, :], other=0)                 # (BLOCK_N, BLOCK_K)
            w = _number(w.to(tl.uint8, bitcast=True) ^ 128, 128)
            total = tl.dot(x_tile, w.to(x_tile.dtype).T, total, input_precision=PRECISION)
    if not FOUR_BITS:
        total *= tl.load(scale + row * scale_n).to(tl.float32)[None, :]
    at = y + m[:, None] * N + n[None, :]
    tl.store(at, total.to(y.dtype.element_ty), mask=(m < M)[:, None] & (n < N)[None, :])


def few_rows(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x (M, K) with 1 <= M <= FEW -> (M, N)."""
    M, N, K = x.size(0), weight.size(0), columns(weight)
    on_gpu, four = arch_of(x) != 0, weight.dtype == torch.uint8
    group = K // scale.size(1) if four else K
    x = x.contiguous()
    y = x.new_empty((M, N))
    if M == 1:
        block_n, block = (4, 64) if on_gpu else (16, 4)
        launch(
            _one_row_kernel, (cdiv(N, block_n),), x, weight, scale, y, weight.stride(0), scale.stride(0), N, K, group,
            FOUR_BITS=four, BLOCK_N=block_n, BLOCK=block,
        )  # fmt: skip
        return y
    widest = 256 // x.element_size() if on_gpu else 64                      # float32: more would not fit the registers
    block_n, block_k = (32, min(widest, group & -group) if four else widest)
    launch(
        _few_rows_kernel, (cdiv(N, block_n),), x, weight, scale, y, x.stride(0), weight.stride(0), scale.stride(0),
        M, N, K, group, FOUR_BITS=four, PRECISION=dot_precision(x), BLOCK_M=FEW, BLOCK_N=block_n, BLOCK_K=block_k,
        num_stages=4,
    )  # fmt: skip
    return y


def written_out(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """W (N, K) in dtype. Multiplied in float32 and rounded on the way out: W in float32 is never held."""
    numbers, scales = grouped(weight, scale)
    w = torch.empty(numbers.shape, dtype=dtype, device=numbers.device)
    return torch.mul(numbers, scales, out=w).flatten(1)


_few_rows = custom_op("minigpt::quantized_linear", few_rows, mutates_args=())


@_few_rows.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty((x.size(0), weight.size(0)))


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Equation, shapes and errors: `quantization.quantized_linear`. More than 16 rows: torch, on W in x.dtype.

    No gradients: see `uncovered_quantized_linear`.
    """
    check_quantized_linear(x, weight, scale)
    rows = x.reshape(-1, x.size(-1))                                       # (M, K)
    if not 1 <= rows.size(0) <= FEW:
        return F.linear(x, written_out(weight, scale, x.dtype))
    op = _few_rows if torch.compiler.is_compiling() else few_rows  # the op costs the host more than the launch does
    return op(rows, weight, scale).view(*x.shape[:-1], weight.size(0))


def uncovered_quantized_linear(x: Tensor, weight: Tensor, scale: Tensor) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return "gradients of quantized weights are left to plain torch"
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"x of {x.dtype}: only float32, float16 and bfloat16 have a kernel"
    if any(x.stride()[-1:] not in ((), (1,)) for x in (weight, scale)):
        return "the last dimension of weight or scale is not contiguous"
    return None
