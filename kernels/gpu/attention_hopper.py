"""Flash attention, forward, for Hopper alone: some warps load, others multiply, and nobody waits for the other.

The equations are those of `attention_forward.py`. What differs is who works when. A program is three parts that run
at the same time: one warp copies tiles of k and v into rings of STAGES places in shared memory, and two groups of
four warps, the consumers, compute ROWS queries each from them. Two barriers stand at every place of a ring:

    full     the tile has arrived           the producer says how many bytes will come, the consumers wait
    empty    both consumers have read it    they arrive, the producer waits before it writes there again

A barrier numbers its rounds with one bit: `wait(barrier, r % 2)` returns when round r of that place is over. The
producer waits for the round before its own, and there the first wait returns at once.

Within a consumer, the matrix units and the exponentials work at the same time, too:

    q kᵀ of tile i  |  p v of tile i - 1  begun one after the other
    q kᵀ is there      the weights p of tile i, while p v of tile i - 1 is still running
    p v is there       y shrinks to the new maximum, as the portable kernel's does

Source: Shah et al. 2024, "FlashAttention-3", sections 3.1 and 3.2. Written in Gluon, Triton's language below tiles.
"""

from typing import Any

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from kernels.gpu import attention_tiles
from kernels.gpu.arithmetic import LN2, LOG2E, NOTHING_YET
from kernels.gpu.attention import attention_by, forward_op
from kernels.gpu.attention_tiles import per_query
from kernels.launch import cdiv, launch

DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}
WIDTHS = (64, 128)  # of heads
CONSUMERS = gl.constexpr(2)
ROWS = gl.constexpr(64)      # queries of a consumer: what four warps multiply at a time
BLOCK_S = gl.constexpr(128)  # keys of a tile
STAGES = gl.constexpr(2)     # tiles of k, and of v, on their way or in use
load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared    # as Triton 3.9 and 3.6 call it
store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
span = gluon.jit(attention_tiles.span.fn)  # which tiles to visit, which of them to mask


@gluon.jit
def _producer(q, k, v, q_ring, k_ring, v_ring, b, h, g, t0, lo, tiles):
    q_mem, q_full = q_ring
    k_mem, k_full, k_empty = k_ring
    v_mem, v_full, v_empty = v_ring
    mbarrier.expect(q_full, CONSUMERS * q.block_type.nbytes)
    for i in gl.static_range(CONSUMERS):
        load(q, [b, h, t0 + i * ROWS, 0], q_full, q_mem.index(i))
    for tile in range(tiles):
        place, before, s0 = tile % STAGES, (tile // STAGES + 1) % 2, lo + tile * BLOCK_S
        mbarrier.wait(k_empty.index(place), before)
        mbarrier.expect(k_full.index(place), k.block_type.nbytes)
        load(k, [b, g, s0, 0], k_full.index(place), k_mem.index(place))
        mbarrier.wait(v_empty.index(place), before)
        mbarrier.expect(v_full.index(place), v.block_type.nbytes)
        load(v, [b, g, s0, 0], v_full.index(place), v_mem.index(place))


@gluon.jit
def _weights(s, top, weight, position, s0, seen):
    """One step of the running softmax: p, how far what came before shrinks, and the new maximum and sum."""
    S, ahead, behind, full_lo, full_hi, unit = seen
    if (s0 < full_lo) | (s0 >= full_hi):
        key = gl.arange(0, BLOCK_S, gl.SliceLayout(0, s.type.layout))
        distance = (position - s0)[:, None] - key[None, :]
        visible = (distance >= -ahead) & (distance <= behind) & (key < S - s0)[None, :]
        s = gl.where(visible, s, float("-inf"))
    new_top = gl.maximum(top, gl.max(s, 1) * unit)
    p = gl.exp2(s * unit - new_top[:, None])
    shrink = gl.exp2(top - new_top)
    return p, shrink, new_top, weight * shrink + gl.sum(p, 1)


@gluon.jit
def _consumer(
    y, lse, q_ring, k_ring, v_ring, b, h, t0, T, lo, tiles, seen, WHICH: gl.constexpr, D: gl.constexpr
):
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_S, 16])
    output: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, output, 2)  # p stays in registers
    row: gl.constexpr = gl.SliceLayout(1, scores)
    output_row: gl.constexpr = gl.SliceLayout(1, output)
    q_mem, q_full = q_ring
    k_mem, k_full, k_empty = k_ring
    v_mem, v_full, v_empty = v_ring
    t = t0 + WHICH * ROWS + gl.arange(0, ROWS, row)
    position = t + (seen[0] - T)
    top = gl.full([ROWS], NOTHING_YET, gl.float32, row)                # m, in units of log2 e
    weight = gl.full([ROWS], 0.0, gl.float32, row)                     # l
    total = gl.full([ROWS, D], 0.0, gl.float32, output)                # y · l
    nothing = gl.full([ROWS, BLOCK_S], 0.0, gl.float32, scores)
    q_tile = q_mem.index(WHICH).reshape([ROWS, D])

    mbarrier.wait(q_full, 0)
    mbarrier.wait(k_full.index(0), 0)
    k_tile = k_mem.index(0).reshape([BLOCK_S, D])
    s = warpgroup_mma(q_tile, k_tile.permute([1, 0]), nothing, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, deps=(s,))                               # (ROWS, BLOCK_S)
    mbarrier.arrive(k_empty.index(0), count=1)
    p, shrink, top, weight = _weights(s, top, weight, position, lo, seen)
    p = gl.convert_layout(p.to(y.dtype), operand)
    if tiles > 1:
        mbarrier.wait(k_full.index(1 % STAGES), 1 // STAGES % 2)
    for tile in range(1, tiles):
        place, last, s0 = tile % STAGES, (tile - 1) % STAGES, lo + tile * BLOCK_S
        k_tile, v_tile = k_mem.index(place).reshape([BLOCK_S, D]), v_mem.index(last).reshape([BLOCK_S, D])
        s = warpgroup_mma(q_tile, k_tile.permute([1, 0]), nothing, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(last), (tile - 1) // STAGES % 2)
        total = warpgroup_mma(p, v_tile, total, is_async=True)         # (ROWS, D)
        s = warpgroup_mma_wait(1, deps=(s,))
        mbarrier.arrive(k_empty.index(place), count=1)
        p, shrink, top, weight = _weights(s, top, weight, position, s0, seen)
        if tile + 1 < tiles:  # here and not above: a wait ends a block of instructions, and the assembler, left to
            # itself, would put the next line's wait before the exponentials, which it is there to overlap with
            mbarrier.wait(k_full.index((tile + 1) % STAGES), (tile + 1) // STAGES % 2)
        total = warpgroup_mma_wait(0, deps=(total,))
        mbarrier.arrive(v_empty.index(last), count=1)
        total = total * gl.convert_layout(shrink, output_row)[:, None]
        p = gl.convert_layout(p.to(y.dtype), operand)
    last = (tiles - 1) % STAGES
    mbarrier.wait(v_full.index(last), (tiles - 1) // STAGES % 2)
    total = warpgroup_mma(p, v_mem.index(last).reshape([BLOCK_S, D]), total, is_async=True)
    total = warpgroup_mma_wait(0, deps=(total,))

    total = total / gl.convert_layout(weight, output_row)[:, None]
    q_tile.store(total.to(y.dtype))                                    # nobody needs these queries any more
    fence_async_shared()
    store(y, [b, h, t0 + WHICH * ROWS, 0], q_mem.index(WHICH))
    gl.store(lse + t, gl.where(t < T, (top + gl.log2(weight)) * LN2, float("inf")))
    tma.store_wait(pendings=0)


@gluon.jit
def _ring(x):
    memory = gl.allocate_shared_memory(x.dtype, [STAGES, 1, 1, BLOCK_S, x.block_type.shape[3]], x.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS)
    return memory, full, empty


@gluon.jit
def _forward_kernel(q, k, v, y, lse, lse_h, H, G, T, S, ahead, behind, scale, D: gl.constexpr):
    side: gl.constexpr = CONSUMERS * ROWS
    count = gl.cdiv(T, side)
    bh, t0 = gl.program_id(0) // count, (count - 1 - gl.program_id(0) % count) * side  # causal: longest walks first
    b, h, g = bh // H, bh % H, bh % H // (H // G)
    lse += gl.cast(bh, gl.int64) * lse_h
    first, final = t0 + S - T, gl.minimum(t0 + side, T) - 1 + S - T
    lo, full_lo, full_hi, hi = span(first, final, ahead, behind, S, None, 0, BLOCK_S)
    tiles = gl.cdiv(hi - lo, BLOCK_S)

    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    q_ring = (
        gl.allocate_shared_memory(q.dtype, [CONSUMERS, 1, 1, ROWS, D], q.layout),
        gl.allocate_shared_memory(gl.int64, [1], barrier),
    )
    k_ring = _ring(k)
    v_ring = _ring(v)
    mbarrier.init(q_ring[1], count=1)
    fence_async_shared()
    seen = (S, ahead, behind, full_lo, full_hi, scale * LOG2E)
    gl.warp_specialize(
        [
            (_consumer, (y, lse, q_ring, k_ring, v_ring, b, h, t0, T, lo, tiles, seen, 0, D)),
            (_consumer, (y, lse, q_ring, k_ring, v_ring, b, h, t0, T, lo, tiles, seen, 1, D)),
            (_producer, (q, k, v, q_ring, k_ring, v_ring, b, h, g, t0, lo, tiles)),
        ],
        [4, 1],
        [240, 24],
    )


def forward(
    q: Tensor, k: Tensor, v: Tensor, document: Tensor | None, ahead: int, behind: int, scale: float, softcap: float
) -> tuple[Tensor, Tensor]:
    """As `attention_forward.forward`, for what `uncovered_attention` lets through."""
    assert document is None and softcap == 0, "uncovered"
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    y, lse = torch.empty_like(q), per_query(q)
    q_rows, y_rows = (_tiles_of(x, ROWS.value) for x in (q, y))
    k_rows, v_rows = (_tiles_of(x, BLOCK_S.value) for x in (k, v))
    launch(
        _forward_kernel, (cdiv(T, CONSUMERS.value * ROWS.value) * B * H,), q_rows, k_rows, v_rows, y_rows, lse,
        lse.size(2), H, G, T, S, ahead, behind, scale, D=D, num_warps=4,
    )  # fmt: skip
    return y, lse


def _tiles_of(x: Tensor, rows: int) -> TensorDescriptor:
    """How the GPU's copying unit finds tiles (1, 1, rows, D) of x; what lies beyond its ends is 0, or not written."""
    tile = [1, 1, rows, x.size(3)]
    strides = [stride if size > 1 else x.size(3) for size, stride in zip(x.shape, x.stride(), strict=True)]
    layout = gl.NVMMASharedLayout.get_default_for(tile, DTYPES[x.dtype])
    return TensorDescriptor(x, list(x.shape), [*strides[:3], 1], tile, layout)


_forward = forward_op("minigpt::attention_forward_hopper", forward)
attention = attention_by(_forward)


def uncovered_attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> str | None:
    """Why the portable kernel must do it; None if this one can, or nobody can."""
    if not q.dim() == k.dim() == v.dim() == 4:
        return None
    for name in ("alibi", "document", "softcap", "dropout"):
        if how.get(name):
            return f"{name} is left to the portable kernel"
    if q.dtype not in DTYPES or q.size(-1) not in WIDTHS:
        return f"heads of {q.size(-1)} channels in {q.dtype}: Hopper's kernel takes {WIDTHS} in half precision"
    if how.get("scale") is not None and how["scale"] <= 0:
        return f"scale={how['scale']} is not positive"
    if q.size(2) > k.size(2):
        return f"{q.size(2)} queries of {k.size(2)} keys: some would see nothing"
    if not all(_can_be_copied(x) for x in (q, k, v)):
        return "rows that do not begin at multiples of 16 bytes are beyond the copying unit"
    return None


def _can_be_copied(x: Tensor) -> bool:
    steps = [stride for size, stride in zip(x.shape[:3], x.stride(), strict=False) if size > 1]
    aligned = all(step * x.element_size() % 16 == 0 for step in (x.storage_offset(), *steps))
    return x.numel() > 0 and aligned and min(steps, default=1) > 0
