"""Several conversations in a row of the context, none seeing another; endless batches of such rows.

Conversations are short and of all lengths: one to a row, most of a batch would be padding. So a row takes as many as
fit, and the attention mask keeps each to itself. (With RoPE, ALiBi or no positions a conversation then costs what it
costs alone, to rounding. Learned and sinusoidal positions count from the beginning of the row.)

    place       0    1    2    3    4    5    6    7
    ids         <u>  Hi   <e>  <a>  Yo   <u>  Why  0
    targets     -    -    -    Yo   <e>  -    ...  -      -: IGNORED
    document    0    0    0    0    0    1    1    2
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from minigpt.batches.loader import IGNORED, Loader
from minigpt.batches.shuffle import round_keys, shuffled
from minigpt.finetune.examples import Examples

Row = list[int]  # the conversations in it


class AnswerBatch(NamedTuple):
    """As `Batch`, and by what the sum of its losses is to be divided."""

    ids: Tensor        # (B, T) int64
    targets: Tensor    # (B, T) int64, IGNORED where nobody has to predict
    document: Tensor   # (B, T) int64
    n_targets: Tensor  # () float32: targets of the whole step, per micro-batch and process


def best_fit(lengths: Sequence[int], order: Sequence[int], capacity: int) -> list[Row]:
    """Rows of at most `capacity` places: each item goes into the fullest row that still has room for it.

    Source: Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing algorithms".
    """
    rows: list[Row] = []
    with_room: dict[int, list[int]] = defaultdict(list)  # places left -> rows
    rooms: list[int] = []                                # the keys of with_room that have rows, ascending
    for item in order:
        length = lengths[item]
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[place]
        rows[row].append(item)
        if left := room - length:
            if not with_room[left]:
                insort(rooms, left)
            with_room[left].append(row)
    return rows


def tensors(examples: Examples, rows: Sequence[Row], context_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, targets, document) of some rows, each (B, T) int64."""
    ids = np.zeros((len(rows), context_length), np.int64)
    targets, document = np.full_like(ids, IGNORED), np.zeros_like(ids)
    for b, row in enumerate(rows):
        place = 0
        for number, conversation in enumerate(row):
            first, end = examples.starts[conversation : conversation + 2]
            here = slice(place, place := place + int(end - first) - 1)
            ids[b, here] = examples.ids[first : end - 1]
            said = examples.target[first + 1 : end]
            targets[b, here] = np.where(said, examples.ids[first + 1 : end], IGNORED)
            document[b, here] = number
        document[b, place:] = len(row)
    return torch.from_numpy(ids), torch.from_numpy(targets), torch.from_numpy(document)


class Steps(ABC):
    """An endless iterator of batches of rows; process `rank` of `world` gets rows rank, rank + world, ... of each.

    The loss of a step is the mean over all its targets, wherever they stand. Micro-batches and processes hold unequal
    numbers of them, so the mean of their means would be another loss: every target would weigh more in a batch that
    has few. So all processes pack the whole step, and a batch says by how many targets its sum is to be divided.

    Raises: ValueError if the processes cannot share a batch evenly.
    """

    place: Any  # where the step of the next batch begins

    def __init__(self, *, batch_size: int, context_length: int, accumulate: int, shared: tuple[int, int]) -> None:
        self.rank, self.world = shared
        if batch_size % self.world:
            raise ValueError(f"batch_size={batch_size} cannot be shared by {self.world} processes; use a multiple")
        self.batch_size, self.context_length, self.accumulate = batch_size, context_length, accumulate
        self.batch = 0             # batches handed out
        self.step: list[Any] = []  # the micro-batches of the step that is being handed out

    @abstractmethod
    def planned(self, first: int) -> tuple[list[Any], int, Any]:
        """The micro-batches of the step that begins with batch `first`, their targets, and the place after them."""

    @abstractmethod
    def own_rows(self, micro: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(ids, targets, document) of this process's rows of a micro-batch."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AnswerBatch:
        micro = self.batch % self.accumulate
        if not self.step:
            self.step, total, self.next_place = self.planned(self.batch - micro)
            self.per_batch = torch.tensor(total / (self.accumulate * self.world), dtype=torch.float32)
        parts = self.own_rows(self.step[micro])
        self.batch += 1
        if micro == self.accumulate - 1:
            self.place, self.step = self.next_place, []
        return AnswerBatch(*parts, self.per_batch)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch, self.step = state["batch"], []


class Rows(Steps):
    """Conversations in a shuffled order, epoch after epoch, each packed best-fit and so each otherwise.

    `text` gives `replay` of all rows, spread evenly: windows of pre-training text, in which every token is a target.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        context_length: int,
        accumulate: int,
        seed: int,
        text: Loader | None = None,  # of one row a batch; None where replay is 0
        replay: float = 0.0,
        shared: tuple[int, int] = (0, 1),  # rank, world
    ) -> None:
        super().__init__(batch_size=batch_size, context_length=context_length, accumulate=accumulate, shared=shared)
        self.examples, self.seed, self.text, self.replay = examples, seed, text, replay
        self.lengths = examples.lengths.tolist()
        self.n_targets = np.add.reduceat(examples.target, examples.starts[:-1], dtype=np.int64)  # (conversations,)
        self.place = (0, 0)     # epoch, row
        self.packed_epoch = -1  # none is packed yet

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch, "epoch": self.place[0], "row": self.place[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        super().load_state_dict(state)
        self.place = (state["epoch"], state["row"])

    def planned(self, first: int) -> tuple[list[tuple[list[Row], range]], int, tuple[int, int]]:
        """Of each micro-batch the rows of conversations, and the windows of text."""
        epoch, row = self.place
        step, total = [], 0
        for batch in range(first, first + self.accumulate):
            windows = range(self._replayed(batch), self._replayed(batch + 1))
            rows: list[Row] = []
            while len(rows) < self.batch_size - len(windows):
                packed = self._packed(epoch)
                more = packed[row : row + self.batch_size - len(windows) - len(rows)]
                rows += more
                epoch, row = (epoch, row + len(more)) if row + len(more) < len(packed) else (epoch + 1, 0)
            step.append((rows, windows))
            total += int(self.n_targets[[d for row_ in rows for d in row_]].sum()) + len(windows) * self.context_length
        return step, total, (epoch, row)

    def own_rows(self, micro: tuple[list[Row], range]) -> tuple[Tensor, Tensor, Tensor]:
        rows, windows = micro
        parts = [tensors(self.examples, rows, self.context_length), *map(self._window, windows)]
        ids, targets, document = (torch.cat(part)[self.rank :: self.world] for part in zip(*parts, strict=True))
        return ids, targets, document

    def _replayed(self, batch: int) -> int:
        """Windows of text in all batches before this one."""
        return int(batch * self.batch_size * self.replay)

    def _packed(self, epoch: int) -> list[Row]:
        """The rows of an epoch. Best fit leaves the emptiest for last, so they are shuffled, too."""
        if epoch != self.packed_epoch:
            keys, n = round_keys(self.seed, epoch), len(self.examples)
            rows = best_fit(self.lengths, shuffled(np.arange(n), n, keys).tolist(), self.context_length)
            order = shuffled(np.arange(len(rows)), len(rows), keys[::-1])
            self.packed_epoch, self.packed = epoch, [rows[i] for i in order]
        return self.packed

    def _window(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """One row of text, seen as in pre-training: across the borders of documents."""
        self.text.load_state_dict({"position": number})
        batch = next(self.text)
        return batch.ids, batch.targets, torch.zeros_like(batch.ids)


def held_out_batches(examples: Examples, batch_size: int, context_length: int) -> Iterator[AnswerBatch]:
    """Every conversation once, packed in the order of the file; the last batch may have fewer rows."""
    rows = best_fit(examples.lengths.tolist(), range(len(examples)), context_length)
    for first in range(0, len(rows), batch_size):
        ids, targets, document = tensors(examples, rows[first : first + batch_size], context_length)
        yield AnswerBatch(ids, targets, document, (targets != IGNORED).sum().float())
