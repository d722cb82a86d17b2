"""Flash attention, forward, for Hopper alone: some warps load, others multiply, and nobody waits for the other.

The equations are those of `attention_forward.py`, rings and parts those of `hopper.py`. Two consumers compute 64
queries each. Within a consumer, the matrix units and the exponentials work at the same time, too:

    q kᵀ of tile i  |  p v of tile i - 1  begun one after the other
    q kᵀ is there      the weights p of tile i, while p v of tile i - 1 is still running
    p v is there       y shrinks to the new maximum, as the portable kernel's does

Source: Shah et al. 2024, "FlashAttention-3", sections 3.1 and 3.2.
"""

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

from kernels.gpu.arithmetic import LN2, LOG2E, NOTHING_YET
from kernels.gpu.attention_tiles import per_query
from kernels.gpu.hopper import (
    CONSUMERS,
    ROWS,
    STAGES,
    barrier,
    hidden,
    own,
    ring,
    send,
    send_own,
    span,
    store,
    tiles_of,
    within_reach,
)
from kernels.launch import cdiv, launch

BLOCK_S = gl.constexpr(128)  # keys of a tile


@gluon.jit
def _producer(q, k, v, memory, walk):
    q_mem, q_full, k_ring, v_ring = memory
    b, h, g, t0, lo, tiles = walk
    mbarrier.expect(q_full, CONSUMERS * q.block_type.nbytes)
    send_own(q, b, h, t0, q_mem, q_full)
    for tile in range(tiles):
        send(k, b, g, lo + tile * BLOCK_S, k_ring, tile // STAGES, tile % STAGES)
        send(v, b, g, lo + tile * BLOCK_S, v_ring, tile // STAGES, tile % STAGES)


@gluon.jit
def _weights(s, top, weight, position, s0, seen):
    """One step of the running softmax: p, how far what came before shrinks, and the new maximum and sum."""
    S, ahead, behind, full_lo, full_hi, unit = seen
    if (s0 < full_lo) | (s0 >= full_hi):
        s = hidden(s, position, s0, S, ahead, behind, BLOCK_S)
    new_top = gl.maximum(top, gl.max(s, 1) * unit)
    p = gl.exp2(s * unit - new_top[:, None])
    shrink = gl.exp2(top - new_top)
    return p, shrink, new_top, weight * shrink + gl.sum(p, 1)


@gluon.jit
def _consumer(y, lse, memory, walk, seen, T, WHICH: gl.constexpr, D: gl.constexpr):
    """64 queries: y and lse, summed over the keys that they see."""
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_S, 16])
    output: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, output, 2)  # p stays in registers
    row: gl.constexpr = gl.SliceLayout(1, scores)
    output_row: gl.constexpr = gl.SliceLayout(1, output)
    q_mem, q_full, k_ring, v_ring = memory
    k_mem, k_full, k_empty = k_ring
    v_mem, v_full, v_empty = v_ring
    b, h, _, t0, lo, tiles = walk
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
        if tile + 1 < tiles:  # here, so that the exponentials stay before the next line: see `hopper.py`
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
def _forward_kernel(q, k, v, y, lse, lse_h, H, G, T, S, ahead, behind, scale, D: gl.constexpr):
    side: gl.constexpr = CONSUMERS * ROWS
    count = gl.cdiv(T, side)
    bh, t0 = gl.program_id(0) // count, (count - 1 - gl.program_id(0) % count) * side  # causal: longest walks first
    b, h, g = bh // H, bh % H, bh % H // (H // G)
    lse += gl.cast(bh, gl.int64) * lse_h
    first, final = t0 + S - T, gl.minimum(t0 + side, T) - 1 + S - T
    lo, full_lo, full_hi, hi = span(first, final, ahead, behind, S, None, 0, BLOCK_S)
    tiles = gl.cdiv(hi - lo, BLOCK_S)

    memory = own(q), barrier(), ring(k), ring(v)
    fence_async_shared()
    walk, seen = (b, h, g, t0, lo, tiles), (S, ahead, behind, full_lo, full_hi, scale * LOG2E)
    gl.warp_specialize(
        [
            (_consumer, (y, lse, memory, walk, seen, T, 0, D)),
            (_consumer, (y, lse, memory, walk, seen, T, 1, D)),
            (_producer, (q, k, v, memory, walk)),
        ],
        [4, 1],
        [240, 24],
    )


def forward(
    q: Tensor, k: Tensor, v: Tensor, document: Tensor | None, ahead: int, behind: int, scale: float, softcap: float
) -> tuple[Tensor, Tensor]:
    """As `attention_forward.forward`, without documents and softcap, for shapes that `attention_hopper` covers."""
    assert document is None and softcap == 0, "uncovered"
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    y, lse = torch.empty_like(q), per_query(q)
    q, k, v = (within_reach(x) for x in (q, k, v))
    q_rows, y_rows = (tiles_of(x, ROWS.value) for x in (q, y))
    k_rows, v_rows = (tiles_of(x, BLOCK_S.value) for x in (k, v))
    launch(
        _forward_kernel, (cdiv(T, CONSUMERS.value * ROWS.value) * B * H,), q_rows, k_rows, v_rows, y_rows, lse,
        lse.size(2), H, G, T, S, ahead, behind, scale, D=D, num_warps=4,
    )  # fmt: skip
    return y, lse
