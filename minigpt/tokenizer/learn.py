"""Learn merges from counted words: the same list as `naive.train`, a few dozen merges at a time, in numpy.

All different words lie in one array of tokens, and everything that is known of a place in it lies in other arrays of
the same length: its neighbours, and the number of the pair that begins there. So a merge is a handful of array
operations on all places of its pair. That pays for pairs that stand in thousands of places; most stand in twenty.
What makes those quick is that many are merged together:

    Let P1, P2, ... be the pairs in the order in which they would be chosen now. If no two of the first m touch the
    same token anywhere, then naive BPE takes exactly these m, in this order.

For, merging P1 leaves the count of P2 as it is, and no other pair gets ahead of P2: counts of old pairs only fall, and
a pair that comes into being, (l, X) for the new token X of P1 = (a, b), stands in some of the places where (l, a) was.
So it counts no more than (l, a); and that came after P2, or it would be among the first m, and touches a place of P1.
Where counts are equal, X as the larger id keeps it behind (l, a), and behind P2; and where the first in the text comes
first, (l, X) begins nowhere that (l, a) did not. It is the same with (X, r) and (b, r): one begins a token before the
other, and what began between them was P1 itself. Then P3 is next, and so on.

A pair comes into being only together with the newer of its two tokens. So its places are known at once, and later only
become fewer: each pair is one slice of one long list, made by one sort.
"""

import heapq
from typing import Literal

import numpy as np
from tqdm import tqdm

from minigpt.tokenizer.arrays import Growing, every_other, flat_places
from minigpt.tokenizer.byte_alphabet import LETTER_OF
from minigpt.tokenizer.word_counts import WordCounts

Pair = tuple[int, int]
TieBreak = Literal["bytes", "hf", "first_seen"]
TIE_BREAKS = ("bytes", "hf", "first_seen")

BETWEEN, GONE = -1, -2   # no tokens: what stands between two words, and the right half of what was merged
NO_PAIR = 0              # the number of the pair that begins at the last token of a word
NEVER = 2**31 - 1
PARTS = 8                # the first pairs of all are found in, by their left byte: sorting takes memory
WAITING = 1000           # how many of the most frequent pairs are kept in order: more are slower to keep so


def learn_merges(
    words: WordCounts,
    n_merges: int,
    min_frequency: int = 1,
    tie_break: TieBreak = "bytes",
    progress: bool = False,
) -> list[Pair]:
    """As `naive.train`: `n_merges` merges, or fewer if no pair occurs `min_frequency` times any more.

    Among equally frequent pairs comes first, under "bytes": the smaller left id, then the smaller right one; "hf": the
    same, with bytes numbered as Hugging Face does, by their visible letters; "first_seen": the pair that stands first
    in the text.
    """
    byte_of = sorted(LETTER_OF, key=LETTER_OF.__getitem__) if tie_break == "hf" else list(range(256))
    places = Places(words, np.argsort(byte_of).astype(np.int32), 256 + n_merges)
    queue = Queue(places, min_frequency, by_place=tie_break == "first_seen")
    merges: list[Pair] = []
    size = 1
    with tqdm(total=n_merges, desc="learning merges", disable=not progress) as bar:
        while len(merges) < n_merges and (batch := queue.take(min(2 * size, n_merges - len(merges)))):
            merged, born = places.merge([pair for _, _, pair in batch], 256 + len(merges))
            size = len(merged)
            queue.put_back(batch[size:])
            queue.offer(born)
            merges += merged
            bar.update(size)
    name = [*byte_of, *range(256, 256 + len(merges))]
    return [(name[left], name[right]) for left, right in merges]


class Places:
    """Every token of every different word, in one array, and the places of every pair.

    Between two words, and at both ends, stands BETWEEN, which is in no pair.
    """

    def __init__(self, words: WordCounts, token_of: np.ndarray, n_tokens: int) -> None:
        longer = words.lengths > 1                                    # a single byte is in no pair
        lengths, counts = words.lengths[longer], words.counts[longer]
        ends = (lengths + 1).cumsum()                                 # of each word: the BETWEEN behind it
        n = 1 + int(lengths.sum()) + len(lengths)
        index = np.int32 if n < NEVER else np.int64
        inside = np.ones(n, bool)
        inside[0] = inside[ends] = False
        self.id_type = np.uint16 if n_tokens <= 1 << 16 else np.uint32  # numpy sorts 16 bits several times as fast
        self.token = np.full(n, BETWEEN, np.int32)
        self.token[inside] = token_of[words.data[np.repeat(longer, words.lengths)]]
        size = np.int32 if counts.max(initial=0) < NEVER else np.int64
        self.weight = np.repeat(np.append(0, counts).astype(size), np.append(1, lengths + 1))  # occurrences of its word
        self.after = np.arange(1, n + 1, dtype=index)                 # the next place that holds a token, or BETWEEN
        self.before = np.arange(-1, n - 1, dtype=index)
        self.pair = np.full(n, NO_PAIR, np.int32)                     # the number of the pair that begins here
        self.count = Growing(np.int64)                                # pair -> how often it occurs
        self.begin = Growing(np.int64)                                # pair -> where in `listed` its places begin
        self.listed = Growing(index)
        self.turn = Growing(np.int32)                                 # pair -> its place in the batch: scratch
        self.count.append([0])
        self.begin.append([0, 0])
        self.turn.append([NEVER])
        part = (self.token[:-1] % PARTS).astype(np.uint8)
        part[~(inside[:-1] & inside[1:])] = PARTS                     # no pair begins there
        for left in range(PARTS):
            self._enter(np.flatnonzero(part == left).astype(index))

    def _enter(self, starts: np.ndarray) -> np.ndarray:
        """Give numbers to the pairs that have come into being at these places; returns those numbers.

        Those of one pair must be in ascending order, and stay so: the sort is stable.
        """
        left, right = self.token[starts].astype(self.id_type), self.token[self.after[starts]].astype(self.id_type)
        order = np.lexsort((right, left))
        starts, left, right = starts[order], left[order], right[order]
        differs = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(starts)]
        first = np.flatnonzero(differs)
        n_old, n_new = self.count.used, len(first)
        if n_new:
            self.pair[starts] = n_old - 1 + differs.cumsum(dtype=np.int32)
            self.count.append(np.add.reduceat(self.weight[starts].astype(np.int64), first))
            self.begin.append(self.listed.used + np.append(first[1:], len(starts)))
            self.turn.append(np.full(n_new, NEVER))
            self.listed.append(starts)
        return np.arange(n_old, n_old + n_new)

    def of(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(where these pairs stand, whose place it is as an index into `pairs`). One pair after the other, its places
        in ascending order, as they were listed.
        """
        begin = self.begin.all[pairs]
        lengths = self.begin.all[pairs + 1] - begin
        places = self.listed.all[flat_places(begin, lengths)]
        owner = np.repeat(np.arange(len(pairs)), lengths)
        still = self.pair[places] == pairs[owner]
        return places[still], owner[still]

    def merge(self, batch: list[int], new: int) -> tuple[list[Pair], np.ndarray]:
        """Merge as many of these pairs as do not meet, but at least the first one, into the tokens new, new + 1, ...

        Returns: (those merged, the numbers of the pairs that came into being).
        """
        pairs = np.array(batch)
        left, owner = self.of(pairs)
        right = self.after[left]
        turn = self.turn.all
        turn[pairs] = np.arange(len(pairs))
        met = np.maximum(turn[self.pair[right]], owner).min()   # a right half in which another of them begins
        turn[pairs] = NEVER
        if met == 0:                                            # it meets itself: (a, a) in a a a
            left = left[owner == 0]
            left = every_other(left, self.after[left[:-1]] != left[1:])
            owner, right, met = np.zeros(len(left), np.int64), self.after[left], 1
        elif met < len(pairs):
            n = owner.searchsorted(met)
            left, owner, right = left[:n], owner[:n], right[:n]
        pairs = pairs[:met]
        first = owner.searchsorted(np.arange(len(pairs)))
        names = list(zip(self.token[left[first]].tolist(), self.token[right[first]].tolist(), strict=True))
        born = self._replace(left, right, (new + owner).astype(np.int32))
        self.count.all[pairs] = 0
        return names, born

    def _replace(self, left: np.ndarray, right: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Put new tokens in place of two each; returns the numbers of the pairs that came into being."""
        before, after, weight = self.before[left], self.after[right], self.weight[left].astype(np.int64)
        self.token[left], self.token[right] = new, GONE
        self.after[left], self.before[after] = after, left
        # A token before `left`, unless that is the right half of another of these places, whose turn comes as `right`.
        real = self.token[before] >= 0
        before = before[real]
        lost = np.concatenate((self.pair[before], self.pair[right]))   # NO_PAIR among them does no harm
        np.subtract.at(self.count.all, lost, np.concatenate((weight[real], weight)))
        self.pair[left] = self.pair[right] = NO_PAIR
        return self._enter(np.concatenate((before, left[self.token[after] >= 0])))


Entry = tuple[int, int, int]  # -count, what decides among equal counts, number of the pair


class Queue:
    """The most frequent pairs in order.

    Entries are never updated in place: one whose count is out of date is put back with the right count when it comes
    up. That is safe because counts only fall. And only pairs that occur `floor` times are in the queue at all, since
    most never get their turn; once it is empty the floor is lowered.
    """

    def __init__(self, places: Places, min_frequency: int, by_place: bool) -> None:
        self.places, self.min_frequency, self.by_place = places, min_frequency, by_place
        self.heap: list[Entry] = []
        self.floor = int(places.count.all.max()) + 1

    def take(self, most: int) -> list[Entry]:
        """The first `most` pairs, or fewer."""
        count, taken = self.places.count.all, []
        while len(taken) < most and (self.heap or (not taken and self._lower_the_floor())):
            then, tie, pair = heapq.heappop(self.heap)
            now = int(count[pair])
            if now == -then:
                taken.append((then, tie, pair))
            elif self.by_place:
                self.offer(np.array([pair]))  # its first place may be gone
            elif now >= self.floor:
                heapq.heappush(self.heap, (-now, tie, pair))
        return taken

    def put_back(self, entries: list[Entry]) -> None:
        for entry in entries:
            heapq.heappush(self.heap, entry)

    def offer(self, pairs: np.ndarray) -> None:
        """Take in those of the pairs that occur often enough."""
        self.put_back(self._entries(pairs[self.places.count.all[pairs] >= self.floor]))

    def _entries(self, pairs: np.ndarray) -> list[Entry]:
        places = self.places
        where, owner = places.of(pairs)
        tie = first = where[owner.searchsorted(np.arange(len(pairs)))]
        if not self.by_place:
            tie = places.token[first].astype(np.int64) << 32 | places.token[places.after[first]]
        return list(zip((-places.count.all[pairs]).tolist(), tie.tolist(), pairs.tolist(), strict=True))

    def _lower_the_floor(self) -> bool:
        """Refill the empty queue with about WAITING pairs. False if none is left."""
        count, least = self.places.count.all, self.floor
        while least > self.min_frequency:
            least = max(least // 2, self.min_frequency)
            near = np.flatnonzero(count >= least)
            if len(near) >= WAITING:
                least = int(np.partition(count[near], -WAITING)[-WAITING])
                near = near[count[near] >= least]
                break
        if least == self.floor:
            return False
        self.floor = least
        self.heap = sorted(self._entries(near))  # a sorted list is a heap
        return bool(self.heap)
