"""What a case must do at least: floating-point operations, and bytes read once and written once. By formula.

A time alone teaches nothing: operations over the rate of a large matrix product, or bytes over the bandwidth of a
large copy, say how far there is to go. Both ceilings are measured in the same run (kernel_timing.py).

Letters: B batch, T queries, S keys, H query heads, G key/value heads, D head_dim, N tokens, C channels, V vocabulary.
"""

import random
from typing import NamedTuple


class Cost(NamedTuple):
    """One call. `limit` says which of the two binds it, and so which ceiling it is held against."""

    flops: float = 0.0
    bytes: float = 0.0
    limit: str = "copy"  # copy or matmul


def attention_cost(
    *, B: int, H: int, T: int, D: int, backward: bool, window: int | None = None, lengths: tuple[int, ...] = ()
) -> Cost:
    """Two products of 2 D operations per visible pair forward, 2.5 times as much backward (five products).

    Visible pairs per head: T²/2 under causal attention, as in published charts (the diagonal counts half);
    T·W - W²/2 within a window W; Σ length²/2 over packed documents.
    """
    if lengths:
        pairs = sum(length**2 / 2 for length in lengths)
    elif window is not None and window < T:
        pairs = T * window - window**2 / 2
    else:
        pairs = T**2 / 2
    return Cost(flops=4 * B * H * D * pairs * (2.5 if backward else 1), limit="matmul")


def decode_cost(*, B: int, S: int, G: int, D: int, itemsize: int) -> Cost:
    """Every key and every value is read once; queries and results are as nothing beside them."""
    return Cost(bytes=2 * B * S * G * D * itemsize)


def cross_entropy_cost(*, N: int, C: int, V: int) -> Cost:
    """Logits, gradient of x, gradient of the weight: three products of N x V x C. Logits made again count nothing."""
    return Cost(flops=6 * N * C * V, limit="matmul")


def pass_cost(*, N: int, C: int, itemsize: int, tensors: int) -> Cost:
    """`tensors` tensors (N, C) read or written; weights and sums over channels are as nothing beside them."""
    return Cost(bytes=tensors * N * C * itemsize)


def adamw_cost(*, numbers: int, clip_and_copy: bool) -> Cost:
    """float32: p, g, m, v read and p, m, v written; clipping reads g once more, the bfloat16 copy writes 2 bytes."""
    return Cost(bytes=numbers * (28 + (4 + 2 if clip_and_copy else 0)))


def newton_schulz_cost(*, B: int, M: int, N: int, steps: int) -> Cost:
    """x xᵀ (M x M x N), its square (M x M x M) and a product with x (M x N x M), full: symmetry saves none here."""
    return Cost(flops=B * steps * (4 * M * M * N + 2 * M**3), limit="matmul")


def quantized_cost(*, B: int, C: int, F: int, bits: int, group: int) -> Cost:
    """The weight (F, C) in `bits`, a float32 scale per `group` of them, inputs and results in bfloat16."""
    return Cost(bytes=F * C * bits / 8 + 4 * F * C / group + 2 * B * (C + F))


def packed_lengths(T: int, mean: int, seed: int = 0) -> tuple[int, ...]:
    """Documents of mean/2 to 3·mean/2 tokens that fill T: the same on every machine, for the cost depends on them."""
    chance, lengths = random.Random(seed), []
    while sum(lengths) < T:
        lengths.append(min(chance.randint(mean // 2, mean * 3 // 2), T - sum(lengths)))
    return tuple(lengths)


def gpt2_shapes(n_layer: int = 12, C: int = 768, V: int = 50257, context_length: int = 1024) -> list[tuple[int, ...]]:
    """The 148 tensors of GPT-2 124M: its own for the two embeddings, 12 per layer, two of the last norm."""
    layer = [(C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,), (C,), (C,), (4 * C, C), (4 * C,), (C, 4 * C), (C,)]
    return [(V, C), (context_length, C), *layer * n_layer, (C,), (C,)]
