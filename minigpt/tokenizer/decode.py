"""Ids -> bytes, and which characters each token covers."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from minigpt.tokenizer.arrays import flat_places

FEW = 64            # ids; for fewer a loop is quicker than arrays
TOGETHER = 1 << 14  # ids spelled at a time: their arrays fit the cache


class Decoder:
    """The bytes of all tokens, one after the other: decoding is one gather."""

    def __init__(self, tokens: Mapping[int, bytes]) -> None:
        self.tokens = tokens

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(all bytes, where each token starts, how long it is: -1 for an id that no token has)."""
        lengths = np.full(max(self.tokens) + 1, -1, np.int64)
        starts = np.zeros(len(lengths), np.int64)
        at = 0
        for i, token in self.tokens.items():
            starts[i], lengths[i] = at, len(token)
            at += len(token)
        return np.frombuffer(b"".join(self.tokens.values()), np.uint8), starts, lengths

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """Raises: ValueError for an id that no token has, and for what is no integer."""
        if not isinstance(ids, np.ndarray):
            ids = ids if isinstance(ids, list | tuple) else list(ids)
            if len(ids) < FEW:
                return b"".join([self.one(i) for i in ids])
        spelled, starts, _ = self.arrays
        ids, lengths = self.lengths_of(ids)
        joined = []
        for begin in range(0, len(ids), TOGETHER):
            part = slice(begin, begin + TOGETHER)
            joined.append(spelled.take(flat_places(starts.take(ids[part]), lengths[part])))
        return b"".join(joined)

    def lengths_of(self, ids: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the ids as an array, how many bytes each has). Raises: as bytes_of."""
        _, _, lengths = self.arrays
        if not isinstance(ids, np.ndarray):
            try:
                ids = np.frombuffer(array("I", ids), np.uint32)  # several times as fast as np.array
            except (OverflowError, TypeError):
                for i in ids:
                    self.one(i)  # finds the one at fault
                raise
        if len(ids) and ids.dtype.kind not in "iu":
            self.one(ids[0])
        if len(ids) and (ids.min() < 0 or ids.max() >= len(lengths)):
            self.one(int(ids[(ids < 0) | (ids >= len(lengths))][0]))
        found = lengths.take(ids)
        if len(found) and found.min() < 0:
            self.one(int(ids[found < 0][0]))
        return ids, found

    def one(self, token: int) -> bytes:
        """The bytes of one token."""
        try:
            return self.tokens[token]
        except (KeyError, TypeError):
            if not isinstance(token, int | np.integer):  # a tensor's element is no dictionary key
                message = f"ids must be integers, not {type(token).__name__}: pass ids.tolist()"
            else:
                message = f"no token has the id {token}: ids run from 0 to {max(self.tokens)} here"
            raise ValueError(message) from None


def character_spans(text: str, byte_lengths: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of the characters that each token covers; a token may begin or end inside a character.

    >>> character_spans("né!", np.array([2, 1, 1]))  # é is two bytes, and both tokens that share it cover it
    [(0, 2), (1, 2), (2, 3)]
    """
    end = byte_lengths.cumsum()
    start = end - byte_lengths
    if not text.isascii():
        character = (np.frombuffer(text.encode(), np.int8) >= -64).cumsum()  # that each byte belongs to, from 1
        start, end = character[start] - 1, character[end - 1]
    return list(zip(start.tolist(), end.tolist(), strict=True))
