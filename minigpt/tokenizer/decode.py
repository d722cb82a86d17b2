"""Ids -> bytes, and which characters each token covers."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import NoReturn

import numpy as np

from minigpt.tokenizer.arrays import flat_places

FEW = 2000          # ids; for fewer, a list of tokens is quicker than arrays
TOGETHER = 1 << 14  # ids spelled at a time: their arrays fit the cache


class Decoder:
    """The bytes of all tokens, one after the other: decoding is one gather.

    What counts as an id: an integer of Python or numpy, so also True, which is 1 to both; never 1.0.
    """

    def __init__(self, tokens: Mapping[int, bytes]) -> None:
        self.tokens = tokens

    @cached_property
    def table(self) -> list[bytes | None]:
        """The tokens by id, None where there is none: half the time of a dict, which compares numbers."""
        return [self.tokens.get(i) for i in range(max(self.tokens) + 1)]

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(all bytes, where each token starts, how long it is: -1 for an id that no token has)."""
        lengths = np.array([-1 if token is None else len(token) for token in self.table], np.int64)
        starts = np.cumsum(lengths.clip(0)) - lengths.clip(0)
        return np.frombuffer(b"".join(filter(None, self.table)), np.uint8), starts, lengths

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """Raises: ValueError for an id that no token has, and for what is no row of integers."""
        ids = _row(ids)
        if len(ids) < FEW:
            return self._few(ids.tolist() if isinstance(ids, np.ndarray) else ids)
        spelled, starts, _ = self.arrays
        ids, lengths = self.lengths_of(ids)
        joined = []
        for begin in range(0, len(ids), TOGETHER):
            part = slice(begin, begin + TOGETHER)
            joined.append(spelled.take(flat_places(starts.take(ids[part]), lengths[part])))
        return b"".join(joined)

    def _few(self, ids: Sequence[int]) -> bytes:
        try:
            array("I", ids)  # refuses -1, with which a list would count from its end
            return b"".join(itemgetter(*ids)(self.table) if len(ids) > 1 else [self.table[i] for i in ids])
        except (OverflowError, TypeError, IndexError):
            self._refuse(ids)

    def lengths_of(self, ids: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """(the ids as an array, how many bytes each has). Raises: as bytes_of."""
        given, (_, _, lengths) = _row(ids), self.arrays
        try:  # array() is several times as fast as np.array
            ids = given if isinstance(given, np.ndarray) else np.frombuffer(array("I", given), np.uint32)
            ids = ids.astype(np.int64)
            found = lengths.take(ids)
        except (OverflowError, TypeError, IndexError):
            self._refuse(given)
        if len(ids) and (ids.min() < 0 or found.min() < 0):
            self._refuse(given)
        return ids, found

    def one(self, token: int) -> bytes:
        """The bytes of one token."""
        _check_integer(token)  # a dict would find 1.0 as 1
        if token not in self.tokens:
            raise ValueError(f"no token has the id {token}: ids run from 0 to {max(self.tokens)} here")
        return self.tokens[token]

    def _refuse(self, ids: Iterable[int]) -> NoReturn:
        """Name the first id at fault."""
        for i in ids:
            self.one(i)
        raise AssertionError("each of these ids is a token's, so they should have been decoded")


def _row(ids: Iterable[int]) -> Sequence[int] | np.ndarray:
    """The ids with a length. Raises: ValueError for text, for a table and for an array of anything but integers."""
    if isinstance(ids, str):
        raise ValueError("decode takes ids, and this is text already: encode makes ids of text")
    if not isinstance(ids, np.ndarray):
        ids = ids if isinstance(ids, list | tuple) else list(ids)
        if ids:
            _check_integer(ids[0])  # the elements of a tensor would pass for integers, one slow step each
        return ids
    if ids.ndim != 1:
        raise ValueError(f"decode takes one row of ids, not an array of shape {ids.shape}: decode_batch takes several")
    if len(ids) and ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be integers, not {ids.dtype}: pass ids.astype(int) if they are whole numbers")
    return ids


def _check_integer(token: object) -> None:
    if not isinstance(token, int | np.integer):
        hints = {"list": ": decode_batch takes several rows", "Tensor": ": pass ids.tolist()"}
        raise ValueError(f"ids must be integers, not {(name := type(token).__name__)}{hints.get(name, '')}")


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
