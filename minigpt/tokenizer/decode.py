"""Ids -> bytes, and which characters each token covers."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from minigpt.tokenizer.word_index import flat_places

FEW = 64  # ids; for fewer a loop is quicker than arrays


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
        """Raises: ValueError for an id that no token has, TypeError for what is no integer."""
        if not isinstance(ids, np.ndarray):
            ids = ids if isinstance(ids, Sequence) else list(ids)
            if len(ids) < FEW:
                return b"".join([self.one(i) for i in ids])
        spelled, starts, _ = self.arrays
        ids, lengths = self.lengths_of(ids)
        return spelled[flat_places(starts.take(ids), lengths)].tobytes()

    def lengths_of(self, ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """(the ids as an array, how many bytes each has). Raises: as bytes_of."""
        _, _, lengths = self.arrays
        array = np.asarray(ids)
        if array.dtype.kind not in "iu":
            for i in ids:  # finds the one at fault, if there is any: an array of no ids is of floats
                self.one(i)
            array = array.astype(np.int64)
        if len(array) and (array.min() < 0 or array.max() >= len(lengths)):
            self.one(int(array[(array < 0) | (array >= len(lengths))][0]))
        found = lengths.take(array)
        if len(found) and found.min() < 0:
            self.one(int(array[found < 0][0]))
        return array, found

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
