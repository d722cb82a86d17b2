"""Rounding that makes up in the next columns for what it lost in this one.

A layer computes W X. Rounded to nearest, each weight is as close as it can be, and W X need not be. Here columns are
rounded one after the other, and after each the columns not yet rounded are moved so that W X changes least:

    H = X Xᵀ over many inputs, damped              what the inputs are like
    H⁻¹ = Uᵀ U, U upper triangular                 row j of U: how the others answer to column j
    e = (w_j - rounded_j) / U_jj                   column j's error
    w_k -= e · U_jk    for k > j                   what the others do about it

Blocks of columns are finished before the rest hears of them, in one product. Columns whose inputs are large go first,
while many others can still answer.

Source: Frantar et al. 2023, "GPTQ", algorithm 1; act-order and fixed groups as in its authors' code.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from minigpt.batches.loader import Batch
from minigpt.compress.grid import Grid, nearest, scales
from minigpt.compress.inputs import input_sums, products
from minigpt.compress.quantize import IntegerGPT, Rounding, linear_layers, put_ends, quantize, table, to_nearest
from minigpt.model.gpt import GPT, Undrawn

DAMP = 0.1  # of the mean of H's diagonal, added to it: channels that are never used must not divide by 0
BLOCK = 128  # columns
SHRINK = [1 - 0.04 * i for i in range(13)]  # shares of the largest scale that are tried


def round_columns(
    w: Tensor, hessian: Tensor, grid: Grid, *, block: int = BLOCK, ordered: bool = True
) -> tuple[Tensor, Tensor]:
    """Whole numbers whose products with the inputs stay near those of w, and their scales.

    Shapes: w (N, K), hessian (K, K); returns numbers (N, K) and scale (N, K/group), as `grid.stored` takes them.
    Dtypes: computed in float64. `ordered`: columns with large inputs first.
    Raises: ValueError if the Hessian is not that of finite inputs.
    """
    if not hessian.isfinite().all():
        raise ValueError("the inputs of a layer are not finite: calibrate with other text, or train anew")
    scale = best_scales(w, hessian.diagonal(), grid)                              # from the weights as they were
    order = hessian.diagonal().argsort(descending=True) if ordered else torch.arange(w.size(1))
    steps = scale.double().repeat_interleave(grid.group or w.size(1), dim=1)[:, order]  # (N, K)
    rest, upper = w.double()[:, order], _answers(hessian[order][:, order])
    numbers = torch.empty_like(rest)
    for start in range(0, w.size(1), block):
        end = min(start + block, w.size(1))
        errors = torch.empty(w.size(0), end - start, dtype=torch.float64)
        for j in range(start, end):
            column, step = rest[:, j : j + 1], steps[:, j : j + 1]
            numbers[:, j : j + 1] = nearest(column, step, grid)
            error = (column - numbers[:, j : j + 1] * step) / upper[j, j]         # (N, 1)
            rest[:, j + 1 : end] -= error * upper[j, j + 1 : end]
            errors[:, j - start] = error[:, 0]
        rest[:, end:] -= errors @ upper[start:end, end:]
    return numbers[:, order.argsort()], scale


def best_scales(w: Tensor, importance: Tensor, grid: Grid) -> Tensor:
    """For each group the scale, out of `SHRINK` of what `grid.scales` says, with the least Σ importance · error².

    A few large numbers are cut off where that lets all others have finer steps. (N, K), (K,) -> (N, K/group)
    """
    largest = scales(w, grid)
    shape = (largest.size(1), -1)                                                 # groups of a row
    groups, weight = w.float().unflatten(1, shape), importance.float().unflatten(0, shape)
    best, least = largest, torch.full(largest.shape, torch.inf)
    for share in SHRINK:
        scale = (largest.float() * share).to(largest.dtype)
        rounded = nearest(w.float(), scale, grid).unflatten(1, shape) * scale.float()[..., None]
        cost = ((rounded - groups).square() * weight).sum(-1)                     # (N, K/group)
        best, least = best.where(cost >= least, scale), least.minimum(cost)
    return best


def _answers(hessian: Tensor) -> Tensor:
    """U with H⁻¹ = Uᵀ U, upper triangular. (K, K) in float64"""
    damped = hessian.double()
    mean = damped.diagonal().mean().clamp_min(1e-30)
    damped = damped + DAMP * mean * torch.eye(len(damped), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


# --- a whole model ------------------------------------------------------------------------------------------------


@torch.no_grad()
def quantize_gptq(model: GPT, grid: Grid, batches: Iterable[Batch]) -> IntegerGPT:
    """A copy of the model on the grid, rounded block by block: each sees inputs as the blocks before it now give them.

    A tied head is rounded for the inputs of the head: embeddings are looked up, they multiply nothing. An embedding of
    its own is rounded to nearest.
    """
    batches = list(batches)
    integer = quantize(model, grid)
    with Undrawn():
        working = GPT(model.config).eval()  # blocks that are done, as integers; the others, as floats
    working.load_state_dict(model.state_dict())
    for at, block in enumerate(working.blocks):
        for name, hessian in input_sums(working, linear_layers(block), batches, products).items():
            layer, place = block.get_submodule(name), f"blocks.{at}.{name}"
            done = table(place, layer.weight, grid, _rounding(hessian), layer.bias)
            integer.set_submodule(place, done)
            block.set_submodule(name, done)
    hessian = input_sums(working, {"lm_head": working.lm_head}, batches, products)["lm_head"]
    put_ends(integer, lambda name: table(name, model.get_submodule(name).weight, grid,
             _rounding(hessian) if name == "lm_head" or model.config.tied else to_nearest))  # fmt: skip
    return integer


def _rounding(hessian: Tensor) -> Rounding:
    return lambda name, w, grid: round_columns(w, hessian, grid)
