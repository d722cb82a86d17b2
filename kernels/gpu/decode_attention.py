"""Attention while decoding: one new query per sequence against all its keys, which lie in pages.

    s   = scale · q kᵀ,  with a softcap c · tanh(s / c)     over the last `window` of the stored keys
    y   = softmax(s) v,  lse = log Σ exp(s)

There is next to nothing to compute and a whole cache to read, so that all that counts is to read it once, and with
the whole GPU. Once: the H/G query heads that share a key head are the rows of one tile. With the whole GPU: the keys
of a sequence are split among programs, of which each leaves its own y and lse, and these are merged exactly:

    lse = log Σᵢ exp(lseᵢ),   y = Σᵢ exp(lseᵢ - lse) · yᵢ

How many splits there are follows from shapes alone, how long each is from the sequence's own length, on the device:
nobody waits for the lengths, and short sequences in a roomy table are split as evenly as long ones.

Source: Dao et al. 2023, "Flash-Decoding for long-context inference"; pages Kwon et al. 2023, "PagedAttention".
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from kernels.checks import check_decode_attention
from kernels.gpu.arithmetic import LN2, LOG2E, NOTHING_YET, capped, dot_precision, padded
from kernels.launch import arch_of, cdiv, launch, next_power_of_2, processors_of

WIDEST = 256         # channels of a head, and
MOST_HEADS = 64      # query heads per key head: more would not fit the registers; neither would
MOST_FLOATS = 4096   # channels times heads in float32
WAVES = 3            # programs per multiprocessor, as many as fit the registers: the fourth would come too late
SHORTEST = 128       # keys in a split: its y and lse must stay small beside them
MERGED = 16          # splits merged at a time


@triton.jit
def _split_kernel(
    q, k, v, page_table, lengths, y, lse,
    q_b, q_h, k_p, k_g, k_s, v_p, v_g, v_s, table_b, lengths_b, H, G, window, splits, scale, softcap,
    PAGE: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    SHORTEST: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """y (B, H, splits, D) and lse (B, H, splits) of one split, for the query heads of one key head."""
    b, g, split = tl.program_id(0) // G, tl.program_id(0) % G, tl.program_id(1)
    row, column = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_D)
    h = g * (H // G) + row
    mine = row < H // G
    result = (b.to(tl.int64) * H + h) * splits + split                     # (BLOCK_H,)
    length = tl.load(lengths + b * lengths_b).to(tl.int32)
    first = tl.maximum(length - window, 0)
    start = first // BLOCK_S * BLOCK_S
    share = tl.maximum(tl.cdiv(length - start, splits * BLOCK_S) * BLOCK_S, SHORTEST)
    lo = start + split * share
    hi = tl.minimum(lo + share, length)
    if lo >= hi:
        tl.store(lse + result, tl.full([BLOCK_H], float("-inf"), tl.float32), mask=mine)
        return

    q_at = q + b.to(tl.int64) * q_b + h[:, None] * q_h + column[None, :]
    q_tile = tl.load(q_at, mask=mine[:, None] & (column < D)[None, :], other=0.0)
    page_table += b.to(tl.int64) * table_b
    k += g.to(tl.int64) * k_g
    v += g.to(tl.int64) * v_g
    total = tl.zeros([BLOCK_H, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_H], NOTHING_YET, tl.float32)                      # in units of log2 e
    weight = tl.zeros([BLOCK_H], tl.float32)
    for s0 in range(lo, hi, BLOCK_S):
        s = s0 + tl.arange(0, BLOCK_S)
        visible = (s >= first) & (s < hi)
        page = tl.load(page_table + s // PAGE, mask=visible, other=0).to(tl.int64)
        there = visible[:, None] & (column < D)[None, :]
        k_at = page * k_p + s % PAGE * k_s                                 # (BLOCK_S,)
        k_tile = tl.load(k + k_at[:, None] + column[None, :], mask=there, other=0.0)
        score = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)        # (BLOCK_H, BLOCK_S)
        if SOFTCAP:
            score, _ = capped(score, scale / softcap, softcap * LOG2E)
        else:
            score *= scale * LOG2E
        score = tl.where(visible[None, :], score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        p = tl.exp2(score - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        v_at = page * v_p + s % PAGE * v_s
        v_tile = tl.load(v + v_at[:, None] + column[None, :], mask=there, other=0.0)
        total = tl.dot(p.to(v_tile.dtype), v_tile, total * shrink[:, None], input_precision=PRECISION)
        weight = weight * shrink + tl.sum(p, 1)
        top = new_top

    y_at = y + result[:, None] * D + column[None, :]
    tl.store(y_at, total / weight[:, None], mask=mine[:, None] & (column < D)[None, :])
    tl.store(lse + result, (top + tl.log2(weight)) * LN2, mask=mine)


@triton.jit
def _merge_kernel(
    split_y, split_lse, y, lse, splits,
    D: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """y and lse of one sequence and head; 0 and -inf if no split saw a key."""
    bh = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_D)
    split_lse += bh * splits
    split_y += bh * splits * D
    every = tl.arange(0, SPLITS)
    lses = tl.load(split_lse + every, mask=every < splits, other=float("-inf"))
    top = tl.maximum(tl.max(lses, 0), NOTHING_YET)
    weight = tl.sum(tl.exp2((lses - top) * LOG2E), 0)
    total = tl.zeros([BLOCK_D], tl.float32)
    for i0 in range(0, splits, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        some = tl.load(split_lse + i, mask=i < splits, other=float("-inf"))
        there = (some > float("-inf"))[:, None] & (column < D)[None, :]    # the others wrote no y
        ys = tl.load(split_y + i[:, None] * D + column[None, :], mask=there, other=0.0)
        total += tl.sum(ys * tl.exp2((some - top) * LOG2E)[:, None], 0)
    seen = weight > 0
    tl.store(y + bh * D + column, (total / tl.where(seen, weight, 1.0)).to(y.dtype.element_ty), mask=column < D)
    tl.store(lse + bh, tl.where(seen, top + tl.log2(weight) * LN2, float("-inf")))


def decode(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, lengths: Tensor, window: int, scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, H, D) and lse (B, H) in float32. window: at most the table's capacity; softcap 0: none."""
    (B, H, D), (G, page) = q.shape, k_pages.shape[1:3]
    heads, width = padded(H // G), padded(D)
    on_gpu = arch_of(q) != 0
    # 16 KB of keys a tile; exact float32 products run off the matrix units and spill from larger tiles
    side = min(128, 8192 // width) if on_gpu and q.element_size() == 2 else 16
    shortest = SHORTEST if on_gpu else 16  # the interpreter's are small, so that small tensors have many
    splits = max(1, min(WAVES * processors_of(q) // (B * G), cdiv(window, shortest)))
    split_y = q.new_empty((B, H, splits, D), dtype=torch.float32)
    split_lse = q.new_empty((B, H, splits), dtype=torch.float32)
    y, lse = q.new_empty((B, H, D)), q.new_empty((B, H), dtype=torch.float32)
    launch(
        _split_kernel, (B * G, splits), q, k_pages, v_pages, page_table, lengths, split_y, split_lse,
        *q.stride()[:2], *k_pages.stride()[:3], *v_pages.stride()[:3], page_table.stride(0), lengths.stride(0),
        H, G, window, splits, scale, softcap, PAGE=page, D=D, SOFTCAP=softcap != 0, PRECISION=dot_precision(q),
        SHORTEST=shortest, BLOCK_H=heads, BLOCK_S=side, BLOCK_D=width,
        num_warps=4 if heads == 16 else 8, num_stages=3,
    )  # fmt: skip
    launch(
        _merge_kernel, (B * H,), split_y, split_lse, y, lse, splits,
        D=D, SPLITS=next_power_of_2(splits), BLOCK=MERGED, BLOCK_D=width,
    )  # fmt: skip
    return y, lse


_decode = custom_op("minigpt::decode_attention", decode, mutates_args=())


@_decode.register_fake
def _(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


def decode_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    *,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Any:
    """Equation, shapes and errors: `reference.decode_attention`. No gradients: see `uncovered_decode_attention`."""
    check_decode_attention(q, k_pages, v_pages, page_table, lengths, window=window, softcap=softcap)
    capacity = page_table.size(1) * k_pages.size(2)
    behind = capacity if window is None else min(window, capacity)
    scale = q.size(-1) ** -0.5 if scale is None else scale
    op = _decode if torch.compiler.is_compiling() else decode  # the op costs the host more than the launches do
    y, lse = op(q, k_pages, v_pages, page_table, lengths, behind, scale, softcap or 0.0)
    return (y, lse) if return_lse else y


def uncovered_decode_attention(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, page_table: Tensor, lengths: Tensor, **how: Any
) -> str | None:
    """Why plain torch must do it; None if these kernels can, or nobody can."""
    if q.dim() != 3 or k_pages.dim() != 4 or page_table.dim() != 2 or k_pages.size(1) == 0:
        return None
    (B, H, D), (G, page) = q.shape, k_pages.shape[1:3]
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k_pages, v_pages)):
        return "gradients of decoding are left to plain torch"
    if B == 0:
        return "there is no sequence"
    if D > WIDEST:
        return f"heads of {D} channels are wider than {WIDEST}"
    if H // G > MOST_HEADS:
        return f"{H // G} query heads per key head are more than {MOST_HEADS}"
    if q.dtype == torch.float32 and padded(H // G) * padded(D) > MOST_FLOATS:
        return f"{H // G} query heads per key head of {D} channels in float32 do not fit the registers"
    if page < 16 or page & (page - 1):
        return f"pages of {page} tokens: not a power of two from 16 on"
    if not q.dtype == k_pages.dtype == v_pages.dtype:
        return f"q, k and v differ in dtype: {q.dtype}, {k_pages.dtype}, {v_pages.dtype}"
    if any(x.stride(-1) != 1 for x in (q, k_pages, v_pages)) or (page_table.stride(1) != 1 < page_table.size(1)):
        return "the last dimension of q, k, v or the page table is not contiguous"
    return None
