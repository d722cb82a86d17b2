"""Integers or floats? Where torch computes, measured for each shape of matrix, on the machine that computes.

Where the engine computes in C there is nothing to choose: integers are faster there in every shape that was measured,
1.1 to 10 times. In torch, rounding activations takes operations of its own: a matrix of 128 x 128 is multiplied in 4 us
as floats and in 67 us as int8, one of 4096 x 4096 in 4,600 and 750 (one thread, measured). So before a model is used
there, each of its matrices is tried in every way there is:

    int8     IntegerLinear: activations rounded row by row to int8, sums exact. Four bits are first widened to eight,
             in 255 steps for each row
    int4     PackedLinear: activations in bfloat16 (only where the file holds four bits)
    float32  the weights turned into floats once, activations as they are

and the fastest is kept that beats float32 both for one row and for 16; else float32. On disk nothing changes.

A row has the same bits in any company with each way (with float32, from 4 rows on: see `engine/lanes.py`). But the
ways differ from each other in the last digits, so another machine, or a close race, may write another text.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kernels.quantization import columns, dequantized, quantize_int8
from minigpt.compress.quantize import Table, together
from minigpt.engine.compiled import uncovered
from minigpt.engine.config import EngineConfig
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.packed_linear import PackedLinear
from minigpt.model.gpt import GPT

ALONE, CROWD = 1, 16  # rows
TRIES = 8
MARGIN = 0.9  # of float32's time: less is no measurement but noise, and would change from load to load


class Choice(NamedTuple):
    """What was measured for one shape, and what follows."""

    shape: tuple[int, int]                   # outputs, inputs: of all layers that are multiplied as one
    names: list[str]                         # of one such set of layers
    layers: int                              # how many sets there are
    way: str
    seconds: dict[str, tuple[float, float]]  # way -> one row, 16 rows


def widened(layer: Table) -> nn.Module:
    """IntegerLinear, from eight bits as they are or from four."""
    if isinstance(layer, IntegerLinear):
        return layer
    return IntegerLinear(*quantize_int8(dequantized(layer.weight, layer.scale)), layer.bias)


def as_floats(layer: Table) -> nn.Linear:
    """nn.Linear of the same numbers."""
    w = dequantized(layer.weight, layer.scale)                        # (N, K)
    linear = nn.Linear(w.size(1), w.size(0), bias=layer.bias is not None, device="meta")
    linear.weight = nn.Parameter(w, requires_grad=False)
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias, requires_grad=False)
    return linear


WAYS: dict[str, Callable[[Table], nn.Module]] = {"int8": widened, "int4": lambda layer: layer, "float32": as_floats}


def for_engine(model: GPT, config: EngineConfig | None = None) -> list[Choice]:
    """See that an integer model is computed as fast as it can be here; returns what had to be chosen for that."""
    return choose(model) if uncovered(model, config or EngineConfig()) else []


@torch.no_grad()
def choose(model: GPT) -> list[Choice]:
    """Replace the integer layers of a model, in place, by what is fastest here. Takes up to a second.

    The embedding keeps its table. q, k and v are measured as one, gate and up as well: so the engine multiplies them.
    """
    sets = [names for names in [*together(model), ["lm_head"]] if isinstance(model.get_submodule(names[0]), Table)]
    ones = [_as_one([model.get_submodule(name) for name in names]) for names in sets]
    same: dict[tuple[type, tuple[int, int]], list[int]] = {}  # which of them have the same format and shape
    for i, one in enumerate(ones):
        same.setdefault((type(one), (one.out_features, columns(one.weight))), []).append(i)
    made = []
    for (_, shape), seconds in zip(same, measured(ones, list(same.values())), strict=True):
        where, way = list(same.values())[len(made)], fastest(seconds)
        made.append(Choice(shape, sets[where[0]], len(where), way, seconds))
        for name in (name for i in where for name in sets[i]):
            model.set_submodule(name, WAYS[way](model.get_submodule(name)))
    return made


def fastest(seconds: dict[str, tuple[float, float]]) -> str:
    """The way with the least product of both times, among those that are clearly faster than float32; else float32."""
    alone, crowd = (MARGIN * best for best in seconds["float32"])
    able = [way for way, (one, many) in seconds.items() if one <= alone and many <= crowd] or ["float32"]
    return min(able, key=lambda way: seconds[way][0] * seconds[way][1])


def _as_one(layers: list[Table]) -> Table:
    return layers[0] if len(layers) == 1 else type(layers[0]).stacked(layers)


def measured(ones: list[Table], same: list[list[int]]) -> list[dict[str, tuple[float, float]]]:
    """For each list of layers of one shape: way -> seconds of such a layer, for one row and for 16.

    All layers compute in their order, as in a model that is made in one way only: a layer measured by itself finds its
    weights in the cache, where in a model the others' are. (384 x 1024 then seems faster as floats, and a model of
    6 such blocks gains 1.5x instead of 2.6x.) Ways take turns, so that whatever else the machine does hits all.
    """
    packed = any(isinstance(one, PackedLinear) for one in ones)
    ways = {way: [make(one) for one in ones] for way, make in WAYS.items() if way != "int4" or packed}
    best = [{way: [float("inf")] * 2 for way in ways} for _ in same]
    for at, M in enumerate((ALONE, CROWD)):
        rows = [torch.randn(M, columns(one.weight)) for one in ones]
        for _ in range(TRIES):
            for way, layers in ways.items():
                seconds = [_seconds(layer, x) for layer, x in zip(layers, rows, strict=True)]
                for taken, where in zip(best, same, strict=True):
                    taken[way][at] = min(taken[way][at], sum(seconds[i] for i in where) / len(where))
    return [{way: (one, many) for way, (one, many) in taken.items()} for taken in best]


def _seconds(layer: nn.Module, x: Tensor) -> float:
    started = time.perf_counter()
    layer(x)
    return time.perf_counter() - started
