"""The head's matmul and the loss, a chunk of tokens at a time: the (N, V) logits never exist.

For one token, s its logits (with a softcap c, s = c · tanh(logits / c)) and z the weight of the z-loss:

    lse  = log sum exp s
    loss = lse - s[target] + z · lse²

    d lse / d s       = p = exp(s - lse)
    d loss / d s      = p · (1 + 2 z · lse) - onehot(target)
    d loss / d logits = that · (1 - tanh²)     with a softcap
    dx                = dlogits weight
    dweight           = dlogitsᵀ x             summed over the chunks in float32

The matrix products are cuBLAS's. Between them one kernel walks over each row of the chunk's logits: once for lse,
once more to put the gradient in their place. The second walk finds the row in the L2 cache, so that logits cross
the memory bus five times: out of the matmul, in and out of the kernel, into the two matmuls of the gradients.

A sum or mean weighs every token alike, so the forward pass can make the gradient already, up to one factor known in
the backward pass: three products. Losses per token are weighed by whoever asked for them: the backward pass makes
the logits again, four products.

Memory held beside x, weight and dx: one chunk of logits (CHUNK_BYTES), dweight in float32, and weight in x.dtype if
it had another. For N = 16384, C = 768, V = 50304 in bfloat16 that is 0.21 + 0.15 + 0.08 GB. The logits alone would
be 1.6 GB, and plain torch keeps or makes several tensors of their size in float32, 3.3 GB each.

Source: Hsu et al. 2024, "Liger Kernel"; Milakov & Gimelshein 2018, "Online normalizer calculation for softmax".
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import custom_op

from kernels.checks import check_linear_cross_entropy
from kernels.gpu.arithmetic import LN2, LOG2E, NOTHING_YET, capped
from kernels.launch import arch_of, cdiv, launch, next_power_of_2

CHUNK_BYTES = 208 * 2**20          # 2048 rows of 50304 in half precision: enough to fill a GPU in every matmul
LANES = 1024                       # 32 warps: two rows at a time per multiprocessor, so that L2 holds all of them


# --- one row --------------------------------------------------------------------------------------------


@triton.jit
def _row_kernel(
    logits, width, V, targets, ignore_index, losses, lses, dlosses, softcap, z_loss,
    GRADIENT: tl.constexpr, SOFTCAP: tl.constexpr, LANES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A token's loss and lse, or lse from before where no losses are asked for; then the gradient in logits' place.

    A target outside the vocabulary makes NaN of both: a GPU cannot raise without being waited for.
    """
    n = tl.program_id(0)
    logits += n.to(tl.int64) * width
    target = tl.load(targets + n)
    counted, exists = target != ignore_index, (target >= 0) & (target < V)
    if losses is None:
        lse = tl.load(lses + n)
    else:
        picked = tl.load(logits + target, mask=exists, other=0.0).to(tl.float32)  # while it is still there
        picked, _ = _score(picked, softcap, SOFTCAP)
        lse = _logsumexp(logits, width, V, softcap, SOFTCAP, LANES, WIDE)
        loss = tl.where(exists, lse - picked + z_loss * lse * lse, float("nan"))
        tl.store(losses + n, tl.where(counted, loss, 0.0))
        if lses is not None:
            tl.store(lses + n, lse)
    if GRADIENT:
        dloss = tl.where(exists, 1.0, float("nan"))
        if dlosses is not None:
            dloss *= tl.load(dlosses + n)
        for v0 in range(0, width, LANES * WIDE):
            v = _columns(v0, LANES, WIDE)
            s, slope = _score(tl.load(logits + v, mask=v < width, other=0.0).to(tl.float32), softcap, SOFTCAP)
            p = tl.exp2((s - lse) * LOG2E)
            d = (p * (1 + 2 * z_loss * lse) - tl.where(v == target.to(tl.int32), 1.0, 0.0)) * slope * dloss
            d = tl.where(counted, d, 0.0)
            tl.store(logits + v, d.to(logits.dtype.element_ty), mask=v < width)


@triton.jit
def _logsumexp(
    logits, width, V, softcap, SOFTCAP: tl.constexpr, LANES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Each lane keeps its own maximum and sum, so that threads wait for each other once per row, at the end."""
    top = tl.full([LANES], NOTHING_YET, tl.float32)
    total = tl.zeros([LANES], tl.float32)
    for v0 in range(0, width, LANES * WIDE):
        v = _columns(v0, LANES, WIDE)                                  # (LANES, WIDE)
        s, _ = _score(tl.load(logits + v, mask=v < width, other=0.0).to(tl.float32), softcap, SOFTCAP)
        s = tl.where(v < V, s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1))                        # (LANES,)
        total = total * tl.exp2((top - new_top) * LOG2E) + tl.sum(tl.exp2((s - new_top[:, None]) * LOG2E), 1)
        top = new_top
    highest = tl.max(top, 0)
    return highest + tl.log2(tl.sum(total * tl.exp2((top - highest) * LOG2E), 0)) * LN2


@triton.jit
def _columns(v0, LANES: tl.constexpr, WIDE: tl.constexpr):
    """(LANES, WIDE): WIDE neighbours are 16 bytes, loaded by one thread in one instruction."""
    return v0 + tl.arange(0, LANES)[:, None] * WIDE + tl.arange(0, WIDE)[None, :]


@triton.jit
def _score(x, softcap, SOFTCAP: tl.constexpr):
    """softcap · tanh(x / softcap) and its slope 1 - tanh²; without a softcap x and 1."""
    slope = 1.0
    if SOFTCAP:
        x, slope = capped(x, 1 / softcap, softcap)
    return x, slope


# --- chunk by chunk -------------------------------------------------------------------------------------


def token_losses(
    x: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, softcap: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """losses and lse, (N,) in float32, of x (N, C), weight (V, C), targets (N,). softcap 0: none."""
    losses, lse = (x.new_empty(x.size(0), dtype=torch.float32) for _ in range(2))
    _walk(x, weight, targets, losses, lse, None, ignore_index, softcap, z_loss, False, False)
    return losses, lse


def token_gradients(
    dlosses: Tensor, lse: Tensor, x: Tensor, weight: Tensor, targets: Tensor,
    ignore_index: int, softcap: float, z_loss: float, grad_x: bool, grad_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dx (N, C) in x.dtype and dweight (V, C) in float32, each empty unless asked for."""
    dlosses = dlosses.contiguous()
    return _walk(x, weight, targets, None, lse, dlosses, ignore_index, softcap, z_loss, grad_x, grad_weight)


def total_loss(
    x: Tensor, weight: Tensor, targets: Tensor,
    ignore_index: int, softcap: float, z_loss: float, grad_x: bool, grad_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The sum of the losses, and its gradients as above.

    The mean's gradients are these, divided at the very end: p / N would vanish in float16.
    """
    losses = x.new_empty(x.size(0), dtype=torch.float32)
    gradients = _walk(x, weight, targets, losses, None, None, ignore_index, softcap, z_loss, grad_x, grad_weight)
    return losses.sum(), *gradients


def _walk(
    x: Tensor, weight: Tensor, targets: Tensor, losses: Tensor | None, lse: Tensor | None, dlosses: Tensor | None,
    ignore_index: int, softcap: float, z_loss: float, grad_x: bool, grad_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Logits, losses and gradients of one chunk of tokens after the other; losses and lse are filled in."""
    (N, _), V = x.shape, weight.size(0)
    weight, targets = weight.to(x.dtype), targets.contiguous()
    width = cdiv(V, 16) * 16  # rows begin at multiples of 16, or none but the first could be read 16 bytes at a time
    lanes = _lanes(arch_of(x), width, x.element_size())
    rows = _chunk_rows(arch_of(x), width * x.element_size())
    buffer = x.new_empty(min(N, rows), width)
    dx, dweight = _unfilled(x, weight, grad_x, grad_weight)
    dweight.zero_()
    for start in range(0, N, rows):
        chunk = slice(start, min(N, start + rows))
        x_n = x[chunk]                                         # (n, C)
        logits = buffer[: x_n.size(0), :V]                     # (n, V)
        torch.mm(x_n, weight.T, out=logits)
        of_chunk = [None if each is None else each[chunk] for each in (losses, lse, dlosses)]
        launch(
            _row_kernel, (x_n.size(0),), buffer, width, V, targets[chunk], ignore_index, *of_chunk, softcap, z_loss,
            GRADIENT=grad_x or grad_weight, SOFTCAP=softcap != 0, WIDE=16 // x.element_size(), LANES=lanes,
            num_warps=max(1, lanes // 32),
        )  # fmt: skip
        if grad_x:
            torch.mm(logits, weight, out=dx[chunk])
        if grad_weight:
            _add_product(dweight, logits.T, x_n)
    return dx, dweight


def _unfilled(x: Tensor, weight: Tensor, grad_x: bool, grad_weight: bool) -> tuple[Tensor, Tensor]:
    """Room for dx and dweight; none where they are not asked for."""
    dx = x.new_empty(x.shape if grad_x else 0)
    return dx, weight.new_empty(weight.shape if grad_weight else 0, dtype=torch.float32)


def _chunk_rows(arch: int, row_bytes: int) -> int:
    """How many tokens share the buffer: about CHUNK_BYTES of them, but enough to keep the matmuls busy."""
    if arch == 0:
        return 4  # few, so that small tensors have several chunks
    return max(512, CHUNK_BYTES // row_bytes // 128 * 128)


def _lanes(arch: int, width: int, itemsize: int) -> int:
    """How many times 16 bytes a program reads at once, one per thread."""
    if arch == 0:
        return 4
    return min(LANES, max(32, next_power_of_2(cdiv(width * itemsize, 16))))


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, with float32 kept from the accumulators of a half-precision matmul on: cuBLAS alone can."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif total.device.type == "cuda":
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.add_(a @ b)


# --- the op ---------------------------------------------------------------------------------------------

_token_losses = custom_op("minigpt::token_losses", token_losses, mutates_args=())
_token_gradients = custom_op("minigpt::token_gradients", token_gradients, mutates_args=())
_total_loss = custom_op("minigpt::total_loss", total_loss, mutates_args=())


@_token_losses.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.size(0), dtype=torch.float32), x.new_empty(x.size(0), dtype=torch.float32)


@_token_gradients.register_fake
def _(
    dlosses: Tensor, lse: Tensor, x: Tensor, weight: Tensor, targets: Tensor,
    ignore_index: int, softcap: float, z_loss: float, grad_x: bool, grad_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _unfilled(x, weight, grad_x, grad_weight)


@_total_loss.register_fake
def _(
    x: Tensor, weight: Tensor, targets: Tensor,
    ignore_index: int, softcap: float, z_loss: float, grad_x: bool, grad_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return x.new_empty((), dtype=torch.float32), *_unfilled(x, weight, grad_x, grad_weight)


def _keep_lse(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, targets, *ctx.how = inputs
    ctx.save_for_backward(output[1], x, weight, targets)
    ctx.mark_non_differentiable(output[1])


def _make_again(ctx: Any, dlosses: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    graded = ctx.needs_input_grad[:2]
    dx, dweight = _token_gradients(dlosses, *ctx.saved_tensors, *ctx.how, *graded)
    dtype = ctx.saved_tensors[2].dtype
    return dx if graded[0] else None, dweight.to(dtype) if graded[1] else None, None, None, None, None


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *gradients = output
    ctx.dtypes, ctx.graded = [x.dtype for x in inputs[:2]], inputs[-2:]
    ctx.save_for_backward(*gradients)
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)  # or zeros were made, as large as the gradients, to stand for theirs


@once_differentiable
def _scale(ctx: Any, dtotal: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    """Multiplied in float32: dtotal is 1/N, whose rounding to half precision would tilt the whole gradient.

    In one pass. A number of shape () would be rounded to the other's dtype first, one of shape (1,) is not.
    """
    given = zip(ctx.saved_tensors, ctx.dtypes, ctx.graded, strict=True)
    gradients = [
        torch.mul(d, dtotal.view(1), out=d.new_empty(d.shape, dtype=dtype)) if graded and dtotal is not None else None
        for d, dtype, graded in given
    ]
    return *gradients, None, None, None, None, None, None


_token_losses.register_autograd(_make_again, setup_context=_keep_lse)
_total_loss.register_autograd(_scale, setup_context=_keep_gradients)


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    """Equation, shapes and errors: `reference.linear_cross_entropy`. Any strides; weight may be wider than x.

    On a GPU a target outside the vocabulary is not refused, but makes its loss and the gradients NaN.
    """
    check_linear_cross_entropy(x, weight, targets, ignore_index, reduction, softcap)
    rows, wanted, how = x.reshape(-1, x.size(-1)), targets.reshape(-1), (ignore_index, softcap or 0.0, z_loss)
    if reduction == "none":
        return _token_losses(rows, weight, wanted, *how)[0].view(targets.shape)
    graded = [torch.is_grad_enabled() and each.requires_grad for each in (x, weight)]
    total, _, _ = _total_loss(rows, weight, wanted, *how, *graded)
    if reduction == "sum":
        return total
    counted = (targets != ignore_index).sum()
    return torch.where(counted > 0, total / counted.clamp(min=1), math.nan)  # over nothing: NaN, with gradient 0


def uncovered_linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, **how: Any) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"x is {x.dtype}; the kernels compute in float32"
    return None
