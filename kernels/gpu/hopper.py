"""What kernels for Hopper alone share: tiles on their way into shared memory, in rings with barriers.

Such a kernel is a program of several parts that run at the same time. One warp, the producer, copies tiles into a
ring of STAGES places in shared memory; groups of four warps, the consumers, compute ROWS rows each from them. Two
barriers stand at every place of a ring:

    full     the tile has arrived           the producer says how many bytes will come, the consumers wait
    empty    every consumer has read it     they arrive, the producer waits before it writes there again

A barrier numbers its rounds with one bit: `wait(barrier, r % 2)` returns when round r of that place is over. The
producer waits for the round before its own, and there the first wait returns at once.

A kernel hands its parts `memory`, those places and barriers; `walk`, whose rows these are and which tiles to visit; and
`seen`, what decides who sees whom.

Where a consumer begins a product and computes something else before it waits for it, another wait, for a barrier,
stands right before that one. A wait for a barrier is a loop, which ends a block of instructions: without it the
assembler moves the product's wait up, to before all that was to overlap with it (`machine_code` would tell).

Written in Gluon, Triton's language below tiles. Triton's interpreter does not know it; the tests run these kernels
on a multiprocessor made of Python.
"""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from kernels.gpu import attention_tiles

DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}
CONSUMERS = gl.constexpr(2)
ROWS = gl.constexpr(64)      # of a consumer: what four warps multiply at a time
STAGES = gl.constexpr(2)     # places of a ring
load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared    # as Triton 3.9 and 3.6 call it
store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
span = gluon.jit(attention_tiles.span.fn)  # which tiles to visit, which of them to mask


@gluon.jit
def ring(x):
    """Places for tiles of x, and the barriers full and empty of each."""
    memory = gl.allocate_shared_memory(x.dtype, [STAGES, 1, 1, x.block_type.shape[2], x.block_type.shape[3]], x.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS)
    return memory, full, empty


@gluon.jit
def own(x):
    """Places for the rows that the consumers keep, ROWS each."""
    return gl.allocate_shared_memory(x.dtype, [CONSUMERS, 1, 1, ROWS, x.block_type.shape[3]], x.layout)


@gluon.jit
def barrier():
    """One that a single arrival completes, and the bytes it announces."""
    alone = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(alone, count=1)
    return alone


@gluon.jit
def send(x, b, h, row, places, round, place):
    """The producer's: copy a tile of x to a place of a ring, as soon as round - 1 of that place is over."""
    memory, full, empty = places
    mbarrier.wait(empty.index(place), (round + 1) % 2)
    mbarrier.expect(full.index(place), x.block_type.nbytes)
    load(x, [b, h, row, 0], full.index(place), memory.index(place))


@gluon.jit
def send_own(x, b, h, row, memory, full):
    """The producer's: copy every consumer's rows. Their bytes are announced beforehand."""
    for i in gl.static_range(CONSUMERS):
        load(x, [b, h, row + i * ROWS, 0], full, memory.index(i))


@gluon.jit
def hidden(s, position, s0, S, ahead, behind, BLOCK: gl.constexpr):
    """Scores (positions, BLOCK) of the keys from s0 on, -inf where a position may not see the key."""
    key = gl.arange(0, BLOCK, gl.SliceLayout(0, s.type.layout))
    distance = (position - s0)[:, None] - key[None, :]
    visible = (distance >= -ahead) & (distance <= behind) & (key < S - s0)[None, :]
    return gl.where(visible, s, float("-inf"))


def tiles_of(x: Tensor, rows: int) -> TensorDescriptor:
    """How the GPU's copying unit finds tiles (1, 1, rows, D) of x; what lies beyond its ends is 0, or not written."""
    tile = [1, 1, rows, x.size(3)]
    strides = [stride if size > 1 else x.size(3) for size, stride in zip(x.shape, x.stride(), strict=True)]
    layout = gl.NVMMASharedLayout.get_default_for(tile, DTYPES[x.dtype])
    return TensorDescriptor(x, list(x.shape), [*strides[:3], 1], tile, layout)


def can_be_copied(x: Tensor) -> bool:
    """Can the copying unit find rows of x? They must lie multiples of 16 bytes apart, their channels side by side."""
    steps = [stride for size, stride in zip(x.shape[:3], x.stride(), strict=False) if size > 1]
    return x.stride(3) == 1 and all(step > 0 and step * x.element_size() % 16 == 0 for step in steps)


def within_reach(x: Tensor) -> Tensor:
    """x, or a copy of it that the copying unit can read.

    Where its memory begins is asked here and not above: while torch.compile reads an op's caller, nobody knows.
    """
    if can_be_copied(x) and x.data_ptr() % 16 == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)
