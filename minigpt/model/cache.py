"""What generation keeps, so that each new token costs one token's work.

In a causal model the keys and values of past tokens never change. A cache stores them; attention then needs
the queries of the new tokens only. The model knows two things of a cache: `length`, and `attend`; and a third where it
has a short convolution, which reads the last tokens once more.
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
        """Store this layer's new keys and values, then attend over all that is stored (how: window, ...)."""
        ...

    def with_earlier(self, ids: Tensor, n: int) -> Tensor:
        """New tokens (B, T) behind the n stored last (B, up to n + T); and remember the new ones."""
        ...


class DenseKVCache:
    """One block of memory for `capacity` tokens of each of `batch` sequences, all of the same length.

    `length` moves on when the last layer has stored its share: all layers of one forward pass begin at the
    same position, and a pass that fails half-way leaves the cache as it was. Set `length` back to forget.
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
        self.ids = torch.zeros(batch, capacity, dtype=torch.long, device=device)
        self.length = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
        """q (B, H, T, D), k and v (B, G, T, D) of the new tokens -> (B, H, T, D).

        Raises: ValueError if the new tokens do not fit.
        """
        start, end = self.length, self._end(k.size(2))
        self.keys[layer, :, :, start:end] = k
        self.values[layer, :, :, start:end] = v
        y = attention(q, self.keys[layer, :, :, :end], self.values[layer, :, :, :end], **how)
        if layer == len(self.keys) - 1:
            self.length = end
        return y

    def with_earlier(self, ids: Tensor, n: int) -> Tensor:
        """(B, T) -> (B, up to n + T), remembered. Raises: ValueError if the new tokens do not fit."""
        end = self._end(ids.size(1))
        self.ids[:, self.length : end] = ids
        return self.ids[:, max(0, self.length - n) : end]

    def _end(self, new: int) -> int:
        """The length with so many more tokens."""
        capacity, end = self.ids.size(1), self.length + new
        if end > capacity:
            raise ValueError(
                f"the cache holds {capacity} tokens: {self.length} are stored and {new} more do not fit. "
                "Make it with a larger capacity, or begin again with fewer tokens."
            )
        return end
