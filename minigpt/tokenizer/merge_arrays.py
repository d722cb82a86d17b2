"""Bytes -> tokens for many words at once, and for words of a megabyte: merging with arrays instead of loops.

Both rest on one fact about vocabularies that BPE has made (`merge.in_order`): merging creates no pair of better rank,
so all places of the best rank may be merged together.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from minigpt.tokenizer.arrays import every_other, flat_places
from minigpt.tokenizer.merge import Ranks

NEVER = np.int32(2**31 - 1)  # the rank of a pair that is not merged: after every real one
AT_A_TIME = 1 << 15          # places of a long word: their arrays fit the cache


class PairRanks:
    """Ranks of many pairs at once: a hash table over arrays, a quarter full at most."""

    def __init__(self, ranks: Ranks, made: Sequence[int]) -> None:
        self.made = np.array(made or [0], np.int32)
        bits = (4 * len(ranks) + 4).bit_length()
        self.shift, self.last = np.uint64(64 - bits), (1 << bits) - 1
        self.pairs = np.full(1 << bits, 1 << 63, np.uint64)  # no pair: ids are below 2**31
        self.ranks = np.full(1 << bits, NEVER, np.int32)
        pairs = np.array(list(ranks), np.uint64).reshape(-1, 2)
        waiting = (pairs[:, 0] << np.uint64(32)) | pairs[:, 1]
        values = np.fromiter(ranks.values(), np.int32, len(ranks))
        slots = self._slots(waiting)
        while len(waiting):
            free = self.ranks[slots] == NEVER
            self.pairs[slots[free]], self.ranks[slots[free]] = waiting[free], values[free]
            left = self.pairs[slots] != waiting
            waiting, values, slots = waiting[left], values[left], (slots[left] + 1) & self.last

    def _slots(self, pairs: np.ndarray) -> np.ndarray:
        return ((pairs * np.uint64(0x9E3779B97F4A7C15)) >> self.shift).view(np.int64)

    def find(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The rank of each pair of ids, or NEVER: (n,) int32."""
        pairs = (left.astype(np.uint64) << np.uint64(32)) | right.astype(np.uint64)
        slots = self._slots(pairs)
        ranks = self.ranks.take(slots)
        searching = np.flatnonzero((self.pairs.take(slots) != pairs) & (ranks != NEVER))
        while len(searching):
            slots[searching] = (slots[searching] + 1) & self.last
            ranks[searching] = self.ranks[slots[searching]]
            searching = searching[(self.pairs[slots[searching]] != pairs[searching]) & (ranks[searching] != NEVER)]
        return ranks


def merge_words(tokens: np.ndarray, lengths: np.ndarray, ranks: PairRanks) -> tuple[np.ndarray, np.ndarray]:
    """Many words, side by side: in each round every word merges all places of its lowest rank.

    Shapes: tokens (sum of lengths,), the ids of the bytes of one word after the other; lengths (words,), at least 1;
            returns the merged (tokens, lengths) of the same words.
    """
    tokens, last = tokens.astype(np.int32), np.zeros(len(tokens), bool)
    last[lengths.cumsum() - 1] = True                        # of its word
    rank = np.full(len(tokens), NEVER, np.int32)             # of the pair that begins here
    _rank_again(rank, np.flatnonzero(~last), tokens, ranks)
    word, done = np.arange(len(lengths)), []                 # those that can still be merged, and those that cannot
    while len(word):
        lowest = np.minimum.reduceat(rank, lengths.cumsum() - lengths)
        finished = lowest == NEVER
        if finished.any():
            whose = np.repeat(finished, lengths)
            done.append((word[finished], lengths[finished], tokens[whose]))
            tokens, last, rank = tokens[~whose], last[~whose], rank[~whose]
            word, lengths, lowest = word[~finished], lengths[~finished], lowest[~finished]
            if not len(word):
                break
        at = np.flatnonzero(rank == np.repeat(lowest, lengths))
        at = every_other(at, np.diff(at) > 1)
        tokens[at], last[at] = ranks.made.take(rank[at]), last[at + 1]
        gone = np.zeros(len(tokens), bool)
        gone[at + 1] = True
        lengths = lengths - np.add.reduceat(gone, lengths.cumsum() - lengths, dtype=np.int64)
        tokens, last, rank = tokens[~gone], last[~gone], rank[~gone]
        at -= np.arange(len(at))                             # each merge before has taken one place
        rank[at] = NEVER
        _rank_again(rank, at[~last[at]], tokens, ranks)
        at = at[at > 0] - 1
        _rank_again(rank, at[~last[at]], tokens, ranks)
    return _in_order_of_words(done)


def _rank_again(rank: np.ndarray, at: np.ndarray, tokens: np.ndarray, ranks: PairRanks) -> None:
    rank[at] = ranks.find(tokens[at], tokens[at + 1])


def _in_order_of_words(done: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(words, lengths, tokens) as they were finished -> (tokens, lengths) in the order of the words."""
    if not done:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    words, lengths, tokens = (np.concatenate(part) for part in zip(*done, strict=True))
    in_order = np.empty_like(lengths)
    in_order[words] = lengths
    starts = (in_order.cumsum() - in_order)[words]
    out = np.empty_like(tokens)
    out[flat_places(starts, lengths)] = tokens
    return out, in_order


def merge_long_words(tokens: np.ndarray, lengths: np.ndarray, ranks: PairRanks) -> tuple[np.ndarray, np.ndarray]:
    """As `merge_words`, for words of any length."""
    ends = (lengths + 1).cumsum()
    apart = np.full(ends[-1], -1, np.int32)           # a place that is no token behind each
    apart[flat_places(ends - lengths - 1, lengths)] = tokens
    merged = merge_long(apart, ranks)
    kept = merged >= 0
    return merged[kept], np.add.reduceat(kept, ends - lengths - 1, dtype=np.int64)


def merge_long(tokens: np.ndarray, ranks: PairRanks) -> np.ndarray:
    """The same for words of any length, a negative id between two: one rank after the other, everywhere at once.

    Merged tokens leave a linked list, and the places of each rank wait in a bucket. A place is entered whenever its
    pair changes; whether it still has the rank that it waited for is seen when the rank's turn comes. So the time
    grows with the number of merges, not with the square of the length.
    """
    n = len(tokens)
    tokens = np.append(tokens.astype(np.int32), np.int32(-1))   # place n, which is also place -1: no token
    after, before = np.arange(1, n + 2, dtype=np.int32), np.arange(-1, n, dtype=np.int32)
    rank = np.full(n + 1, NEVER, np.int32)
    waiting: dict[int, list[np.ndarray]] = {}
    order: list[int] = []                                       # a heap of the ranks that have places waiting

    def enter(at: np.ndarray) -> None:
        for some in np.split(at, range(AT_A_TIME, len(at), AT_A_TIME)):
            found = ranks.find(tokens[some], tokens[after[some]])
            rank[some] = found
            by_rank = found.argsort(kind="stable")[: np.count_nonzero(found != NEVER)]
            some, found = some[by_rank], found[by_rank]
            borders = np.flatnonzero(np.diff(found, prepend=-1))
            for one, places in zip(found[borders].tolist(), np.split(some, borders[1:]), strict=False):
                if one not in waiting:
                    waiting[one] = []
                    heapq.heappush(order, one)
                waiting[one].append(places)

    enter(np.arange(n, dtype=np.int32))
    while order:
        one = heapq.heappop(order)
        at = np.sort(np.concatenate(waiting.pop(one)))
        at = at[(rank[at] == one) & np.append(True, at[1:] != at[:-1])]
        if not len(at):
            continue
        at = every_other(at, after[at[:-1]] != at[1:])
        gone = after[at]
        tokens[at], tokens[gone], rank[gone] = ranks.made[one], -1, NEVER
        after[at] = after[gone]
        before[after[at]] = at
        left = before[at]
        enter(np.concatenate([left[left >= 0], at]))
    return tokens[:n]
