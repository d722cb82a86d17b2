"""Pre-token -> ids: start from its bytes, then merge neighbours, best rank first, until no pair has a rank."""

import heapq
from collections.abc import Sequence

from minigpt.tokenizer.vocabulary import Merge, Vocabulary

Ranks = dict[tuple[int, int], int]

MOST_REMEMBERED = 1 << 18  # pre-tokens; about 50 MB. A corpus of 100 MB has twice as many, most of them seen once
LONGEST_REMEMBERED = 64  # characters; longer ones hardly return, and their ids would fill the memory
LONGEST_SHORT = 200  # tokens; beyond, searching the whole pre-token for each merge costs more than a heap


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
    unmergeable = len(made)
    row = [ranks.get(pair, unmergeable) for pair in zip(ids, ids[1:])]  # row[i] ranks (ids[i], ids[i + 1])
    while row and (lowest := min(row)) < unmergeable:
        i = row.index(lowest)
        ids[i : i + 2] = [made[lowest]]
        del row[i]
        if i > 0:
            row[i - 1] = ranks.get((ids[i - 1], ids[i]), unmergeable)
        if i < len(row):
            row[i] = ranks.get((ids[i], ids[i + 1]), unmergeable)
    return ids


def merge_long(ids: list[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """The same as `merge_short` in O(n log n): a heap finds the best pair, a linked list of tokens forgets the rest.

    A heap entry is one integer, rank * n + position, so it sorts by rank and then from the left. Entries are never
    removed: one whose pair has changed since is recognised by its rank when it comes up.
    """
    n = len(ids)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))  # neighbours; n ends the list
    rank_at = [ranks.get(pair, -1) for pair in zip(ids, ids[1:])] + [-1]  # of the pair that starts here
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
            if start >= 0:
                pair = (ids[start], ids[after[start]]) if after[start] < n else None
                rank_at[start] = ranks.get(pair, -1)
                if rank_at[start] >= 0:
                    heapq.heappush(heap, rank_at[start] * n + start)
    return [token for token in ids if token >= 0]


def repair_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: surrogate pairs are joined, lone surrogates become U+FFFD (as tiktoken does).

    A Python str may hold halves of a UTF-16 pair, for instance from JSON such as "\\ud83d".
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class WordEncoder(dict[str, tuple[int, ...]]):
    """Pre-token -> ids, as a dict that works out what it does not hold and remembers a bounded number of answers.

    A dict, because `map(encoder.__getitem__, words)` then runs without a line of Python for words seen before.
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
                self.clear()
            self[word] = ids
        return ids

    def encode_bytes(self, word: bytes) -> list[int]:
        """The ids of one pre-token, given as UTF-8."""
        if word in self.whole:
            return [self.whole[word]]
        merge = merge_short if len(word) <= LONGEST_SHORT else merge_long
        return merge([self.byte_ids[byte] for byte in word], self.ranks, self.made)
