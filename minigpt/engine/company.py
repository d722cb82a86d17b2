"""Does a row's result depend on the rows beside it?

A matrix product may add up in one order for a single row and in another for many: then a token's logits depend on
who else is in the batch, by the last bit, and sooner or later another token is chosen. Libraries differ in this, so
it is measured, for the very shapes a model has: MKL, for one, treats one to three rows in ways of their own and all
others alike.
"""

from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn

from minigpt.model.gpt import GPT

KEYS = 128   # keys summed at a time, see `lanes.py`
CANDIDATES = (1, 2, 4, 8, 16)
MANY = 61     # rows: no multiple of anything a library might cut by
WIDEST = 2048  # columns tried: a product treats further ones no differently


def fewest_rows(model: GPT, cache: torch.dtype) -> tuple[int, int]:
    """(of products with float weights, of attention) that make rows independent here; 0: nothing does.

    Only in float32, on a CPU: products of half precision choose their order by more than their rows. Activations need
    whole vectors: a width that is no multiple of 32 is finished number by number, and a number's last bit may then
    depend on where it stands.
    """
    config, weight = model.config, model.final_norm.weight
    if weight.device.type != "cpu" or {weight.dtype, cache} != {torch.float32}:
        return 0, 0
    if config.hidden % 32 or config.n_embd % 32 or config.dims_per_head % 2:
        return 0, 0
    shapes = [tuple(layer.weight.shape) for layer in model.modules() if type(layer) is nn.Linear]
    attention = rows_of_attention(config.kv_heads, config.dims_per_head, KEYS, cache)
    return rows_of_products(shapes, weight.dtype), attention


def rows_of_products(shapes: Iterable[tuple[int, int]], dtype: torch.dtype) -> int:
    """The fewest rows that x must have so that each row of x Wᵀ has the same bits as among many; 0: no number helps.

    `shapes`: (N, K) of every W.
    """
    wide = {(min(N, WIDEST), K) for N, K in shapes}
    return _for_all([_linear(N, K, dtype, torch.get_num_threads()) for N, K in sorted(wide)])


def rows_of_attention(heads: int, head_dim: int, keys: int, dtype: torch.dtype) -> int:
    """The same for the scores of queries, also beside more keys, and for sums over `keys` values."""
    return _attention(heads, head_dim, keys, dtype, torch.get_num_threads())


def _for_all(found: list[int]) -> int:
    """The number that serves all; 0 if there is none for one of them."""
    return 0 if 0 in found else max(found, default=1)


@cache
def _linear(N: int, K: int, dtype: torch.dtype, threads: int) -> int:
    weight, x = _numbers(N, K, dtype=dtype), _numbers(MANY, K, dtype=dtype)
    return _fewest(lambda rows: x[rows] @ weight.T)


@cache
def _attention(heads: int, head_dim: int, keys: int, dtype: torch.dtype, threads: int) -> int:
    q, k = _numbers(heads, MANY, head_dim, dtype=dtype), _numbers(heads, 3 * keys, head_dim, dtype=dtype)
    weights, values = _numbers(heads, MANY, keys, dtype=dtype), _numbers(heads, keys, head_dim, dtype=dtype)

    def scores(S: int) -> Callable[[slice], Tensor]:
        bias = q.new_zeros(heads, 1, S)
        return lambda rows: torch.baddbmm(bias, q[:, rows], k[:, :S].mT, alpha=0.125)[..., :keys].transpose(0, 1)

    def sums(rows: slice) -> Tensor:
        return (weights[:, rows] @ values).transpose(0, 1)

    beside_more = scores(3 * keys)
    return _for_all([_fewest(scores(keys), beside_more), _fewest(scores(2 * keys), beside_more), _fewest(sums)])


def _fewest(product: Callable[[slice], Tensor], whole: Callable[[slice], Tensor] | None = None) -> int:
    """The smallest candidate from which on every cut through the rows gives the bits of the whole."""
    together = (whole or product)(slice(0, MANY))                                 # (MANY, ...)

    def agrees(count: int) -> bool:
        starts = (0, 7, MANY - count)
        return all(torch.equal(product(slice(a, a + count)), together[a : a + count]) for a in starts)

    agreeing = {count: agrees(count) for count in (*range(1, 26), 31, 32, 33, 40, 48, 50, 60)}
    return next((c for c in CANDIDATES if all(fits for n, fits in agreeing.items() if n >= c)), 0)


def _numbers(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
