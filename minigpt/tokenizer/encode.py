"""Pre-token -> ids: start from its bytes, then merge the neighbours of best rank until no pair has a rank."""

import heapq
from collections.abc import Sequence
from itertools import pairwise

from minigpt.tokenizer.vocabulary import Merge, Vocabulary

Ranks = dict[tuple[int, int], int]

MOST_REMEMBERED = 1 << 18  # pre-tokens, at 150 bytes each; 10 MB of source code have 56,000 different ones
LONGEST_REMEMBERED = 64  # characters; longer ones hardly ever return, and would fill the memory with ids
LONGEST_SHORT = 200  # tokens; beyond, searching the whole pre-token for every merge costs more than a heap


def rank_table(merges: Sequence[Merge]) -> tuple[Ranks, list[int]]:
    """(pair -> rank, rank -> the id it makes). Merges of one token that follow each other share a rank."""
    ranks: Ranks = {}
    made: list[int] = []
    for left, right, new in merges:
        if not made or made[-1] != new:
            made.append(new)
        ranks.setdefault((left, right), len(made) - 1)
    return ranks, made


def merge_short(ids: list[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """Merge the lowest rank, the leftmost of equals, until there is none. Quadratic, and quick for a word."""
    never = len(made)  # ranks after every real one
    row = [ranks.get(pair, never) for pair in pairwise(ids)]  # row[i] is the rank of ids[i], ids[i + 1]
    while row and (lowest := min(row)) < never:
        i = row.index(lowest)
        ids[i : i + 2] = [made[lowest]]
        del row[i]
        if i > 0:
            row[i - 1] = ranks.get((ids[i - 1], ids[i]), never)
        if i < len(row):
            row[i] = ranks.get((ids[i], ids[i + 1]), never)
    return ids


def merge_long(ids: list[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """The same as `merge_short` in O(n log n), for a megabyte without a space in it.

    A heap finds the best pair and a linked list forgets merged tokens. A heap entry is one integer, rank *
    n + position, so it sorts by rank and then from the left. Entries are never removed: one whose pair has
    changed since is recognised by its rank when it comes up.
    """
    n = len(ids)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))  # the neighbours; -1 and n are the ends
    rank_at = [*(ranks.get(pair, -1) for pair in pairwise(ids)), -1]  # of the pair that starts here
    heap = [rank * n + i for i, rank in enumerate(rank_at) if rank >= 0]
    heapq.heapify(heap)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        if rank_at[i] != rank:
            continue
        gone = after[i]
        ids[i], ids[gone], rank_at[gone] = made[rank], -1, -1
        after[i] = after[gone]
        if after[i] < n:
            before[after[i]] = i
        for start in (before[i], i):
            if start < 0:
                continue
            end = after[start]
            rank_at[start] = ranks.get((ids[start], ids[end]), -1) if end < n else -1
            if rank_at[start] >= 0:
                heapq.heappush(heap, rank_at[start] * n + start)
    return [token for token in ids if token >= 0]


class WordEncoder(dict[str, tuple[int, ...]]):
    """Pre-token -> ids: a dict that works out what it does not hold, and remembers a bounded number of
    answers.

    It is a dict so that `map(encoder.__getitem__, words)` runs without a line of Python for words seen
    before.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.ranks, self.made = rank_table(vocabulary.merges)
        self.byte_ids = [vocabulary.id_of[bytes([byte])] for byte in range(256)]
        self.whole = vocabulary.id_of if vocabulary.whole_words else {}

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self.encode_bytes(word.encode()))
        if len(word) <= LONGEST_REMEMBERED:
            if len(self) >= MOST_REMEMBERED:
                self.clear()  # frequent words are back at once
            self[word] = ids
        return ids

    def encode_bytes(self, word: bytes) -> list[int]:
        """The ids of one pre-token, given as UTF-8."""
        if word in self.whole:
            return [self.whole[word]]
        merge = merge_short if len(word) <= LONGEST_SHORT else merge_long
        return merge([self.byte_ids[byte] for byte in word], self.ranks, self.made)
