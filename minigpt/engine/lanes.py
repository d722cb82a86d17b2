"""Keys and values on a CPU: a lane for every running sequence, pages for what outlives it.

A GPU kernel finds its way through pages; plain torch would have to gather them anew in each layer of each step,
which costs more than the attention itself. So a running sequence lies in one piece, its lane, and each page is a
copy, made once when it is full.

The promise: what a token gets here has the same bits, whoever else is computed in the same step, wherever its
prompt was cut into chunks, and whether the beginning was computed or remembered. Three things keep it:

    rows      a matrix product gives a row the same bits beside any other rows, if there are at least ROWS
    keys      sums over keys run over pieces of KEYS keys, whose sums are added in their order; what nobody may see
              has weight 0, and adding 0 changes no bit. softmax adds vector by vector: zeros at the end change nothing
    order     every other operation treats each number, or each row, alone

The first is a property of the library that torch computes with: `company.py` measures it before it is relied on.
"""

from collections.abc import Sequence as Several
from typing import NamedTuple

import torch
from torch import Tensor

from minigpt.engine.company import KEYS  # also the step in which lanes grow
from minigpt.engine.scheduler import Sequence, Work
from minigpt.model.config import GPTConfig

SHORT = 8    # tokens of a sequence in one step, up to which sequences are computed side by side


class Slice(NamedTuple):
    """`count` tokens of one lane, from position `start` on: a part of a step."""

    lane: int
    start: int
    count: int


class Lanes:
    """The memory, and attention in it. Tensors (L, lanes, G, S, D); S grows with the longest sequence."""

    def __init__(self, config: GPTConfig, lanes: int, pages: int, page: int, like: Tensor, rows: int) -> None:
        """`like`: in which dtype and on which device; `rows`: the fewest queries that are multiplied at a time."""
        L, G, D = config.n_layer, config.kv_heads, config.dims_per_head
        self.config, self.rows, self.scale, self.device = config, rows, D**-0.5, like.device
        self.keys = like.new_zeros(L, lanes, G, KEYS, D)
        self.values = torch.zeros_like(self.keys)
        self.key_pages = like.new_zeros(pages, L, G, page, D)
        self.value_pages = torch.zeros_like(self.key_pages)

    def fetch(self, page: int, count: int, sequence: Sequence) -> None:
        """Copy the first `count` tokens of a page into the sequence's lane."""
        lane, start = sequence.lane, sequence.computed
        self._grow(start + count)
        self.keys[:, lane, :, start : start + count] = self.key_pages[page, :, :, :count]
        self.values[:, lane, :, start : start + count] = self.value_pages[page, :, :, :count]

    def file(self, lane: int, start: int, count: int, page: int) -> None:
        """Copy `count` tokens of a lane, from position `start` on, into a page."""
        self.key_pages[page, :, :, :count] = self.keys[:, lane, :, start : start + count]
        self.value_pages[page, :, :, :count] = self.values[:, lane, :, start : start + count]

    def clear(self, lane: int) -> None:
        """Zeros in a whole lane: whatever lies there is multiplied, if only by weight 0."""
        self.keys[:, lane], self.values[:, lane] = 0, 0

    def _grow(self, length: int) -> None:
        """Room for `length` tokens in every lane."""
        more = -(-length // KEYS) * KEYS - self.keys.size(3)
        if more > 0:
            L, lanes, G, _, D = self.keys.shape
            empty = self.keys.new_zeros(L, lanes, G, more, D)
            self.keys, self.values = (torch.cat((x, empty), dim=3) for x in (self.keys, self.values))

    # --- one step -------------------------------------------------------------------------------------------------

    def begin(self, works: Several[Work], alibi: Tensor | None) -> None:
        """Prepare a step whose rows are the tokens of `works`, one after the other."""
        slices = [Slice(work.sequence.lane, work.sequence.computed, work.count) for work in works]
        self._grow(max(start + count for _, start, count in slices))
        G, S = self.config.kv_heads, self.keys.size(3)
        lane = self._integers([lane for lane, _, count in slices for _ in range(count)])                    # (N,)
        self.position = self._integers([start + i for _, start, count in slices for i in range(count)])     # (N,)
        heads = torch.arange(G, device=self.device)
        self.place = ((lane[:, None] * G + heads) * S + self.position[:, None]).flatten()                   # (N·G,)
        self.parts: list[_Part] = []
        short = [(at, each) for at, each in _offsets(slices) if each.count <= SHORT]
        if short:
            self.parts.append(self._side_by_side(short, alibi))
        self.parts += [self._alone(at, each, alibi) for at, each in _offsets(slices) if each.count > SHORT]

    def _side_by_side(self, slices: list[tuple[int, Slice]], alibi: Tensor | None) -> "_Part":
        """Short slices: all lanes up to the last one used, each with the same number of rows, some of them idle."""
        shared = self.config.n_head // self.config.kv_heads                       # query heads of a key head
        T = max(max(each.count for _, each in slices), -(-self.rows // shared))
        lanes = 1 + max(each.lane for _, each in slices)
        rows = self._integers([at + i for at, each in slices for i in range(each.count)])
        lane = self._integers([each.lane for _, each in slices for _ in range(each.count)])
        place = self._integers([i for _, each in slices for i in range(each.count)])
        position = torch.zeros(lanes, T, dtype=torch.long, device=self.device)
        position[lane, place] = self.position[rows]
        length = max(each.start + each.count for _, each in slices)
        in_order = [(at, each.lane, each.count) for at, each in slices] == [(i, i, 1) for i in range(lanes)]
        where = None if in_order else (lane, place)
        return _Part(rows, where, slice(0, lanes), *self._prepared(position, length, alibi))

    def _alone(self, at: int, each: Slice, alibi: Tensor | None) -> "_Part":
        """A long slice: a lane by itself."""
        rows = torch.arange(at, at + each.count, device=self.device)
        lanes = slice(each.lane, each.lane + 1)
        prepared = self._prepared(self.position[rows][None], each.start + each.count, alibi)
        return _Part(rows, (torch.zeros_like(rows), rows - at), lanes, *prepared)

    def _prepared(self, position: Tensor, length: int, alibi: Tensor | None) -> tuple[Tensor, Tensor]:
        """(zeros for the queries, what is added to scores) for queries at `position` (B, T) and `length` keys.

        Shapes: (B, G, H/G, T, D) and (B·G, H/G·T, S), S being the length rounded up to whole pieces. What is added:
        0 where a query may look and -inf elsewhere, or ALiBi's slopes.
        """
        (B, T), S = position.shape, -(-length // KEYS) * KEYS
        G, D = self.config.kv_heads, self.config.dims_per_head
        queries = self.keys.new_zeros(B, G, self.config.n_head // G, T, D)
        distance = position[:, :, None] - torch.arange(S, device=self.device)     # (B, T, S)
        unseen = distance < 0
        if self.config.window is not None:
            unseen |= distance >= self.config.window
        bias = self.keys.new_zeros(distance.shape).masked_fill_(unseen, -torch.inf)[:, None, None]
        if alibi is not None:
            bias = bias - alibi.to(bias.dtype).view(1, G, -1, 1, 1) * distance[:, None, None]
        return queries, bias.expand(*queries.shape[:4], S).reshape(B * G, -1, S)

    def _integers(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the step's keys and values, then attend. q (N, H, D), k and v (N, G, D) -> (N, H, D)."""
        D = q.size(-1)
        keys, values = self.keys[layer], self.values[layer]                       # (lanes, G, S, D)
        keys.view(-1, D).index_copy_(0, self.place, k.reshape(-1, D).to(keys.dtype))
        values.view(-1, D).index_copy_(0, self.place, v.reshape(-1, D).to(keys.dtype))
        if len(self.parts) == 1:
            return self.parts[0].attend(q, keys, values, self.scale)
        y = torch.empty_like(q)
        for part in self.parts:
            y[part.rows] = part.attend(q[part.rows], keys, values, self.scale)
        return y


class _Part(NamedTuple):
    """Rows of a step that are computed together: up to T of each of some lanes."""

    rows: Tensor     # (n,) which rows of the step
    where: tuple[Tensor, Tensor] | None  # (n,) in which of the lanes and where among its T; none: one in each, in order
    lanes: slice
    queries: Tensor  # (B, G, H/G, T, D), zeros where there is no row
    bias: Tensor     # (B·G, H/G·T, S)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """q (n, H, D), keys and values (all lanes, G, S', D) -> (n, H, D)"""
        (B, G, shared, _, D), (BG, M, S) = self.queries.shape, self.bias.shape
        keys = keys[self.lanes, :, :S].flatten(0, 1)                              # (B·G, S, D)
        values = values[self.lanes, :, :S].flatten(0, 1)
        if self.where is None:
            self.queries[:, :, :, 0] = q.view(B, G, shared, D)
        else:
            self.queries.permute(0, 3, 1, 2, 4)[self.where] = q.view(-1, G, shared, D).to(keys.dtype)
        scores = torch.baddbmm(self.bias, self.queries.view(BG, M, D), keys.mT, alpha=scale)
        weights = scores.softmax(-1)                                              # (B·G, H/G·T, S)
        y = torch.bmm(weights[:, :, :KEYS], values[:, :KEYS])                     # (B·G, H/G·T, D)
        for at in range(KEYS, S, KEYS):
            y.baddbmm_(weights[:, :, at : at + KEYS], values[:, at : at + KEYS])
        y = y.view(self.queries.shape)
        y = y[:, :, :, 0] if self.where is None else y.permute(0, 3, 1, 2, 4)[self.where]  # (n, G, H/G, D)
        return y.reshape(len(q), G * shared, D).to(q.dtype)


def _offsets(slices: Several[Slice]) -> list[tuple[int, Slice]]:
    """Each slice with the row it begins at."""
    pairs, at = [], 0
    for each in slices:
        pairs.append((at, each))
        at += each.count
    return pairs
