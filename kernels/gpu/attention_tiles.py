"""What the kernels of attention share: which tiles to visit, which scores to mask, rows in and out.

A query at position t sees the keys from t - behind to t + ahead. Causal, windowed and full attention are three
choices of these two numbers, and one kernel serves them: tiles that nobody sees are never visited, tiles that
everybody sees are not masked, and only the tiles between are compared position by position.

Letters: BLOCK, BLOCK_T queries and BLOCK_S keys are a tile's sides, BLOCK_D the head's width rounded up.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import cdiv, launch

# --- which tiles ----------------------------------------------------------------------------------------


@triton.jit
def span(first, last, ahead, behind, count, reach, index, BLOCK: tl.constexpr):
    """Of the keys 0..count-1, which tiles do the positions first..last see?

    Returns lo, full_lo, full_hi, hi: somebody sees something of lo..hi, everybody sees all of full_lo..full_hi,
    which may be empty. All but hi are multiples of BLOCK.
    """
    lo = tl.maximum(first - behind, 0) // BLOCK * BLOCK
    hi = tl.minimum(last + ahead + 1, count)
    full_lo = tl.cdiv(tl.maximum(last - behind, 0), BLOCK) * BLOCK
    full_hi = tl.maximum(tl.minimum(first + ahead + 1, count), 0) // BLOCK * BLOCK
    if reach is not None:
        lo, hi = tl.maximum(lo, tl.load(reach + 2 * index)), tl.minimum(hi, tl.load(reach + 2 * index + 1))
        full_hi = full_lo  # ids must be compared one by one
    return lo, full_lo, full_hi, hi


@triton.jit
def _document_tiles_kernel(
    document, reach, stride_b, own_start, own_count, other_start, other_count, own_tiles,
    OWN: tl.constexpr, OTHER: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Which tiles of the other side could hold a document of this one: reach (B, own_tiles, 2), from and to.

    A tile's ids are summed up as an interval. Intervals that do not meet share no document, whatever the order of
    the ids; where documents lie one behind the other with rising ids, nothing else is visited.
    """
    b, tile = tl.program_id(0) // own_tiles, tl.program_id(0) % own_tiles
    document += b.to(tl.int64) * stride_b
    own = tile * OWN + tl.arange(0, OWN)
    own = tl.minimum(own, own_count - 1)                           # a tile's tail repeats its last id
    ids = tl.load(document + own_start + own)
    lowest, highest = tl.min(ids, 0), tl.max(ids, 0)
    first, last = tl.cast(other_count, tl.int32), tl.cast(0, tl.int32)
    for start in range(0, other_count, TILES * OTHER):
        at = start + tl.arange(0, TILES)[:, None] * OTHER + tl.arange(0, OTHER)[None, :]   # (TILES, OTHER)
        others = tl.load(document + other_start + tl.minimum(at, other_count - 1))
        meet = (tl.min(others, 1) <= highest) & (tl.max(others, 1) >= lowest)              # (TILES,)
        begin = start + tl.arange(0, TILES) * OTHER
        meet = meet & (begin < other_count)
        first = tl.minimum(first, tl.min(tl.where(meet, begin, other_count), 0))
        last = tl.maximum(last, tl.max(tl.where(meet, begin + OTHER, 0), 0))
    tl.store(reach + tl.program_id(0) * 2, first)
    tl.store(reach + tl.program_id(0) * 2 + 1, last)


def document_tiles(
    document: Tensor | None, own: tuple[int, int], other: tuple[int, int], blocks: tuple[int, int]
) -> Tensor | None:
    """Launch the kernel above. own, other: first position and number of the two sides; blocks: their tiles."""
    if document is None:
        return None
    tiles = cdiv(own[1], blocks[0])
    reach = torch.empty(document.size(0), tiles, 2, dtype=torch.int32, device=document.device)
    launch(
        _document_tiles_kernel, (document.size(0) * tiles,), document, reach, document.stride(0), *own, *other, tiles,
        OWN=blocks[0], OTHER=blocks[1], TILES=max(1, 1024 // blocks[1]),
    )  # fmt: skip
    return reach


# --- which scores ---------------------------------------------------------------------------------------


@triton.jit
def may_see(position, s0, S, ahead, behind, own, document, BLOCK: tl.constexpr):
    """(positions, BLOCK): which position sees which of the keys from s0 on. own: the positions' documents.

    Documents must be compared in every tile: without a branch around it, the ids are loaded ahead like the rows.
    """
    s = s0 + tl.arange(0, BLOCK)
    distance = position[:, None] - s[None, :]
    visible = (distance >= -ahead) & (distance <= behind) & (s < S)[None, :]
    if document is not None:
        visible = visible & (own[:, None] == tl.load(document + tl.minimum(s, S - 1))[None, :])
    return visible


# --- rows in and out ------------------------------------------------------------------------------------


@triton.jit
def head(x, b, h, stride_b, stride_h):
    return x + tl.cast(b, tl.int64) * stride_b + tl.cast(h, tl.int64) * stride_h


@triton.jit
def rows(x, start, count, stride, BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows start.. of x as a tile (BLOCK, BLOCK_D); 0 beyond row count and channel D."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK_D)[None, :]
    at = x + tl.cast(start, tl.int64) * stride + (row * stride + column)
    if D == BLOCK_D:
        return tl.load(at, mask=row < count - start, other=0.0)
    return tl.load(at, mask=(row < count - start) & (column < D), other=0.0)


@triton.jit
def store_rows(x, value, start, count, stride, BLOCK: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK_D)[None, :]
    at = x + tl.cast(start, tl.int64) * stride + (row * stride + column)
    tl.store(at, value.to(x.dtype.element_ty), mask=(row < count - start) & (column < D))


def per_query(q: Tensor) -> Tensor:
    """A number per query in float32, not yet written: (B, H, P), T rounded up to whole tiles.

    So every load is whole, and needs no mask: registers that the backward pass does not have.
    """
    B, H, T = q.shape[:3]
    return q.new_empty((B, H, cdiv(T, LARGEST) * LARGEST), dtype=torch.float32)


# --- how large -----------------------------------------------------------------------------------------


LARGEST = 128  # queries in a tile; all others divide it
HOPPER_AND_LATER = (90, 100, 103)  # data-centre GPUs with 227 KB of shared memory and matrix units for four warps
ROOMY = (80, 87, *HOPPER_AND_LATER)  # 163 KB and more; all others have 99 KB


class Tiles(NamedTuple):
    """A tile's sides, and how many warps and pipeline stages a program works with."""

    t: int
    s: int
    num_warps: int
    num_stages: int

    def options(self) -> dict[str, int]:
        """As `launch` takes them."""
        return {"BLOCK_T": self.t, "BLOCK_S": self.s, "num_warps": self.num_warps, "num_stages": self.num_stages}
