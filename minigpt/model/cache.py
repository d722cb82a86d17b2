"""What generation keeps, so that each new token costs one token's work.

A causal model's keys and values of past tokens never change. A cache stores them; attention then needs only the new
tokens' queries. The model knows two things of a cache: `length`, and `attend`.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from kernels import attention
from minigpt.model.config import GPTConfig


class KVCache(Protocol):
    """What the model asks of a cache."""

    length: int  # tokens stored so far: where positions continue

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
        """Store this layer's new keys and values, then attend over everything stored (how: window, alibi, ...)."""
        ...


class DenseKVCache:
    """One block of memory for `capacity` tokens of each of `batch` sequences, all of the same length.

    `length` moves on when the last layer has stored: all layers of one forward pass begin at the same position, and
    one that fails half-way leaves the cache as it was. Setting `length` back forgets the tokens after it.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.n_layer, batch, config.kv_heads, capacity, config.dims_per_head)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)    # (L, B, G, capacity, D)
        self.values = torch.zeros(shape, dtype=dtype, device=device)  # (L, B, G, capacity, D)
        self.length = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
        """q (B, H, T, D), k and v (B, G, T, D) of the new tokens -> (B, H, T, D).

        Raises: ValueError if the new tokens do not fit.
        """
        n_layer, _, _, capacity, _ = self.keys.shape
        end = self.length + k.size(2)
        if end > capacity:
            raise ValueError(
                f"the cache holds {capacity} tokens: {self.length} are stored and {k.size(2)} more do not fit. "
                "Make it with a larger capacity, or start over with fewer tokens."
            )
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        y = attention(q, self.keys[layer, :, :, :end], self.values[layer, :, :, :end], **how)
        if layer == n_layer - 1:
            self.length = end
        return y
