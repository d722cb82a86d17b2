"""Numbers for words: which of the pre-tokens seen before is this one? For a hundred thousand of them at a time.

A pre-token of up to 15 bytes fits two machine words, length included, and one of up to 31 bytes fits four. So equal
pre-tokens are equal integers, and a hash table over numpy arrays finds all of a text at once: where the hash points,
is it the same one? Those that met another try the next place, together, until all have found their own or a free one.
Nothing is approximate: a number is given only where every byte is equal. Longer pre-tokens, rare outside of junk, go
through a dict.
"""

from typing import NamedTuple

import numpy as np

from minigpt.tokenizer.arrays import flat_places

LANE = 8                    # bytes in a machine word
PADDING = 4 * LANE          # bytes to add behind a text, so that every load stays inside
FREE = -1
MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)  # any odd
KEPT = np.array(  # KEPT[lane, length]: the bits of the lane that belong to a word of that length
    [[(1 << 8 * min(max(n - LANE * lane, 0), LANE)) - 1 for n in range(4 * LANE + 1)] for lane in range(4)], np.uint64
)


class Words(NamedTuple):
    """Pre-tokens as places in a text: word i is data[starts[i] : starts[i] + lengths[i]]."""

    data: bytes          # UTF-8, and PADDING bytes behind it
    starts: np.ndarray   # (n,) int64, ascending
    lengths: np.ndarray  # (n,) int64, at least 1

    def pick(self, which: np.ndarray) -> "Words":
        return Words(self.data, self.starts[which], self.lengths[which])

    def lanes(self, count: int) -> list[np.ndarray]:
        """Bytes and length as `count` integers per word, each (n,) uint64. What longer words get, no other word has."""
        eight = np.ndarray((len(self.data) - LANE + 1,), "<u8", self.data, strides=(1,))  # bytes, from each byte on
        eight = eight if len(self.starts) < len(eight) // 64 else eight.copy()            # aligned: quicker to take
        lengths = np.minimum(self.lengths, count * LANE)
        lanes = [eight.take(self.starts + LANE * lane) & KEPT[lane].take(lengths) for lane in range(count)]
        lanes[-1] |= lengths.astype(np.uint64) << np.uint64(56)                           # its last byte is free for it
        return lanes

    def bytes(self) -> np.ndarray:
        """All of them, one after the other: (sum of lengths,) uint8."""
        return np.frombuffer(self.data, np.uint8)[flat_places(self.starts, self.lengths)]

    def each(self) -> list[bytes]:
        ends = self.starts + self.lengths
        return [self.data[a:b] for a, b in zip(self.starts.tolist(), ends.tolist(), strict=True)]


class WordIndex:
    """Different words get the numbers 0, 1, 2, ... in the order in which they first come.

    Words of more than `longest` bytes are not remembered: such a word is new each time.
    """

    def __init__(self, longest: int = 1 << 62) -> None:
        self.count = 0
        self.tables = (LaneTable(2), LaneTable(4), DictTable(longest))

    def number(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """(the number of each word, the place in `words` of each new one, ascending): (n,) int32, (new,) int64."""
        found = []
        which = np.arange(len(words.lengths))  # those that are too long for the tables before
        for table in self.tables:
            part = words if len(which) == len(words.lengths) else words.pick(which)
            found.append((table, which, *table.place(part)))
            which = which[part.lengths >= table.room]
            if not len(which):
                break
        first = np.sort(np.concatenate([which[new] for _, which, _, new in found] or [np.zeros(0, np.int64)]))
        for table, which, slots, new in found:
            table.numbers[slots[new]] = self.count + np.searchsorted(first, which[new])
        self.count += len(first)
        numbers = found[0][0].numbers.take(found[0][2])
        for table, which, slots, _ in found[1:]:
            numbers[which] = table.numbers.take(slots)
        return numbers, first


class LaneTable:
    """The words that fit `lanes` integers: open addressing, a column per lane, at most half full."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.room = lanes * LANE  # bytes; the last is for the length, so words are shorter than this
        self.used = 0
        self._allocate(16)

    def _allocate(self, bits: int) -> None:
        self.bits = bits
        self.columns = [np.zeros(1 << bits, np.uint64) for _ in range(self.lanes)]  # 0 is no word: it has a length
        self.numbers = np.full(1 << bits, FREE, np.int32)

    def place(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """(the slot of each word, places in `words` of the first of each new one): (n,), (new,). New slots are taken,
        but have no number yet; those of words that are too long mean nothing.
        """
        keys = words.lanes(self.lanes)
        slots, missing = self._find(keys)
        missing = missing[words.lengths[missing] < self.room]
        if self.used + len(missing) > len(self.numbers) // 2:
            self._grow(self.used + len(missing))
            slots, missing = self._find(keys)
            missing = missing[words.lengths[missing] < self.room]
        new = self._take(keys, slots, missing)
        self.used += len(new)
        return slots, new

    def _find(self, keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(the slot where each word is, or the free one where it would be; places of the latter)."""
        mixed = keys[0] * MIX[0]
        for lane in range(1, self.lanes):
            mixed ^= keys[lane] * MIX[lane]
            mixed *= MIX[0]
        mixed ^= mixed >> np.uint64(32)
        mixed *= MIX[1]
        slots = (mixed >> np.uint64(64 - self.bits)).view(np.int64)
        other = self._differ(keys, slots)
        searching, missing = np.flatnonzero(other), []
        while len(searching):
            free = self.numbers.take(slots[searching]) == FREE
            missing.append(searching[free])
            searching = searching[~free]
            slots[searching] = (slots[searching] + 1) & (len(self.numbers) - 1)
            searching = searching[self._differ([key[searching] for key in keys], slots[searching])]
        return slots, np.sort(np.concatenate(missing)) if missing else searching

    def _differ(self, keys: list[np.ndarray], slots: np.ndarray) -> np.ndarray:
        """Which keys are not in their slots."""
        other = self.columns[0].take(slots) != keys[0]
        for column, key in zip(self.columns[1:], keys[1:], strict=True):
            other |= column.take(slots) != key
        return other

    def _take(self, keys: list[np.ndarray], slots: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Give each missing word a slot, equal ones the same; returns the places of the first of each.

        All write their place into the slot they want, the first one last; whoever reads its own place has won. The
        others find an equal word there, and are done, or another, and go on.
        """
        won = []
        while len(missing):
            wanted = slots[missing]
            free = self.numbers.take(wanted) == FREE
            self.numbers[wanted[free][::-1]] = missing[free][::-1]
            winner = free & (self.numbers.take(wanted) == missing)
            for column, key in zip(self.columns, keys, strict=True):
                column[wanted[winner]] = key[missing[winner]]
            won.append(missing[winner])
            missing = missing[self._differ([key[missing] for key in keys], wanted)]
            slots[missing] = (slots[missing] + 1) & (len(self.numbers) - 1)
        return np.concatenate(won or [missing])

    def _grow(self, least: int) -> None:
        columns, numbers = self.columns, self.numbers
        taken = np.flatnonzero(numbers != FREE)
        keys = [column[taken] for column in columns]
        self._allocate(max(self.bits + 1, (4 * least).bit_length()))
        slots, missing = self._find(keys)
        self._take(keys, slots, missing)
        self.numbers[slots] = numbers[taken]


class DictTable:
    """All longer words. Those of more than `longest` bytes get a slot and are forgotten."""

    def __init__(self, longest: int) -> None:
        self.longest, self.room = longest, 1 << 62
        self.slot_of: dict[bytes, int] = {}
        self.used = 0
        self.numbers = np.empty(1 << 10, np.int32)

    def place(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """As LaneTable.place."""
        slots, new = [], []
        for place, word in enumerate(words.each()):
            slot = self.slot_of.get(word)
            if slot is None:
                slot = self.used
                self.used += 1
                new.append(place)
                if len(word) <= self.longest:
                    self.slot_of[word] = slot
            slots.append(slot)
        if self.used > len(self.numbers):
            self.numbers = np.concatenate([self.numbers, np.empty(self.used, np.int32)])
        return np.array(slots, np.int64), np.array(new, np.int64)
