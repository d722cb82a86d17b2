"""Rotary positions, alone or after the norm of each head (QK-norm): one read, one write.

    h = x · r · weight                            r = 1 / sqrt(mean(x²) + eps); without a norm: h = x
    (a, b) -> (a cos - b sin, b cos + a sin)      a, b: first and second half of h

Gradient: a turn is undone by the turn back, so that with dy turned back g = (da cos + db sin, db cos - da sin),

    dh      = g
    dweight = Σ g · x · r                         over all heads
    dx      = r · (g · weight - x · r · mean(g · weight · x · r))

Without a norm the backward pass is the forward pass with the opposite angle. With one, r is computed again, for x
is read anyway. x is usually (B, T, H, D) in memory and seen as (B, H, T, D): a program takes some positions and the
heads that lie beside each other there, and loads their angles once.

Source: Su et al. 2021; norm of queries and keys Dehghani et al. 2023.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from kernels.checks import check_norm, check_rotary
from kernels.gpu.parts import sum_parts
from kernels.launch import arch_of, cdiv, launch, next_power_of_2, processors_of

WIDEST = 1024  # channels of a head: a program holds whole heads in registers
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PROGRAMS_PER_PROCESSOR = 3  # backward: as many as run at once at 168 registers a thread, so that none comes too late


@triton.jit
def _place(job, H, T, HEADS: tl.constexpr, BLOCK_T: tl.constexpr):
    """Which sequence, first head and first position are a job's. Neighbours in memory have neighbouring jobs."""
    groups, tiles = tl.cdiv(H, HEADS), tl.cdiv(T, BLOCK_T)
    return job // groups // tiles, job % groups * HEADS, job // groups % tiles * BLOCK_T


@triton.jit
def _at(x, b, h, t0, x_b, x_h, x_t, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """Where the first halves of a head's channels lie, from position t0 on: (BLOCK_T, BLOCK_D)."""
    x += tl.cast(b, tl.int64) * x_b + tl.cast(h, tl.int64) * x_h + tl.cast(t0, tl.int64) * x_t
    return x + (tl.arange(0, BLOCK_T)[:, None] * x_t + tl.arange(0, BLOCK_D)[None, :])


@triton.jit
def _inside(h, H, t0, T, HALF: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """Which of them exist: (BLOCK_T, BLOCK_D). None of a head beyond the last."""
    positions = tl.where(h < H, T - t0, 0)
    return (tl.arange(0, BLOCK_T)[:, None] < positions) & (tl.arange(0, BLOCK_D)[None, :] < HALF)


@triton.jit
def _load_angles(cos, sin, b, t0, T, cos_b, HALF: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    t, i = tl.arange(0, BLOCK_T)[:, None], tl.arange(0, BLOCK_D)[None, :]
    at = tl.cast(b, tl.int64) * cos_b + tl.cast(t0, tl.int64) * HALF + (t * HALF + i)
    there = (t < T - t0) & (i < HALF)
    return tl.load(cos + at, there, 0.0).to(tl.float32), tl.load(sin + at, there, 0.0).to(tl.float32)


@triton.jit
def _load_gain(weight, HALF: tl.constexpr, BLOCK_D: tl.constexpr):
    i = tl.arange(0, BLOCK_D)
    a = tl.load(weight + i, i < HALF, 0.0).to(tl.float32)
    b = tl.load(weight + HALF + i, i < HALF, 0.0).to(tl.float32)
    return a[None, :], b[None, :]                                              # (1, BLOCK_D)


@triton.jit
def _turn_kernel(
    x, weight, cos, sin, y, x_b, x_h, x_t, y_b, y_h, y_t, cos_b, H, T, eps,
    BACK: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """weight None: no norm. BACK: by the opposite angle."""
    batch, h0, t0 = _place(tl.program_id(0), H, T, HEADS, BLOCK_T)
    c, s = _load_angles(cos, sin, batch, t0, T, cos_b, HALF, BLOCK_T, BLOCK_D)  # (BLOCK_T, BLOCK_D)
    if BACK:
        s = -s
    if weight is not None:
        gain_a, gain_b = _load_gain(weight, HALF, BLOCK_D)
    for i in tl.static_range(HEADS):
        h = h0 + i
        there = _inside(h, H, t0, T, HALF, BLOCK_T, BLOCK_D)
        from_x = _at(x, batch, h, t0, x_b, x_h, x_t, BLOCK_T, BLOCK_D)
        a = tl.load(from_x, there, 0.0).to(tl.float32)               # (BLOCK_T, BLOCK_D)
        b = tl.load(from_x + HALF, there, 0.0).to(tl.float32)
        if weight is not None:
            r = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * HALF) + eps)[:, None]
            a, b = a * r * gain_a, b * r * gain_b
        to_y = _at(y, batch, h, t0, y_b, y_h, y_t, BLOCK_T, BLOCK_D)
        tl.store(to_y, (a * c - b * s).to(y.dtype.element_ty), there)
        tl.store(to_y + HALF, (b * c + a * s).to(y.dtype.element_ty), there)


@triton.jit
def _backward_kernel(
    dy, x, weight, cos, sin, dx, dweight,
    dy_b, dy_h, dy_t, x_b, x_h, x_t, dx_b, dx_h, dx_t, cos_b, H, T, jobs, eps,
    HALF: tl.constexpr, HEADS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Every program takes each num_programs-th job. dweight: a row of 2 · HALF for each program."""
    dweight_a = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    dweight_b = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    gain_a, gain_b = _load_gain(weight, HALF, BLOCK_D)
    for job in range(tl.program_id(0), jobs, tl.num_programs(0)):
        batch, h0, t0 = _place(job, H, T, HEADS, BLOCK_T)
        c, s = _load_angles(cos, sin, batch, t0, T, cos_b, HALF, BLOCK_T, BLOCK_D)
        for i in tl.static_range(HEADS):
            h = h0 + i
            there = _inside(h, H, t0, T, HALF, BLOCK_T, BLOCK_D)
            from_x = _at(x, batch, h, t0, x_b, x_h, x_t, BLOCK_T, BLOCK_D)
            from_dy = _at(dy, batch, h, t0, dy_b, dy_h, dy_t, BLOCK_T, BLOCK_D)
            a = tl.load(from_x, there, 0.0).to(tl.float32)           # (BLOCK_T, BLOCK_D)
            b = tl.load(from_x + HALF, there, 0.0).to(tl.float32)
            da = tl.load(from_dy, there, 0.0).to(tl.float32)
            db = tl.load(from_dy + HALF, there, 0.0).to(tl.float32)
            r = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * HALF) + eps)[:, None]
            a, b = a * r, b * r
            da, db = da * c + db * s, db * c - da * s                          # turned back
            dweight_a += da * a
            dweight_b += db * b
            da, db = da * gain_a, db * gain_b
            along = (tl.sum(da * a + db * b, 1) / (2 * HALF))[:, None]
            to_dx = _at(dx, batch, h, t0, dx_b, dx_h, dx_t, BLOCK_T, BLOCK_D)
            tl.store(to_dx, (r * (da - a * along)).to(dx.dtype.element_ty), there)
            tl.store(to_dx + HALF, (r * (db - b * along)).to(dx.dtype.element_ty), there)
    own, i = dweight + tl.program_id(0) * 2 * HALF, tl.arange(0, BLOCK_D)
    tl.store(own + i, tl.sum(dweight_a, 0), i < HALF)
    tl.store(own + HALF + i, tl.sum(dweight_b, 0), i < HALF)


# --- on the host ----------------------------------------------------------------------------------------


def tile(arch: int, H: int, T: int, D: int) -> dict[str, int]:
    """What a job consists of: 8 numbers of each half per thread and head, 16 bytes in half precision."""
    half = next_power_of_2(D // 2)
    if arch == 0:
        return {"HALF": D // 2, "HEADS": 2, "BLOCK_T": 4, "BLOCK_D": half}  # small, so that small tensors have many
    positions = min(max(1, 1024 // half), next_power_of_2(T))
    return {"HALF": D // 2, "HEADS": min(4, next_power_of_2(H)), "BLOCK_T": positions, "BLOCK_D": half}


def _jobs(x: Tensor, side: dict[str, int]) -> int:
    return x.size(0) * cdiv(x.size(1), side["HEADS"]) * cdiv(x.size(2), side["BLOCK_T"])


def _stride_b(cos: Tensor) -> int:
    """From one sequence's angles to the next one's: 0 if all share them."""
    return 0 if cos.dim() == 2 or cos.size(0) == 1 else cos.stride(0)


def turn(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, back: bool) -> Tensor:
    """x (B, H, T, D), normed if there is a weight, turned by the angle, or back by it. Laid out in memory as x."""
    (_, H, T, D), y = x.shape, torch.empty_like(x)
    side = tile(arch_of(x), H, T, D)
    launch(
        _turn_kernel, (_jobs(x, side),), x, weight, cos, sin, y, *x.stride()[:3], *y.stride()[:3], _stride_b(cos),
        H, T, eps, BACK=back, **side,
    )  # fmt: skip
    return y


def backward(dy: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """dx, laid out as x, and dweight (D,), of norm and turn together."""
    (_, H, T, D), dx = x.shape, torch.empty_like(x)
    side = tile(arch_of(x), H, T, D)
    jobs = _jobs(x, side)
    programs = min(jobs, PROGRAMS_PER_PROCESSOR * processors_of(x))
    parts = x.new_empty((1, programs, D), dtype=torch.float32)
    launch(
        _backward_kernel, (programs,), dy, x, weight, cos, sin, dx, parts, *dy.stride()[:3], *x.stride()[:3],
        *dx.stride()[:3], _stride_b(cos), H, T, jobs, eps, **side,
    )  # fmt: skip
    return dx, sum_parts(parts, weight.dtype)[0]


# --- as ops ---------------------------------------------------------------------------------------------


_turn = custom_op("minigpt::turn", turn, mutates_args=())
_backward = custom_op("minigpt::turn_backward", backward, mutates_args=())


@_turn.register_fake
def _(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, back: bool) -> Tensor:
    return torch.empty_like(x)


@_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), weight.new_empty(x.size(-1))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, cos, sin, ctx.eps, ctx.back = inputs
    ctx.save_for_backward(None if weight is None else x, weight, cos, sin)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, cos, sin = ctx.saved_tensors
    dy = dy if dy.stride(-1) == 1 else dy.contiguous()
    if weight is None:
        return _turn(dy, None, cos, sin, ctx.eps, not ctx.back), None, None, None, None, None
    dx, dweight = _backward(dy, x, weight, cos, sin, ctx.eps)
    return dx, dweight, None, None, None, None


_turn.register_autograd(_gradients, setup_context=_keep)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Equation and shapes: `reference.rotary`. x: any strides with a contiguous last dimension."""
    check_rotary(x, cos, sin)
    return _turn(x, None, cos.contiguous(), sin.contiguous(), 0.0, False)


def rms_norm_rotary(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """Equation and shapes: `reference.rms_norm_rotary`. Nothing is rounded between norm and turn."""
    check_norm(x, weight)
    check_rotary(x, cos, sin)
    return _turn(x, weight, cos.contiguous(), sin.contiguous(), eps, False)


def uncovered_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> str | None:
    """Why plain torch must do it; None if these kernels can, or nobody can."""
    if x.dim() != 4:
        return None
    if x.size(-1) > WIDEST:
        return f"heads of {x.size(-1)} channels are wider than {WIDEST}"
    if x.dtype not in DTYPES or cos.dtype not in DTYPES or sin.dtype not in DTYPES:
        return f"{x.dtype}, {cos.dtype} or {sin.dtype} is not one of float32, float16 and bfloat16"
    if x.stride(-1) != 1:
        return "the last dimension of x is not contiguous"
    shared = (*x.shape[2:3], x.size(-1) // 2)
    if cos.shape not in (shared, (1, 1, *shared), (x.size(0), 1, *shared)):
        return f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} are not (T, D/2) or (B, 1, T, D/2)"
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        return "the gradient of cos and sin is left to plain torch"
    return None


def uncovered_rms_norm_rotary(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    if not weight.is_contiguous():
        return "weight is not contiguous"
    if weight.dtype not in (torch.float32, x.dtype):
        return f"weight must be float32 or {x.dtype} as x, it is {weight.dtype}"
    return uncovered_rotary(x, cos, sin)
