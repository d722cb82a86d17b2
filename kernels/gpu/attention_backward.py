"""Flash attention, backward: the scores are made again, tile by tile, instead of being kept.

With p = exp(s - lse), s and lse as in the forward pass, and g = dy:

    dv = pᵀ g
    dp = g vᵀ
    ds = p · (dp - delta)     delta = rowsum(p · dp) = rowsum(g · y), since y = p v. lse has a gradient too:
                              d lse / d s = p, which adds up to delta = rowsum(g · y) - dlse
    ds = ds · (1 - tanh²)     with a softcap
    dq = scale · ds k
    dk = scale · dsᵀ q

dq is summed over keys, dk and dv over queries, so two kernels walk the same tiles in both directions. Each sum
is one program's alone and has a fixed order: the gradients are the same to the last bit every time.

Source: Dao 2023, "FlashAttention-2", algorithm 2.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import LOG2E, capped, dot_precision, padded
from kernels.gpu.attention_tiles import (
    HOPPER_AND_LATER,
    ROOMY,
    Tiles,
    document_tiles,
    head,
    may_see,
    per_query,
    rows,
    span,
    store_rows,
)
from kernels.launch import arch_of, cdiv, launch


@triton.jit
def _delta_kernel(
    y, dy, dlse, delta, y_b, y_h, y_t, dy_b, dy_h, dy_t, delta_h, H, T,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """delta = rowsum(dy · y) - dlse, and 0 where no query is. dlse None: nobody used lse."""
    tiles = tl.cdiv(delta_h, BLOCK_T)
    bh, t0 = tl.program_id(0) // tiles, tl.program_id(0) % tiles * BLOCK_T
    b, h, t = bh // H, bh % H, t0 + tl.arange(0, BLOCK_T)
    y_tile = rows(head(y, b, h, y_b, y_h), t0, T, y_t, BLOCK_T, D, BLOCK_D).to(tl.float32)
    dy_tile = rows(head(dy, b, h, dy_b, dy_h), t0, T, dy_t, BLOCK_T, D, BLOCK_D).to(tl.float32)
    row, value = tl.cast(bh, tl.int64) * delta_h, tl.sum(y_tile * dy_tile, 1)
    if dlse is not None:
        value -= tl.load(dlse + row + t, mask=t < T, other=0.0)
    tl.store(delta + row + t, value)


@triton.jit
def _dkdv_kernel(
    q, k, v, dy, lse, delta, dk, dv, document, reach,
    q_b, q_h, q_t, k_b, k_h, k_s, v_b, v_h, v_s, dy_b, dy_h, dy_t, dk_b, dk_h, dk_s, dv_b, dv_h, dv_s, lse_h,
    document_b, H, G, T, S, ahead, behind, scale, softcap,
    D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One tile of keys and values, walking over the queries that see it, in every head of the group."""
    tiles = tl.cdiv(S, BLOCK_S)
    bg, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles     # causal: longest walks first
    b, g = bg // G, bg % G
    s0, shift = tile * BLOCK_S, S - T
    s = s0 + tl.arange(0, BLOCK_S)
    own = s
    if document is not None:
        document += tl.cast(b, tl.int64) * document_b + shift          # from here on the queries'
        own = tl.load(document - shift + tl.minimum(s, S - 1))

    k_tile = rows(head(k, b, g, k_b, k_h), s0, S, k_s, BLOCK_S, D, BLOCK_D)
    v_tile = rows(head(v, b, g, v_b, v_h), s0, S, v_s, BLOCK_S, D, BLOCK_D)
    dk_tile = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    dv_tile = tl.zeros([BLOCK_S, BLOCK_D], tl.float32)
    lo, full_lo, full_hi, hi = span(  # seen from the keys, ahead and behind change places
        s0 - shift, tl.minimum(s0 + BLOCK_S, S) - 1 - shift, behind, ahead, T, reach, b * tiles + tile, BLOCK_T
    )
    for h in range(g * (H // G), (g + 1) * (H // G)):
        q_head, dy_head = head(q, b, h, q_b, q_h), head(dy, b, h, dy_b, dy_h)
        row = tl.cast(b * H + h, tl.int64) * lse_h
        for t0 in range(lo, hi, BLOCK_T):  # all tiles lie on their side: (S, T)
            q_tile = rows(q_head, t0, T, q_t, BLOCK_T, D, BLOCK_D)     # (BLOCK_T, BLOCK_D)
            dy_tile = rows(dy_head, t0, T, dy_t, BLOCK_T, D, BLOCK_D)  # (BLOCK_T, BLOCK_D)
            t = t0 + tl.arange(0, BLOCK_T)
            lse_tile = tl.load(lse + row + t)  # inf where no query is: weight 0
            delta_tile = tl.load(delta + row + t)
            scores = tl.dot(k_tile, q_tile.T, input_precision=PRECISION)       # (BLOCK_S, BLOCK_T)
            dp = tl.dot(v_tile, dy_tile.T, input_precision=PRECISION)          # (BLOCK_S, BLOCK_T)
            scores, slope = _in_log2(scores, scale, softcap, SOFTCAP)
            if (document is not None) or (t0 < full_lo) | (t0 >= full_hi):
                visible = may_see(s - shift, t0, T, behind, ahead, own, document, BLOCK_T)
                scores = tl.where(visible, scores, float("-inf"))
            p = tl.exp2(scores - lse_tile[None, :] * LOG2E)
            ds = p * (dp - delta_tile[None, :]) * slope
            dv_tile = tl.dot(p.to(dy_tile.dtype), dy_tile, dv_tile, input_precision=PRECISION)
            dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision=PRECISION)
    store_rows(head(dk, b, g, dk_b, dk_h), dk_tile * scale, s0, S, dk_s, BLOCK_S, D, BLOCK_D)
    store_rows(head(dv, b, g, dv_b, dv_h), dv_tile, s0, S, dv_s, BLOCK_S, D, BLOCK_D)


@triton.jit
def _in_log2(scores, scale, softcap, SOFTCAP: tl.constexpr):
    """Scores in units of log2 e, as exp2 wants them, and the softcap's slope."""
    if SOFTCAP:
        scores, slope = capped(scores, scale / softcap, softcap * LOG2E)
    else:
        scores, slope = scores * (scale * LOG2E), 1.0
    return scores, slope


@triton.jit
def _dq_kernel(
    q, k, v, dy, lse, delta, dq, document, reach,
    q_b, q_h, q_t, k_b, k_h, k_s, v_b, v_h, v_s, dy_b, dy_h, dy_t, dq_b, dq_h, dq_t, lse_h, document_b,
    H, G, T, S, ahead, behind, scale, softcap,
    D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One tile of queries, walking over the keys that it sees, as the forward pass does."""
    tiles = tl.cdiv(T, BLOCK_T)
    bh, tile = tl.program_id(0) // tiles, tiles - 1 - tl.program_id(0) % tiles
    b, h = bh // H, bh % H
    t0, shift = tile * BLOCK_T, S - T
    t = t0 + tl.arange(0, BLOCK_T)
    k, v = head(k, b, h // (H // G), k_b, k_h), head(v, b, h // (H // G), v_b, v_h)
    own = t
    if document is not None:
        document += tl.cast(b, tl.int64) * document_b
        own = tl.load(document + tl.minimum(t, T - 1) + shift)

    q_tile = rows(head(q, b, h, q_b, q_h), t0, T, q_t, BLOCK_T, D, BLOCK_D)
    dy_tile = rows(head(dy, b, h, dy_b, dy_h), t0, T, dy_t, BLOCK_T, D, BLOCK_D)
    row = tl.cast(bh, tl.int64) * lse_h + t
    lse_tile = tl.load(lse + row)
    delta_tile = tl.load(delta + row)
    dq_tile = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    lo, full_lo, full_hi, hi = span(
        t0 + shift, tl.minimum(t0 + BLOCK_T, T) - 1 + shift, ahead, behind, S, reach, b * tiles + tile, BLOCK_S
    )
    for s0 in range(lo, hi, BLOCK_S):  # keys beyond S are 0 and add nothing
        k_tile = rows(k, s0, S, k_s, BLOCK_S, D, BLOCK_D)              # (BLOCK_S, BLOCK_D)
        v_tile = rows(v, s0, S, v_s, BLOCK_S, D, BLOCK_D)              # (BLOCK_S, BLOCK_D)
        scores = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)   # (BLOCK_T, BLOCK_S)
        dp = tl.dot(dy_tile, v_tile.T, input_precision=PRECISION)      # (BLOCK_T, BLOCK_S)
        scores, slope = _in_log2(scores, scale, softcap, SOFTCAP)
        if (document is not None) or (s0 < full_lo) | (s0 >= full_hi):
            visible = may_see(t + shift, s0, S, ahead, behind, own, document, BLOCK_S)
            scores = tl.where(visible, scores, float("-inf"))
        ds = tl.exp2(scores - lse_tile[:, None] * LOG2E) * (dp - delta_tile[:, None]) * slope
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=PRECISION)
    store_rows(head(dq, b, h, dq_b, dq_h), dq_tile * scale, t0, T, dq_t, BLOCK_T, D, BLOCK_D)


def delta_of(y: Tensor, dy: Tensor, dlse: Tensor | None) -> Tensor:
    """rowsum(dy · y) - dlse: (B, H, P), as lse."""
    (B, H, T, D), delta = y.shape, per_query(y)
    P, dlse = delta.size(2), None if dlse is None else dlse.contiguous()
    launch(
        _delta_kernel, (P // 64 * B * H,), y, dy, dlse, delta, *y.stride()[:3], *dy.stride()[:3], P, H, T,
        D=D, BLOCK_T=64, BLOCK_D=padded(D),
    )  # fmt: skip
    return delta


def dkdv_tiles(arch: int, width: int, itemsize: int, extra: bool) -> Tiles:
    """For dk and dv: a few queries at a time, many keys. See `attention_forward.tiles`."""
    if arch == 0:
        return Tiles(32, 32, 4, 1)
    if itemsize == 4:
        cramped = width > 128 and arch not in ROOMY
        return Tiles(32, 64, 8, 1) if width <= 64 else Tiles(16, 16 if cramped else 32, 8, 1)
    if arch in HOPPER_AND_LATER:
        if width <= 64:
            return Tiles(64, 128, 8, 1 if extra else 2)
        return Tiles(32, 128, 8, 1 if extra else 2) if width <= 128 else Tiles(16, 64, 8, 1)
    if width <= 64:
        return Tiles(32, 128, 8, 2)
    return Tiles(32 if extra else 64, 64, 8, 1) if width <= 128 else Tiles(32, 32, 8, 1)


def dq_tiles(arch: int, width: int, itemsize: int, extra: bool) -> Tiles:
    """For dq: many queries, a few keys at a time. See `attention_forward.tiles`."""
    if arch == 0:
        return Tiles(32, 32, 4, 1)
    if itemsize == 4:
        return Tiles(64, 32, 8, 1) if width <= 64 else Tiles(32, 16, 8, 1)
    if arch in HOPPER_AND_LATER:
        return Tiles(128, 64, 8, 2) if width <= 128 else Tiles(128, 32, 8, 1)
    if width <= 64:
        return Tiles(64, 64 if not extra else 32, 4, 2)
    return Tiles(64, 64, 8, 2) if width <= 128 else Tiles(64, 32, 8, 1)


def backward(
    dy: Tensor,
    dlse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    lse: Tensor,
    document: Tensor | None,
    ahead: int,
    behind: int,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv, laid out in memory as q, k, v. dy (B, H, T, D); dlse, lse (B, H, P): see `per_query`."""
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    width = padded(D)
    situation = (arch_of(q), width, q.element_size(), softcap != 0 or document is not None)
    dy = dy if dy.stride(-1) == 1 else dy.contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    delta = delta_of(y, dy, dlse)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *dy.stride()[:3])
    document_b = None if document is None else document.stride(0)
    rest = (lse.size(2), document_b, H, G, T, S, ahead, behind, scale, softcap)
    same: dict = {"D": D, "SOFTCAP": softcap != 0, "PRECISION": dot_precision(q), "BLOCK_D": width}

    side = dkdv_tiles(*situation)
    reach = document_tiles(document, (0, S), (S - T, T), (side.s, side.t))
    launch(
        _dkdv_kernel, (cdiv(S, side.s) * B * G,), q, k, v, dy, lse, delta, dk, dv, document, reach, *strides,
        *dk.stride()[:3], *dv.stride()[:3], *rest, **same, **side.options(),
    )  # fmt: skip
    side = dq_tiles(*situation)
    reach = document_tiles(document, (S - T, T), (0, S), (side.t, side.s))
    launch(
        _dq_kernel, (cdiv(T, side.t) * B * H,), q, k, v, dy, lse, delta, dq, document, reach, *strides,
        *dq.stride()[:3], *rest, **same, **side.options(),
    )  # fmt: skip
    return dq, dk, dv
