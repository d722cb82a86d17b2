"""Even steps: a matrix as small whole numbers and their scales.

    W ≈ number · scale,    |number| <= 2^(bits - 1) - 1

A scale serves a whole row or a group of neighbours in it. What `kernels.quantization` stores is made here, by rounding
to nearest or (`gptq.py`) otherwise; int3 lies in the four-bit format, and only its size is reckoned with three.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """How fine the steps are, and how many numbers share a scale."""

    bits: int
    group: int | None = None  # numbers that share one; none: a whole row

    @property
    def top(self) -> int:
        """The largest number: 127, 7 or 3. Its mirror image is the smallest, so that 0 is a step of its own."""
        return 2 ** (self.bits - 1) - 1

    def bytes(self, shape: torch.Size) -> float:
        """Of a matrix (N, K), packed without gaps, with its scales: float32 for rows, bfloat16 for groups."""
        N, K = shape
        return N * (K * self.bits / 8 + (4 if self.group is None else 2 * K / self.group))


INT8, INT4, INT3 = Grid(8), Grid(4, 32), Grid(3, 32)
ENDS = ("token_embedding", "lm_head")
GRIDS = {"int8": INT8, "int4": INT4, "int3": INT3}


def fitting(grid: Grid, name: str, K: int) -> Grid:
    """The grid for a matrix of this name and width: int8 where its groups do not divide a row.

    Embedding and head have at least four bits: in three, they alone would cost more than all blocks together (measured:
    +0.019 and +0.015 bits per byte). The papers leave them as floats, llama.cpp gives them more bits as well.
    """
    if grid.group and K % grid.group:
        return INT8
    return INT4 if grid == INT3 and name in ENDS else grid


def scales(w: Tensor, grid: Grid) -> Tensor:
    """The step that lets the largest number of each group reach the top. (N, K) -> (N, K/group) or (N, 1)

    Groups keep theirs in bfloat16, as torch's four-bit product wants it. Numbers are rounded with the scale that is
    kept, so that its own rounding (up to 1/256) is no error but a step a little other than the best.
    """
    groups = w.float().unflatten(1, (-1, grid.group or w.size(1)))        # (N, K/group, group)
    step = groups.abs().amax(-1) / grid.top
    return step if grid.group is None else step.bfloat16()


def nearest(w: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """The nearest whole numbers on the grid. w (N, K), scale (N, K/group) -> (N, K) in w.dtype

    A group of zeros has scale 0: its numbers are 0.
    """
    step = scale.to(w.dtype)
    groups = w.unflatten(1, (scale.size(1), -1)) / step.where(step > 0, 1.0)[..., None]
    return groups.round_().clamp_(-grid.top, grid.top).flatten(1)


def stored(numbers: Tensor, scale: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Weight and scale in the formats of `kernels.quantization`: int8 with (N,), or two numbers a byte with groups."""
    if grid.group is None:
        return numbers.to(torch.int8), scale[:, 0].float()
    low, high = (numbers.unflatten(1, (-1, 2)) + 8).to(torch.uint8).unbind(-1)  # (N, K/2) each
    return low | (high << 4), scale
