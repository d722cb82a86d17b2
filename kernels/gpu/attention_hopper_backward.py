"""Flash attention, backward, for Hopper alone: the two walks of `attention_backward.py`, where the gradients stand.

Parts and rings are those of `hopper.py`. Both kernels keep 64 rows a consumer, of keys here and of queries there,
and walk over tiles of the other side. A step is the same in both, p, dp and ds lying as (own rows, others):

    s begun  |  dp begun                one after the other
    s is there      p = exp(s - lse)    while dp is still running
    dp is there     ds = p · (dp - delta)

p and ds go from the registers into the next product. In the first kernel dv = pᵀ dy runs while ds is computed.
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

from kernels.gpu.arithmetic import LOG2E
from kernels.gpu.attention_backward import delta_of
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

# --- dk and dv ------------------------------------------------------------------------------------------


@gluon.jit
def _dkdv_producer(q, k, v, dy, memory, walk, BLOCK_T: gl.constexpr):
    k_mem, v_mem, own_full, q_ring, dy_ring = memory
    b, g, group, s0, lo, tiles = walk
    mbarrier.expect(own_full, 2 * CONSUMERS * k.block_type.nbytes)
    send_own(k, b, g, s0, k_mem, own_full)
    send_own(v, b, g, s0, v_mem, own_full)
    for i in range(group * tiles):
        h, t0 = g * group + i // tiles, lo + i % tiles * BLOCK_T
        send(q, b, h, t0, q_ring, i // STAGES, i % STAGES)
        send(dy, b, h, t0, dy_ring, i // STAGES, i % STAGES)


@gluon.jit
def _dkdv_consumer(
    dk, dv, lse, delta, lse_h, memory, walk, seen, scale,
    WHICH: gl.constexpr, D: gl.constexpr, BLOCK_T: gl.constexpr,
):  # fmt: skip
    """64 keys and their values: dk and dv, summed over the queries of every head of the group."""
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_T, 16])
    output: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, output, 2)
    k_mem, v_mem, own_full, q_ring, dy_ring = memory
    q_mem, q_full, q_empty = q_ring
    dy_mem, dy_full, dy_empty = dy_ring
    b, g, group, s0, lo, tiles = walk
    T, ahead, behind, full_lo, full_hi, shift = seen
    position = s0 - shift + WHICH * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, scores))  # among the queries
    within = gl.arange(0, BLOCK_T, gl.SliceLayout(0, scores))
    dk_sum = gl.full([ROWS, D], 0.0, gl.float32, output)
    dv_sum = gl.full([ROWS, D], 0.0, gl.float32, output)
    nothing = gl.full([ROWS, BLOCK_T], 0.0, gl.float32, scores)
    k_tile, v_tile = k_mem.index(WHICH).reshape([ROWS, D]), v_mem.index(WHICH).reshape([ROWS, D])

    count = group * tiles
    mbarrier.wait(own_full, 0)
    if count > 0:
        mbarrier.wait(q_full.index(0), 0)
    for i in range(count):
        place, t0 = i % STAGES, lo + i % tiles * BLOCK_T
        row = i // tiles * lse_h + t0
        q_tile, dy_tile = q_mem.index(place).reshape([BLOCK_T, D]), dy_mem.index(place).reshape([BLOCK_T, D])
        s = warpgroup_mma(k_tile, q_tile.permute([1, 0]), nothing, use_acc=False, is_async=True)
        lse_tile = gl.load(lse + row + within)                         # (BLOCK_T,), inf where no query is: weight 0
        mbarrier.wait(dy_full.index(place), i // STAGES % 2)
        dp = warpgroup_mma(v_tile, dy_tile.permute([1, 0]), nothing, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s,))                           # (ROWS, BLOCK_T)
        if (t0 < full_lo) | (t0 >= full_hi):
            s = hidden(s, position, t0, T, behind, ahead, BLOCK_T)
        p = gl.exp2(s * (scale * LOG2E) - (lse_tile * LOG2E)[None, :])
        if i + 1 < count:  # here, so that the exponentials stay before the next line: see `hopper.py`
            mbarrier.wait(q_full.index((i + 1) % STAGES), (i + 1) // STAGES % 2)
        delta_tile = gl.load(delta + row + within)
        dp = warpgroup_mma_wait(0, deps=(dp,))                         # (ROWS, BLOCK_T)
        dv_sum = warpgroup_mma(gl.convert_layout(p.to(dv.dtype), operand), dy_tile, dv_sum, is_async=True)
        ds = gl.convert_layout((p * (dp - delta_tile[None, :])).to(dk.dtype), operand)
        dk_sum = warpgroup_mma(ds, q_tile, dk_sum, is_async=True)
        dv_sum, dk_sum = warpgroup_mma_wait(0, deps=(dv_sum, dk_sum))
        mbarrier.arrive(q_empty.index(place), count=1)
        mbarrier.arrive(dy_empty.index(place), count=1)

    k_tile.store((dk_sum * scale).to(dk.dtype))                        # nobody needs these keys any more
    v_tile.store(dv_sum.to(dv.dtype))
    fence_async_shared()
    store(dk, [b, g, s0 + WHICH * ROWS, 0], k_mem.index(WHICH))
    store(dv, [b, g, s0 + WHICH * ROWS, 0], v_mem.index(WHICH))
    tma.store_wait(pendings=0)


@gluon.jit
def _dkdv_kernel(
    q, k, v, dy, lse, delta, dk, dv, lse_h, H, G, T, S, ahead, behind, scale, D: gl.constexpr, BLOCK_T: gl.constexpr
):
    side: gl.constexpr = CONSUMERS * ROWS
    count = gl.cdiv(S, side)
    bg, s0 = gl.program_id(0) // count, gl.program_id(0) % count * side                  # causal: longest walks first
    b, g, group, shift = bg // G, bg % G, H // G, S - T
    lse += gl.cast(b * H + g * group, gl.int64) * lse_h
    delta += gl.cast(b * H + g * group, gl.int64) * lse_h
    lo, full_lo, full_hi, hi = span(  # seen from the keys, ahead and behind change places
        s0 - shift, gl.minimum(s0 + side, S) - 1 - shift, behind, ahead, T, None, 0, BLOCK_T
    )
    tiles = gl.cdiv(hi - lo, BLOCK_T)                                  # at most 0 where nobody sees these keys
    memory = own(k), own(v), barrier(), ring(q), ring(dy)
    fence_async_shared()
    walk, seen = (b, g, group, s0, lo, tiles), (T, ahead, behind, full_lo, full_hi, shift)
    gl.warp_specialize(
        [
            (_dkdv_consumer, (dk, dv, lse, delta, lse_h, memory, walk, seen, scale, 0, D, BLOCK_T)),
            (_dkdv_consumer, (dk, dv, lse, delta, lse_h, memory, walk, seen, scale, 1, D, BLOCK_T)),
            (_dkdv_producer, (q, k, v, dy, memory, walk, BLOCK_T)),
        ],
        [4, 1],
        [240, 24],
    )


# --- dq -------------------------------------------------------------------------------------------------


@gluon.jit
def _dq_producer(q, k, v, dy, memory, walk, BLOCK_S: gl.constexpr):
    q_mem, dy_mem, own_full, k_ring, v_ring = memory
    b, h, g, t0, lo, tiles = walk
    mbarrier.expect(own_full, 2 * CONSUMERS * q.block_type.nbytes)
    send_own(q, b, h, t0, q_mem, own_full)
    send_own(dy, b, h, t0, dy_mem, own_full)
    for i in range(tiles):
        send(k, b, g, lo + i * BLOCK_S, k_ring, i // STAGES, i % STAGES)
        send(v, b, g, lo + i * BLOCK_S, v_ring, i // STAGES, i % STAGES)


@gluon.jit
def _dq_consumer(
    dq, lse, delta, memory, walk, seen, scale, WHICH: gl.constexpr, D: gl.constexpr, BLOCK_S: gl.constexpr
):
    """64 queries: dq, summed over the keys that they see."""
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_S, 16])
    output: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, output, 2)
    q_mem, dy_mem, own_full, k_ring, v_ring = memory
    k_mem, k_full, k_empty = k_ring
    v_mem, v_full, v_empty = v_ring
    b, h, _, t0, lo, tiles = walk
    S, ahead, behind, full_lo, full_hi, shift = seen
    t = t0 + WHICH * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, scores))
    lse_rows = gl.load(lse + t) * LOG2E
    delta_rows = gl.load(delta + t)
    dq_sum = gl.full([ROWS, D], 0.0, gl.float32, output)
    nothing = gl.full([ROWS, BLOCK_S], 0.0, gl.float32, scores)
    q_tile, dy_tile = q_mem.index(WHICH).reshape([ROWS, D]), dy_mem.index(WHICH).reshape([ROWS, D])

    mbarrier.wait(own_full, 0)
    mbarrier.wait(k_full.index(0), 0)
    for i in range(tiles):
        place, s0 = i % STAGES, lo + i * BLOCK_S
        k_tile, v_tile = k_mem.index(place).reshape([BLOCK_S, D]), v_mem.index(place).reshape([BLOCK_S, D])
        s = warpgroup_mma(q_tile, k_tile.permute([1, 0]), nothing, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(place), i // STAGES % 2)
        dp = warpgroup_mma(dy_tile, v_tile.permute([1, 0]), nothing, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s,))                           # (ROWS, BLOCK_S)
        if (s0 < full_lo) | (s0 >= full_hi):
            s = hidden(s, t + shift, s0, S, ahead, behind, BLOCK_S)
        p = gl.exp2(s * (scale * LOG2E) - lse_rows[:, None])
        if i + 1 < tiles:  # here, so that the exponentials stay before the next line: see `hopper.py`
            mbarrier.wait(k_full.index((i + 1) % STAGES), (i + 1) // STAGES % 2)
        dp = warpgroup_mma_wait(0, deps=(dp,))                         # (ROWS, BLOCK_S)
        mbarrier.arrive(v_empty.index(place), count=1)
        ds = gl.convert_layout((p * (dp - delta_rows[:, None])).to(dq.dtype), operand)
        dq_sum = warpgroup_mma(ds, k_tile, dq_sum, is_async=True)
        dq_sum = warpgroup_mma_wait(0, deps=(dq_sum,))
        mbarrier.arrive(k_empty.index(place), count=1)

    q_tile.store((dq_sum * scale).to(dq.dtype))                        # nobody needs these queries any more
    fence_async_shared()
    store(dq, [b, h, t0 + WHICH * ROWS, 0], q_mem.index(WHICH))
    tma.store_wait(pendings=0)


@gluon.jit
def _dq_kernel(
    q, k, v, dy, lse, delta, dq, lse_h, H, G, T, S, ahead, behind, scale, D: gl.constexpr, BLOCK_S: gl.constexpr
):
    side: gl.constexpr = CONSUMERS * ROWS
    count = gl.cdiv(T, side)
    bh, t0 = gl.program_id(0) // count, (count - 1 - gl.program_id(0) % count) * side    # causal: longest walks first
    b, h, g, shift = bh // H, bh % H, bh % H // (H // G), S - T
    lse += gl.cast(bh, gl.int64) * lse_h
    delta += gl.cast(bh, gl.int64) * lse_h
    lo, full_lo, full_hi, hi = span(
        t0 + shift, gl.minimum(t0 + side, T) - 1 + shift, ahead, behind, S, None, 0, BLOCK_S
    )
    tiles = gl.cdiv(hi - lo, BLOCK_S)
    memory = own(q), own(dy), barrier(), ring(k), ring(v)
    fence_async_shared()
    walk, seen = (b, h, g, t0, lo, tiles), (S, ahead, behind, full_lo, full_hi, shift)
    gl.warp_specialize(
        [
            (_dq_consumer, (dq, lse, delta, memory, walk, seen, scale, 0, D, BLOCK_S)),
            (_dq_consumer, (dq, lse, delta, memory, walk, seen, scale, 1, D, BLOCK_S)),
            (_dq_producer, (q, k, v, dy, memory, walk, BLOCK_S)),
        ],
        [4, 1],
        [240, 24],
    )


# --- both -----------------------------------------------------------------------------------------------


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
    """As `attention_backward.backward`, without documents and softcap, for shapes that `attention_hopper` covers."""
    assert document is None and softcap == 0, "uncovered"
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    dy, q, k, v = (within_reach(x) for x in (dy, q, k, v))
    delta, side = delta_of(y, dy, dlse), CONSUMERS.value * ROWS.value
    rest = (lse.size(2), H, G, T, S, ahead, behind, scale)
    block = 64                              # as many as the registers allow: `manifest` has the proof
    launch(
        _dkdv_kernel, (cdiv(S, side) * B * G,), tiles_of(q, block), *(tiles_of(x, ROWS.value) for x in (k, v)),
        tiles_of(dy, block), lse, delta, *(tiles_of(x, ROWS.value) for x in (dk, dv)), *rest, D=D, BLOCK_T=block,
    )  # fmt: skip
    block = 128 if D == 64 else 64
    launch(
        _dq_kernel, (cdiv(T, side) * B * H,), tiles_of(q, ROWS.value), *(tiles_of(x, block) for x in (k, v)),
        tiles_of(dy, ROWS.value), lse, delta, tiles_of(dq, ROWS.value), *rest, D=D, BLOCK_S=block,
    )  # fmt: skip
    return dq, dk, dv
