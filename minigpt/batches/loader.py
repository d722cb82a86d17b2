"""Which tokens does step n see? An endless shuffled walk over the training stream, and one straight pass.

The walk is a function of (seed, n), so n is all there is to save. An epoch cuts the stream into windows and
visits each of them once; the next epoch cuts elsewhere, so that in time every token is predicted from every
length of context.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from minigpt.batches.packing import document_ids
from minigpt.batches.shards import TokenStream
from minigpt.batches.shuffle import round_keys, shuffled

IGNORED = -100  # the target where there is none; cross-entropy passes over it
BLOCK = 64      # batches whose windows are drawn at once: shuffling 12 numbers takes as long as 1,000


class Batch(NamedTuple):
    ids: Tensor              # (B, T) int64
    targets: Tensor          # (B, T) int64, the token after each
    document: Tensor | None  # (B, T) int64, equal within a document; None where attention may cross borders


def batch_at(stream: TokenStream, starts: np.ndarray, context_length: int, mask_documents: bool) -> Batch:
    """The windows that begin at `starts` (B,), as inputs and, one to the right, targets."""
    rows = stream.rows(starts, context_length + 1)  # (B, T + 1)
    document = None
    if mask_documents:
        document = torch.from_numpy(document_ids(stream.document_starts, starts, context_length))  # (B, T)
    return Batch(torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy()), document)


class Loader:
    """An endless iterator of batches; process `rank` of `world` gets rows rank, rank + world, ... of each.

        window s, counted over all batches:  epoch e = s div n, place i = s mod n
        it starts at token                   phase(e) + T · shuffled(i)

    with n windows an epoch. The windows of an epoch do not overlap; up to two windows' worth of tokens at the
    ends of the stream are left out of it, others each time.

    Raises: ValueError if the stream is shorter than one window, or the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        batch_size: int,
        context_length: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        mask_documents: bool = False,
    ) -> None:
        if len(stream) < context_length + 1:
            raise ValueError(
                f"the training text has {len(stream):,} tokens, too few for a window of context_length + 1 = "
                f"{context_length + 1:,}. Use more text, or a --context-length below {len(stream):,}."
            )
        if batch_size % world:
            raise ValueError(f"batch_size={batch_size} cannot be shared by {world} processes; use a multiple")
        self.stream, self.context_length, self.seed = stream, context_length, seed
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.mask_documents = mask_documents
        self.position = 0
        self.block = -1  # none is computed yet
        # one window fewer than fit, so that an epoch can begin at any of the first T places, or later
        self.windows = max(1, (len(stream) - 1) // context_length - 1)  # of an epoch
        self.phases = len(stream) - self.windows * context_length

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        starts = self.starts(self.position)
        self.position += 1
        return batch_at(self.stream, starts, self.context_length, self.mask_documents)

    def starts(self, position: int) -> np.ndarray:
        """Where this process's windows of batch `position` begin in the stream: (batch_size / world,)."""
        block, batch = divmod(position, BLOCK)
        if block != self.block:
            self.block, self.block_starts = block, self.starts_of_block(block)
        return self.block_starts[batch, self.rank :: self.world]

    def starts_of_block(self, block: int) -> np.ndarray:
        """Where all windows of BLOCK batches begin: (BLOCK, batch_size)."""
        size = BLOCK * self.batch_size
        window = np.arange(block * size, (block + 1) * size, dtype=np.int64)
        epochs = window // self.windows
        starts = np.empty_like(window)
        for epoch in range(epochs[0], epochs[-1] + 1):
            keys = round_keys(self.seed, epoch)
            now = epochs == epoch
            place = shuffled(window[now] % self.windows, self.windows, keys)
            starts[now] = int(keys[-1]) % self.phases + self.context_length * place
        return starts.reshape(BLOCK, self.batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def windows(
    stream: TokenStream,
    context_length: int,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    mask_documents: bool = False,
) -> Iterator[Batch]:
    """The whole stream once, in order: every token but the first is a target exactly once.

    All batches have the same shape: what the last one lacks is token 0 with the target IGNORED. Process
    `rank` of `world` gets the rows rank, rank + world, ... of each.
    Raises: ValueError if the stream has nothing to predict.
    """
    if len(stream) < 2:
        raise ValueError(f"the held-out text has {len(stream)} tokens, so none to predict; use more text")
    for first in range(0, len(stream) - 1, batch_size * context_length):
        starts = first + context_length * np.arange(rank, batch_size, world, dtype=np.int64)  # (B,)
        batch = batch_at(stream, starts, context_length, mask_documents)
        place = torch.from_numpy(starts)[:, None] + torch.arange(context_length)  # (B, T)
        yield batch._replace(targets=batch.targets.masked_fill(place >= len(stream) - 1, IGNORED))
