"""Keys and values that stay where they were computed: in pages, found by their numbers.

Nothing is copied when a beginning is remembered or a sequence ends. `InPlace` is what every such memory does for the
scheduler; `Paged` is the one for a GPU, where `kernels.decode_attention` finds its way through pages.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import kernels
from minigpt.engine.scheduler import Sequence as Running
from minigpt.engine.scheduler import Work
from minigpt.model.config import GPTConfig

LONG = 16  # tokens of one sequence in a step, from which on its pages are gathered


class InPlace:
    """A `Store` whose tensors have the page in their second dimension: (L, pages, ...)."""

    def __init__(self, arrays: dict[str, Tensor]) -> None:
        self.arrays = arrays

    def fetch(self, page: int, count: int, sequence: Running) -> None:
        """A page remembered in full is simply used; the beginning of another is copied to the sequence's own."""
        own = sequence.pages[-1]
        if own != page:
            for array in self.arrays.values():
                array[:, own] = array[:, page]

    def file(self, lane: int, start: int, count: int, page: int) -> None:
        """They lie there already."""

    def clear(self, lane: int) -> None:
        """Nothing to do: what a row may not see is not looked at."""


class Paged(InPlace):
    """Keys and values (L, pages + 1, G, page, D), and attention to them.

    A row of a step is a query of its own, but for parts of prompts: many queries would read the same pages, each for
    itself, so these are gathered once and read by all. The last page is nobody's: idle rows write there. `place`, and
    `attend` after it, ask the host nothing: see `graphs.py`.
    """

    def __init__(self, config: GPTConfig, pages: int, page: int, like: Tensor) -> None:
        """`like`: in which dtype and on which device."""
        shape = (config.n_layer, pages + 1, config.kv_heads, page, config.dims_per_head)
        super().__init__({"keys": like.new_zeros(shape), "values": like.new_zeros(shape)})
        self.page, self.window, self.device = page, config.window, like.device
        self.spare, self.longest = pages, -(-config.context_length // page)  # a page; and how many a context takes

    def begin(self, works: Sequence[Work], alibi: Tensor | None) -> None:
        """Prepare a step whose rows are the tokens of `works`, one after the other."""
        assert alibi is None, "the kernel knows no slopes: Lanes do"
        positions = [work.sequence.computed + i for work in works for i in range(work.count)]
        widest = max(len(work.sequence.pages) for work in works)
        tables = [work.sequence.pages + [0] * (widest - len(work.sequence.pages)) for work in works]
        counts = torch.tensor([work.count for work in works])
        table = torch.tensor(tables, dtype=torch.int32).repeat_interleave(counts, 0)                    # (N, pages)
        self.place(torch.tensor(positions, device=self.device), table.to(self.device))
        rest, at = [], 0
        for work in works:
            rows, at = slice(at, at + work.count), at + work.count
            if work.count < LONG:
                rest += range(rows.start, rows.stop)
            else:
                pages = torch.tensor(work.sequence.pages, device=self.device)
                self.chunks.append(_Chunk(rows, pages, work.sequence.computed + work.count))
        if self.chunks:
            self.rest = torch.tensor(rest, dtype=torch.long, device=self.device)

    def place(self, position: Tensor, table: Tensor) -> None:
        """The same from tensors alone: where each row stands (N,), and the pages of its sequence (N, pages)."""
        self.position, self.table = position, table
        self.chunks, self.rest = list[_Chunk](), slice(None)  # rows that attend together, and those that do alone
        self.lengths = (position + 1).int()
        self.where = table.gather(1, (position // self.page)[:, None])[:, 0].long()                     # (N,) pages
        self.within = position % self.page                                                              # (N,)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the step's keys and values, then attend. q (N, H, D), k and v (N, G, D) -> (N, H, D)."""
        keys, values = self.arrays["keys"][layer], self.arrays["values"][layer]                 # (pages, G, page, D)
        keys[self.where, :, self.within] = k.to(keys.dtype)
        values[self.where, :, self.within] = v.to(values.dtype)
        if not self.chunks:
            return self._alone(q, keys, values)
        y = torch.empty_like(q)
        for chunk in self.chunks:
            y[chunk.rows] = chunk.attend(q[chunk.rows], keys, values, self.window)
        if len(self.rest):
            y[self.rest] = self._alone(q[self.rest], keys, values)
        return y

    def _alone(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Each of the rest attends to its own pages. q (n, H, D) -> (n, H, D)"""
        table, lengths = self.table[self.rest], self.lengths[self.rest]
        return kernels.decode_attention(q.to(keys.dtype), keys, values, table, lengths, window=self.window).to(q.dtype)


class _Chunk(NamedTuple):
    """A part of a prompt: rows of a step that are the last tokens of one sequence."""

    rows: slice
    pages: Tensor  # (n,)
    length: int    # of the sequence, with them

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """q (T, H, D), keys and values (pages, G, page, D) -> (T, H, D)"""
        k, v = (x.transpose(0, 1)[:, self.pages].flatten(1, 2)[None, :, : self.length] for x in (keys, values))
        y = kernels.attention(q.to(k.dtype).transpose(0, 1)[None], k, v, window=window)         # (1, H, T, D)
        return y[0].transpose(0, 1).to(q.dtype)
