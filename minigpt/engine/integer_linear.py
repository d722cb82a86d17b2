"""Linear layers in integers: a quarter of the bytes, and the same bits in any company.

    s = max |x| / 127 for each row,   q = round(x / s)        eight bits a number, a scale for every row of x
    y = s · (q Wᵀ) · scale + bias                            W in eight bits, a scale for each of its rows

Sums of integers have no rounding, so q Wᵀ is exact in whatever order, by whatever library, in whatever batch. torch
has three ways to multiply so on a CPU, and which is fastest depends on the shape and the machine: the first use
measures those that are exact there. They agree to the last bit, so that the choice is never seen in a result.

torch's own dynamic quantization takes one scale for all rows of x: there, a row's result depends on its company.
"""

import time
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

EXACT = 1024  # products of ±127 · ±127 that float32 adds up without rounding: 127² · 1024 < 2²⁴

LEAST = torch.tensor(1e-30)

KEPT = 64  # rows up to which memory is set aside

Product = Callable[[Tensor, Tensor], Tensor]  # x (M, K), s (M, 1) in float32 -> round(x / s) Wᵀ · scale (M, N)


class IntegerLinear(nn.Module):
    """A linear layer of int8 weights.

    Shapes: weight (N, K) of int8, scale (N,), bias (N,) or none; x (..., K) -> (..., N).
    Dtypes: products in integers, scales in float32; the result in x.dtype.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self._product: Product | None = None

    @property
    def in_features(self) -> int:
        return self.weight.size(1)

    @property
    def out_features(self) -> int:
        return self.weight.size(0)

    @staticmethod
    def stacked(layers: "list[IntegerLinear]") -> "IntegerLinear":
        """Layers that read the same rows, as one: their outputs side by side."""
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
        return IntegerLinear(torch.cat([layer.weight for layer in layers]), torch.cat([x.scale for x in layers]), bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2 and x.dtype == torch.float32:
            return self.rows(x)
        return self.rows(x.reshape(-1, x.size(-1)).float()).view(*x.shape[:-1], -1).to(x.dtype)

    def rows(self, x: Tensor) -> Tensor:
        """The same for x (M, K) in float32. A row of zeros has scale 0: the least bit more keeps it from 0/0."""
        if self._product is None:
            self._product = fastest(self.weight, self.scale.float())
        s = torch.add(LEAST, x.abs().amax(-1, keepdim=True), alpha=1 / 127)       # (M, 1)
        y = self._product(x, s).mul_(s)                                           # (M, N)
        return y if self.bias is None else y.add_(self.bias)


# --- three ways to multiply whole numbers -------------------------------------------------------------------------


def by_float(weight: Tensor, scale: Tensor) -> Product:
    """float32 products: the numbers are whole and small enough for every partial sum to be exact."""
    parts = [part.contiguous() for part in weight.float().split(EXACT, dim=1)]

    def product(x: Tensor, s: Tensor) -> Tensor:
        q = torch.div(x, s).round_()
        first, *others = (some @ part.T for some, part in zip(q.split(EXACT, dim=1), parts, strict=True))
        if others:
            return sum((y.double() for y in others), first.double()).float().mul_(scale)
        return first.mul_(scale)

    return product


def by_int_mm(weight: Tensor, scale: Tensor) -> Product:
    """torch._int_mm: int8 times int8 in int32. No copy of the weights is made."""
    turned = weight.T

    def product(x: Tensor, s: Tensor) -> Tensor:
        return torch._int_mm(torch.div(x, s).round_().to(torch.int8), turned) * scale

    return product


def by_fbgemm(weight: Tensor, scale: Tensor) -> Product:
    """torch's dynamically quantized linear layer, made exact by one more row.

    It finds one scale for all of x, 255 steps from the smallest to the largest number. A row with -128 and 127 in it
    makes these steps 1, and whole numbers stay what they are.
    """
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with warnings.catch_warnings():  # torch says that this will go some day: `fastest` then finds it gone
        warnings.simplefilter("ignore", UserWarning)
        stored = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    packed = torch.ops.quantized.linear_prepack(stored, None)
    kept: dict[int, Tensor] = {}  # x as whole numbers, with that row behind it, for few rows: set aside once

    def room(M: int) -> Tensor:
        numbers = torch.zeros(M + 1, weight.size(1))
        numbers[M, :2] = torch.tensor([-128.0, 127.0])
        return numbers

    def product(x: Tensor, s: Tensor) -> Tensor:
        M = len(x)
        if (numbers := kept.get(M)) is None:
            numbers = room(M)
            if M <= KEPT:
                kept[M] = numbers
        torch.div(x, s, out=numbers[:M]).round_()
        return torch.ops.quantized.linear_dynamic(numbers, packed, False)[:M]

    return product


WAYS = {"int_mm": by_int_mm, "fbgemm": by_fbgemm, "float": by_float}


def fastest(weight: Tensor, scale: Tensor) -> Product:
    """The way that is fastest here for a weight of this shape: for a row alone, and for several."""
    alone, several = (_fastest(*weight.shape, M, torch.get_num_threads()) for M in (1, 16))
    way = WAYS[several](weight, scale)
    if alone == several:
        return way
    row = WAYS[alone](weight, scale)
    return lambda x, s: row(x, s) if len(x) == 1 else way(x, s)


@cache
def _fastest(N: int, K: int, M: int, threads: int) -> str:
    """Measured once per shape, in some milliseconds. A second copy of the weights must be worth it: a tenth."""
    seconds = {name: _seconds(way, N, K, M) for name, way in WAYS.items()}
    least = min(seconds.values())
    return next(name for name, taken in seconds.items() if taken <= 1.1 * least)


def _seconds(way: Callable[[Tensor, Tensor], Product], N: int, K: int, M: int) -> float:
    """The least of several tries at a product of M rows. Infinite where torch lacks this way, or it is not exact.

    Without instructions for it (VNNI), a CPU adds pairs of products in 16 bits, which the largest ones overflow.
    """
    weight = (torch.arange(N * K).view(N, K) * 89 % 255 - 127).to(torch.int8)
    weight[::2] = 127
    x = (torch.arange(M * K).view(M, K) * 53 % 255 - 127).float()
    x[::3] = 127
    scale, s = torch.ones(N), torch.ones(M, 1)
    try:
        product, best = way(weight, scale), float("inf")
        if not torch.equal(product(x, s), (x.double() @ weight.double().T).float()):
            return float("inf")
        for _ in range(9):
            started = time.perf_counter()
            product(x, s)
            best = min(best, time.perf_counter() - started)
        return best
    except (RuntimeError, AttributeError, NotImplementedError):
        return float("inf")
