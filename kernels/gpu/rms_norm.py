"""RMSNorm and LayerNorm, alone or after the addition of a residual: one kernel forward, one backward, for all.

    total = x + residual                         rounded to x's dtype, as if it had been stored and read again
    h = (total - mean) · r                       r = 1 / sqrt(mean((total - mean)²) + eps); RMSNorm: mean = 0
    y = h · weight + bias

Gradient, with g = dy · weight. dy/dh is a diagonal; h lost its length (and its mean), so that neither may come back:

    dh     = g - h · mean(g · h) - mean(g)       LayerNorm only: - mean(g)
    dx     = r · dh + dtotal                     the same for x and the residual; dtotal: gradient of the second output
    dweight = Σ dy · h,  dbias = Σ dy            over all rows

A whole row stays in registers, so every number is read once and written once: memory is all that costs time here.
Backward, a few programs per processor walk over the rows and keep their part of dweight and dbias in registers. The
parts, (programs, C) in float32, are summed at the end (`parts.py`): no atomics, the same bits every time.

Source: Ba et al. 2016; Zhang & Sennrich 2019.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from kernels.checks import check_norm
from kernels.gpu.parts import sum_parts
from kernels.launch import arch_of, cdiv, launch, next_power_of_2, processors_of

# channels whose backward pass fits the registers: dbias, or a second gradient, is one more row to keep there
WIDEST = {"rms_norm": 16384, "layer_norm": 8192, "add_rms_norm": 8192}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WARPS_PER_PROCESSOR = 16  # backward: as many as run at once at 128 registers each, so that none comes too late


@triton.jit
def _load_rows(x, row0, N, stride, ROWS: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Rows row0.. of x (N, C) in float32: (ROWS, BLOCK_C); 0 beyond N and C."""
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK_C)[None, :]
    at = x + tl.cast(row0, tl.int64) * stride + (row * stride + column)
    return tl.load(at, mask=(row < N - row0) & (column < C), other=0.0).to(tl.float32)


@triton.jit
def _store_rows(x, value, row0, N, stride, ROWS: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr):
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK_C)[None, :]
    at = x + tl.cast(row0, tl.int64) * stride + (row * stride + column)
    tl.store(at, value.to(x.dtype.element_ty), mask=(row < N - row0) & (column < C))


@triton.jit
def _load_gain(weight, C: tl.constexpr, BLOCK_C: tl.constexpr):
    column = tl.arange(0, BLOCK_C)
    return tl.load(weight + column, mask=column < C, other=0.0).to(tl.float32)[None, :]  # (1, BLOCK_C)


@triton.jit
def _forward_kernel(
    x, residual, weight, bias, y, total, scale, mean, N, stride_x, stride_residual, eps,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """mean None: RMSNorm; residual None: none is added; bias None: none is added."""
    row0 = tl.program_id(0) * ROWS
    row, column = row0 + tl.arange(0, ROWS), tl.arange(0, BLOCK_C)[None, :]
    h = _load_rows(x, row0, N, stride_x, ROWS, C, BLOCK_C)                            # (ROWS, BLOCK_C)
    if residual is not None:
        h += _load_rows(residual, row0, N, stride_residual, ROWS, C, BLOCK_C)
        h = h.to(total.dtype.element_ty).to(tl.float32)
        _store_rows(total, h, row0, N, C, ROWS, C, BLOCK_C)
    if mean is not None:
        centre = tl.sum(h, 1) / C                                                     # (ROWS,)
        h = tl.where(column < C, h - centre[:, None], 0.0)
        tl.store(mean + row, centre, mask=row < N)
    r = tl.rsqrt(tl.sum(h * h, 1) / C + eps)                                          # (ROWS,)
    tl.store(scale + row, r, mask=row < N)
    h = h * r[:, None] * _load_gain(weight, C, BLOCK_C)
    if bias is not None:
        h += _load_gain(bias, C, BLOCK_C)
    _store_rows(y, h, row0, N, C, ROWS, C, BLOCK_C)


@triton.jit
def _backward_kernel(
    dy, dtotal, x, weight, scale, mean, dx, dweight, dbias, N, stride_dy, stride_dtotal, stride_x,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Every program takes each num_programs-th tile of rows. dweight, dbias: a row of C for each program."""
    dweight_tile = tl.zeros([ROWS, BLOCK_C], tl.float32)
    dbias_tile = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(N, ROWS), tl.num_programs(0)):
        row0 = tile * ROWS
        row = row0 + tl.arange(0, ROWS)
        h = _load_rows(x, row0, N, stride_x, ROWS, C, BLOCK_C)                        # (ROWS, BLOCK_C)
        g = _load_rows(dy, row0, N, stride_dy, ROWS, C, BLOCK_C)                      # (ROWS, BLOCK_C)
        r = tl.load(scale + row, mask=row < N, other=0.0)[:, None]                    # (ROWS, 1)
        if mean is not None:
            h -= tl.load(mean + row, mask=row < N, other=0.0)[:, None]
        h *= r
        dweight_tile += g * h
        if dbias is not None:
            dbias_tile += g
        g *= _load_gain(weight, C, BLOCK_C)                                           # near, and dear to keep
        d = g - h * (tl.sum(g * h, 1) / C)[:, None]
        if mean is not None:
            d -= (tl.sum(g, 1) / C)[:, None]
        d *= r
        if dtotal is not None:
            d += _load_rows(dtotal, row0, N, stride_dtotal, ROWS, C, BLOCK_C)
        _store_rows(dx, d, row0, N, C, ROWS, C, BLOCK_C)
    column = tl.arange(0, BLOCK_C)
    own = tl.program_id(0).to(tl.int64) * C + column
    tl.store(dweight + own, tl.sum(dweight_tile, 0), mask=column < C)
    if dbias is not None:
        tl.store(dbias + own, tl.sum(dbias_tile, 0), mask=column < C)


# --- on the host ----------------------------------------------------------------------------------------


def tile(arch: int, C: int, per_thread: int) -> dict[str, int]:
    """Rows per program and its warps, so that a thread holds about so many numbers."""
    width = next_power_of_2(C)
    if arch == 0:
        return {"ROWS": 2, "BLOCK_C": width, "num_warps": 4}  # small ones, so that small tensors have many
    num_warps = min(16, max(4, width // (32 * per_thread)))
    return {"ROWS": max(1, num_warps * 32 * per_thread // width), "BLOCK_C": width, "num_warps": num_warps}


def order(x: Tensor) -> list[int]:
    """Leading dimensions as they lie in memory, outermost first; as they come if x has gaps.

    A norm does not care in which order it meets the rows, so that heads seen through a transpose need no copy.
    """
    dims = list(range(x.dim() - 1))
    by_stride = sorted(dims, key=x.stride, reverse=True)
    return by_stride if x.permute(*by_stride, -1).is_contiguous() else dims


def empty_as(x: Tensor) -> Tensor:
    """Room for a result, laid out as x; without x's gaps if it has some."""
    return torch.empty_like(x) if x.permute(*order(x), -1).is_contiguous() else x.new_empty(x.shape)


def flat(x: Tensor, dims: list[int]) -> Tensor:
    """(N, C), rows in the order of `dims`: a view where there is one."""
    rows = x.permute(*dims, -1).reshape(-1, x.size(-1))
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y; total, empty without a residual; and per row r, and the mean if `centred`: (1 or 2, N) in float32."""
    dims, C = order(x), x.size(-1)
    rows = flat(x, dims)                                                              # (N, C)
    added = None if residual is None else flat(residual, dims)
    y, total = empty_as(x), x.new_empty(0) if residual is None else empty_as(x)
    N, side = rows.size(0), tile(arch_of(x), C, 32)
    statistics = x.new_empty((1 + centred, N), dtype=torch.float32)
    launch(
        _forward_kernel, (cdiv(N, side["ROWS"]),), rows, added, weight, bias, y, total, statistics[0],
        statistics[1] if centred else None, N, rows.stride(0), 0 if added is None else added.stride(0), eps,
        C=C, **side,
    )  # fmt: skip
    return y, total, statistics


def backward(
    dy: Tensor, dtotal: Tensor | None, x: Tensor, weight: Tensor, statistics: Tensor, biased: bool
) -> tuple[Tensor, Tensor]:
    """dx, laid out as x; and dweight, with dbias if `biased`: (1 or 2, C) as weight. x: with a residual, the total."""
    dims, C = order(x), x.size(-1)
    rows, drows = flat(x, dims), flat(dy, dims)                                       # (N, C)
    added = None if dtotal is None else flat(dtotal, dims)
    dx, N, side = empty_as(x), rows.size(0), tile(arch_of(x), C, 16)  # fewer: the sums need registers too
    programs = min(cdiv(N, side["ROWS"]), WARPS_PER_PROCESSOR // side["num_warps"] * processors_of(x))
    parts = x.new_empty((1 + biased, programs, C), dtype=torch.float32)
    launch(
        _backward_kernel, (programs,), drows, added, rows, weight, statistics[0],
        statistics[1] if statistics.size(0) == 2 else None, dx, parts[0], parts[1] if biased else None,
        N, drows.stride(0), 0 if added is None else added.stride(0), rows.stride(0), C=C, **side,
    )  # fmt: skip
    return dx, sum_parts(parts, weight.dtype)


# --- as ops ---------------------------------------------------------------------------------------------


_forward = custom_op("minigpt::norm", forward, mutates_args=())
_backward = custom_op("minigpt::norm_backward", backward, mutates_args=())


@_forward.register_fake
def _(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    N = x.numel() // x.size(-1)
    total = x.new_empty(0) if residual is None else empty_as(x)
    return empty_as(x), total, x.new_empty((1 + centred, N), dtype=torch.float32)


@_backward.register_fake
def _(
    dy: Tensor, dtotal: Tensor | None, x: Tensor, weight: Tensor, statistics: Tensor, biased: bool
) -> tuple[Tensor, Tensor]:
    return empty_as(x), weight.new_empty((1 + biased, x.size(-1)))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, residual, weight, bias, _, _ = inputs
    _, total, statistics = output
    ctx.save_for_backward(x if residual is None else total, weight, statistics)
    ctx.residual, ctx.biased = residual is not None, bias is not None
    ctx.set_materialize_grads(False)  # a total that nobody used has no gradient: do not read zeros


def _gradients(ctx: Any, dy: Tensor | None, dtotal: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return dtotal, dtotal, None, None, None, None
    x, weight, statistics = ctx.saved_tensors
    dx, gains = _backward(dy, dtotal if ctx.residual else None, x, weight, statistics, ctx.biased)
    return dx, dx if ctx.residual else None, gains[0], gains[1] if ctx.biased else None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Equation and shapes: `reference.rms_norm`."""
    check_norm(x, weight)
    return _forward(x, None, weight, None, eps, False)[0]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Equation and shapes: `reference.layer_norm`."""
    check_norm(x, weight, bias)
    return _forward(x, None, weight, bias, eps, True)[0]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Equation and shapes: `reference.add_rms_norm`."""
    check_norm(x, weight, residual=residual)
    y, total, _ = _forward(x, residual, weight, None, eps, False)
    return y, total


def uncovered_rms_norm(x: Tensor, weight: Tensor, eps: float) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    return _uncovered(WIDEST["rms_norm"], x, weight)


def uncovered_layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    return _uncovered(WIDEST["layer_norm"], x, weight, *([] if bias is None else [bias]))


def uncovered_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    return _uncovered(WIDEST["add_rms_norm"], x, weight)


def _uncovered(widest: int, x: Tensor, *gains: Tensor) -> str | None:
    C = x.shape[-1] if x.dim() else 1
    if widest < C:
        return f"a row of {C} channels is wider than {widest} and would not fit the registers"
    if x.dtype not in DTYPES:
        return f"{x.dtype} is not one of float32, float16 and bfloat16"
    for gain in gains:
        if not gain.is_contiguous():
            return "weight or bias is not contiguous"
        if gain.dtype not in (torch.float32, x.dtype):
            return f"weight and bias must be float32 or {x.dtype} as x, one is {gain.dtype}"
        if gain.dtype != gains[0].dtype:
            return f"weight and bias differ in dtype: {gains[0].dtype} and {gain.dtype}"
    return None
