"""Words, lines and word n-grams of a batch of text, found and hashed by numpy without a loop over words.

A word is a run of letters, marks, digits and underscores; in scripts written without spaces (Chinese, Japanese,
Thai, Lao, Burmese, Khmer) every character is one, and 50 of them weigh as much as 13 words elsewhere. Case is
ignored. With P odd, and so invertible modulo 2**64, the hash of text[s:e] comes from one running sum:

    H[i] = sum of v(text[j]) * P**j over j < i            hash(s, e) = (H[e] - H[s]) * P**-s

and the hash of a run of words is the same formula over the hashes of words (Karp & Rabin 1987).
"""

import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.document import Document

SPACE, LETTER, DIGIT, SYMBOL, SOLO = range(5)  # the class of a character; SOLO: a word by itself
WORD_WEIGHT, SOLO_WEIGHT = 50, 13
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF),
            (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9D), (0x20000, 0x323AF))  # fmt: skip
LAST_LETTER = 0x323AF  # beyond are tags and private use: symbols

P, Q = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd, and of no other merit: characters, words
MASK = (1 << 64) - 1

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


@cache
def class_table() -> NDArray[np.uint8]:
    """The class of every code point up to LAST_LETTER, and SYMBOL behind it."""
    kinds = {"L": LETTER, "M": LETTER, "N": DIGIT, "Z": SPACE}
    table = np.full(LAST_LETTER + 2, SYMBOL, np.uint8)
    for code in range(LAST_LETTER + 1):
        table[code] = kinds.get(unicodedata.category(chr(code))[0], SYMBOL)
    table[[9, 10, 11, 12, 13, 0x85]] = SPACE
    table[[ord("_"), 0x200C, 0x200D]] = LETTER  # joiners stand inside words
    for first, last in UNSPACED:
        stretch = table[first : last + 1]
        stretch[stretch == LETTER] = SOLO
    return table


@cache
def value_table() -> Hashes:
    """v(c): what a character is worth in a hash; the same for its upper and lower case."""
    lower = np.arange(LAST_LETTER + 2, dtype=np.uint64)
    for code in range(0x1E944):  # the last script with cases, Adlam, ends there
        small = chr(code).lower()
        if len(small) == 1:
            lower[code] = ord(small)
    return mixed(lower + np.uint64(1))


@cache
def powers(base: int, length: int) -> tuple[Hashes, Hashes]:
    """base**i and base**-i modulo 2**64 for i < length."""
    both = []
    for factor in (base, pow(base, -1, 1 << 64)):
        column = np.full(length, np.uint64(factor))
        column[0] = 1
        both.append(np.multiply.accumulate(column))
    return both[0], both[1]


def mixed(hashes: Hashes) -> Hashes:
    """Every bit decides about every bit (Steele et al. 2014, SplitMix)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def running_hash(values: Hashes, base: int) -> tuple[Hashes, Hashes]:
    """(H, base**-i) for the values; H has one more entry than they."""
    length = 1 << max(12, len(values).bit_length())  # few different lengths: powers are remembered
    forward, back = powers(base, length)
    total = np.empty(len(values) + 1, np.uint64)  # (n + 1,)
    total[0] = 0
    np.cumsum(values * forward[: len(values)], out=total[1:])
    return total, back


class Batch:
    """Chunks side by side, each closed by a line end. Words and lines are numbered through the whole batch."""

    def __init__(self, chunks: Sequence[Document]) -> None:
        self.chunks = chunks
        self.text = "\n".join([chunk.text for chunk in chunks]) + "\n"
        lengths = np.array([len(chunk.text) + 1 for chunk in chunks], np.int64)
        self.chunk_starts: Places = np.cumsum(lengths) - lengths  # (chunks,)
        ends = np.array([chunk.ends for chunk in chunks])
        self.document_of_chunk: Places = np.cumsum(ends) - ends   # (chunks,), from 0; the last may stay open
        self.n_ended = int(ends.sum())
        self.n_documents = int(self.document_of_chunk[-1]) + 1
        self.stays_open = not chunks[-1].ends

    @cached_property
    def codes(self) -> NDArray:
        """One code per character: bytes where all are ASCII."""
        if self.text.isascii():
            return np.frombuffer(self.text.encode("ascii"), np.uint8)
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return np.minimum(codes, LAST_LETTER + 1)

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        if self.text.isascii():
            return np.frombuffer(self.text.encode("ascii").translate(class_table()[:256].tobytes()), np.uint8)
        return class_table()[self.codes]

    @cached_property
    def words(self) -> tuple[Places, Places]:
        """(start, end) of every word."""
        classes = self.classes
        inside = np.zeros(len(classes) + 1, np.bool_)  # a batch ends with a line end, so the last is False
        inside[1:] = (classes == LETTER) | (classes == DIGIT)
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        starts, ends = edges[::2], edges[1::2]
        if self.text.isascii():
            return starts, ends
        solo = np.flatnonzero(classes == SOLO)
        if len(solo):
            starts, ends = np.concatenate([starts, solo]), np.concatenate([ends, solo + 1])
            order = np.argsort(starts, kind="stable")
            starts, ends = starts[order], ends[order]
        return starts, ends

    @cached_property
    def weights(self) -> Places | None:
        """The weight of each word; None where all weigh the same."""
        solo = self.classes[self.words[0]] == SOLO
        return np.where(solo, SOLO_WEIGHT, WORD_WEIGHT) if solo.any() else None

    @cached_property
    def word_hashes(self) -> Hashes:
        starts, ends = self.words
        total, back = running_hash(value_table()[self.codes], P)
        return mixed((total[ends] - total[starts]) * back[starts])

    @cached_property
    def _running_words(self) -> tuple[Hashes, Hashes]:
        return running_hash(self.word_hashes, Q)

    def run_hashes(self, first: Places, end: Places) -> Hashes:
        """The hash of each run of words first ... end - 1."""
        total, back = self._running_words
        return mixed((total[end] - total[first]) * back[first])

    @cached_property
    def chunk_words(self) -> Places:
        """The number of the first word of each chunk, and at last the number of words. (chunks + 1,)"""
        return np.append(np.searchsorted(self.words[0], self.chunk_starts), len(self.words[0]))

    @cached_property
    def lines(self) -> tuple[Places, Places]:
        """(start, end) of every line."""
        ends = np.flatnonzero(self.codes == 10)
        return np.concatenate([[0], ends[:-1] + 1]), ends

    @cached_property
    def chunk_of_line(self) -> Places:
        return np.searchsorted(self.chunk_starts, self.lines[0], side="right") - 1

    @cached_property
    def line_words(self) -> Places:
        """The number of the first word of each line, and at last the number of words. (lines + 1,)"""
        return np.append(np.searchsorted(self.words[0], self.lines[0]), len(self.words[0]))

    @cached_property
    def line_hashes(self) -> Hashes:
        """Equal where two lines have the same words, whatever stands around them."""
        return self.run_hashes(self.line_words[:-1], self.line_words[1:])

    def equal_runs(self, width: int) -> Hashes:
        """The hash of the `width` words from each word on, borders of chunks notwithstanding. (words - width + 1,)"""
        total, back = self._running_words
        n = max(0, len(total) - width)
        return mixed((total[width : width + n] - total[:n]) * back[:n])

    @cached_property
    def sketch_keys(self) -> Hashes:
        """Sorted: twelve bits of the chunk, then 52 of the hash, for each run of SHINGLE words within a chunk.

        A chunk of fewer words has one run, of all of them.
        """
        counts = np.diff(self.chunk_words)                                       # (chunks,)
        hashes = self.equal_runs(SHINGLE) >> np.uint64(12)
        owner = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)       # (words,) the chunk of each
        within = owner[: len(hashes)] == owner[len(owner) - len(hashes) :]       # the run ends where it began
        keys = (owner[: len(hashes)] << np.uint64(52) | hashes)[within]
        short = np.flatnonzero((counts > 0) & (counts < SHINGLE))
        few = self.run_hashes(self.chunk_words[short], self.chunk_words[short + 1]) >> np.uint64(12)
        return np.sort(np.concatenate([keys, short.astype(np.uint64) << np.uint64(52) | few]))


SHINGLE = 5  # words: Lee et al. 2022, "Deduplicating training data makes language models better", section 4.2
