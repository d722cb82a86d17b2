"""An array to append to, as a list is: it keeps room behind its end, so that appending seldom copies."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike


class Growing:
    """`all` is what has been appended so far. It is a view: take it anew after every `append`."""

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
