"""Flash attention, forward: exact attention that never holds the (T, S) scores.

For one tile of queries, walking over tiles of keys:

    s  = scale · q kᵀ,  with a softcap c · tanh(s / c), invisible keys at -inf
    m' = max(m, rowmax(s))                     largest score so far
    p  = exp(s - m')
    l  = l · exp(m - m') + rowsum(p)           sum of the weights, in units of exp(m')
    y  = y · exp(m - m') + p v                 at the end y / l, and lse = m + log l

Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax"; Dao 2023, "FlashAttention-2".
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu.arithmetic import LN2, LOG2E, NOTHING_YET, capped, dot_precision, padded
from kernels.gpu.attention_tiles import (
    HOPPER_AND_LATER,
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
def _forward_kernel(
    q, k, v, y, lse, document, reach,
    q_b, q_h, q_t, k_b, k_h, k_s, v_b, v_h, v_s, y_b, y_h, y_t, lse_h, document_b,
    H, G, T, S, ahead, behind, scale, softcap,
    D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(T, BLOCK_T)
    bh, tile = tl.program_id(0) // tiles, tiles - 1 - tl.program_id(0) % tiles  # causal: longest walks first
    b, h = bh // H, bh % H
    t0, shift = tile * BLOCK_T, S - T                                  # query 0 stands at position S - T
    t = t0 + tl.arange(0, BLOCK_T)
    q, y = head(q, b, h, q_b, q_h), head(y, b, h, y_b, y_h)
    k, v = head(k, b, h // (H // G), k_b, k_h), head(v, b, h // (H // G), v_b, v_h)
    lse += tl.cast(bh, tl.int64) * lse_h
    if tile == tiles - 1:  # the rest of the padding; now, for later all registers are taken
        for rest in range(t0 + BLOCK_T, lse_h, BLOCK_T):
            tl.store(lse + rest + tl.arange(0, BLOCK_T), tl.full([BLOCK_T], float("inf"), tl.float32))
    own = t
    if document is not None:
        document += tl.cast(b, tl.int64) * document_b
        own = tl.load(document + tl.minimum(t, T - 1) + shift)

    q_tile = rows(q, t0, T, q_t, BLOCK_T, D, BLOCK_D)                  # (BLOCK_T, BLOCK_D)
    total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)                   # y · l
    top = tl.full([BLOCK_T], NOTHING_YET, tl.float32)                  # m, in units of log2 e
    weight = tl.zeros([BLOCK_T], tl.float32)                           # l
    lo, full_lo, full_hi, hi = span(
        t0 + shift, tl.minimum(t0 + BLOCK_T, T) - 1 + shift, ahead, behind, S, reach, b * tiles + tile, BLOCK_S
    )
    for s0 in range(lo, hi, BLOCK_S):
        k_tile = rows(k, s0, S, k_s, BLOCK_S, D, BLOCK_D)              # (BLOCK_S, BLOCK_D)
        s = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)        # (BLOCK_T, BLOCK_S)
        unit = scale * LOG2E
        if SOFTCAP:
            s, _ = capped(s, scale / softcap, softcap * LOG2E)
            unit = 1.0
        if (document is not None) or (s0 < full_lo) | (s0 >= full_hi):
            s = tl.where(may_see(t + shift, s0, S, ahead, behind, own, document, BLOCK_S), s, float("-inf"))
        new_top = tl.maximum(top, tl.max(s, 1) * unit)
        p = tl.exp2(s * unit - new_top[:, None])                       # one multiply-add per score
        shrink = tl.exp2(top - new_top)
        weight = weight * shrink + tl.sum(p, 1)
        v_tile = rows(v, s0, S, v_s, BLOCK_S, D, BLOCK_D)              # (BLOCK_S, BLOCK_D)
        total = tl.dot(p.to(v_tile.dtype), v_tile, total * shrink[:, None], input_precision=PRECISION)
        top = new_top

    store_rows(y, total / weight[:, None], t0, T, y_t, BLOCK_T, D, BLOCK_D)
    tl.store(lse + t, tl.where(t < T, (top + tl.log2(weight)) * LN2, float("inf")))  # inf: weight 0 to no query


def tiles(arch: int, width: int, itemsize: int, extra: bool) -> Tiles:
    """Sides, warps and pipeline stages for heads of `width` (a power of two) on compute capability `arch`.

    extra: a softcap or documents need registers too. As large as the registers allow: `manifest` has the proof.
    """
    if arch == 0:
        return Tiles(32, 16, 4, 1)  # small ones, so that small tensors have many
    if itemsize == 4:
        return Tiles(64, 32, 8, 2) if width <= 64 else Tiles(32, 32, 8, 1)
    if arch in HOPPER_AND_LATER:
        return Tiles(128, 128, 8, 2) if width <= 64 or (width <= 128 and not extra) else Tiles(128, 64, 8, 2)
    return Tiles(128, 64, 8, 2) if width <= 64 or (width <= 128 and not extra) else Tiles(64, 64, 8, 1)


def forward(
    q: Tensor, k: Tensor, v: Tensor, document: Tensor | None, ahead: int, behind: int, scale: float, softcap: float
) -> tuple[Tensor, Tensor]:
    """y (B, H, T, D) laid out in memory as q, and lse (B, H, P): see `per_query`. softcap 0: none."""
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    width = padded(D)
    side = tiles(arch_of(q), width, q.element_size(), softcap != 0 or document is not None)
    y, lse = torch.empty_like(q), per_query(q)
    reach = document_tiles(document, (S - T, T), (0, S), (side.t, side.s))
    launch(
        _forward_kernel, (cdiv(T, side.t) * B * H,), q, k, v, y, lse, document, reach,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *y.stride()[:3], lse.size(2),
        None if document is None else document.stride(0), H, G, T, S, ahead, behind, scale, softcap,
        D=D, SOFTCAP=softcap != 0, PRECISION=dot_precision(q), BLOCK_D=width, **side.options(),
    )  # fmt: skip
    return y, lse
