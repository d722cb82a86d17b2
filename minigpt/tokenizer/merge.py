"""Bytes -> tokens: merge the neighbours of best rank until no pair has a rank. One word at a time, for any ranks.

`merge_short` says it in ten lines and is what all others are tested against. `merge_arrays.py` merges many words at a
time, where a vocabulary is `in_order`.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise

from minigpt.tokenizer.vocabulary import Merge

Ranks = dict[tuple[int, int], int]


def rank_table(merges: Sequence[Merge]) -> tuple[Ranks, list[int]]:
    """(pair -> rank, rank -> the id it makes). Merges of one token that follow each other share a rank."""
    ranks: Ranks = {}
    made: list[int] = []
    for left, right, new in merges:
        if not made or made[-1] != new:
            made.append(new)
        ranks.setdefault((left, right), len(made) - 1)
    return ranks, made


def in_order(ranks: Ranks, made: Sequence[int], byte_ids: Sequence[int], tokens: Mapping[int, bytes]) -> Ranks | None:
    """The merges that come after those that made their parts; None if the others matter.

    In a vocabulary that BPE has made, every merge does. Then merging never creates a pair of better rank, and all
    places of the best rank may be merged together. tiktoken's rule, any two tokens whose bytes are a token, adds pairs
    that do not: three blanks and one make four, but four are made of two and two, long before there are three. Such
    a pair never meets: when the rank of its token comes, the token is already made of its parts in order, or a merge
    across its border has taken a piece away for good. That is checked: each such token must come out of its bytes.
    """
    rank_of = {token: rank for rank, token in enumerate(made)}
    if len(rank_of) < len(made):  # a token is made again later
        return None
    kept = {
        pair: rank for pair, rank in ranks.items() if max(rank_of.get(pair[0], -1), rank_of.get(pair[1], -1)) < rank
    }
    for rank in {ranks[pair] for pair in ranks.keys() - kept.keys()}:
        ids = [byte_ids[byte] for byte in tokens[made[rank]]]
        if merge_short(ids, kept, made[: rank + 1]) != [made[rank]]:
            return None
    return kept


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


def merge_heap(ids: list[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
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
