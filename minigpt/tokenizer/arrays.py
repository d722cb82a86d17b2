"""What numpy lacks for this room: a type for ids, many ranges as one index, every other place, appending."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike


def id_type(n_vocab: int) -> type[np.unsignedinteger]:
    """The narrowest that holds every id."""
    return np.uint16 if n_vocab <= 1 << 16 else np.uint32


def flat_places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (lengths[0] of them), starts[1], ...: (sum of lengths,)."""
    if not lengths.all():
        starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    if not len(lengths):
        return np.zeros(0, np.int64)
    ends = lengths.cumsum()
    steps = np.ones(ends[-1], np.int64)  # from each place to the next: one, but for the first of each range
    steps[0] = starts[0]
    steps[ends[:-1]] = starts[1:] - starts[:-1] - lengths[:-1] + 1
    return steps.cumsum(out=steps)       # twice as fast as np.repeat, which copies each start by itself


def every_other(places: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Of pairs in a row, each sharing a token with the next, the first, third, ...: from the left, as a loop would.

    Shapes: places (n,), where the pairs begin; apart (n - 1,), whether the next one shares none.
    """
    if apart.all():
        return places
    nth = np.arange(len(places))
    first = np.maximum.accumulate(np.where(np.append(True, apart), nth, 0))  # of its row
    return places[(nth - first) % 2 == 0]


class Growing:
    """Keeps room behind its end, so that appending seldom copies.

    `all` is what has been appended so far. It is a view: take it anew after every `append`.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self._room, self.used = np.empty(1024, dtype), 0

    @property
    def all(self) -> np.ndarray:
        return self._room[: self.used]

    def append(self, values: ArrayLike) -> None:
        begin, self.used = self.used, self.used + len(values)
        if self.used > len(self._room):
            longer = np.empty(self.used + self.used // 2, self._room.dtype)
            longer[:begin] = self._room[:begin]
            self._room = longer
        self._room[begin : self.used] = values
