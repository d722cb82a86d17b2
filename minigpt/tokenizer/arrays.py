"""What numpy lacks for this room: many ranges as one index, every other place of a row, an array to append to."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike


def flat_places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (lengths[0] of them), starts[1], ...: (sum of lengths,)."""
    places = np.repeat(starts + lengths - lengths.cumsum(), lengths)
    places += np.arange(len(places))
    return places


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
