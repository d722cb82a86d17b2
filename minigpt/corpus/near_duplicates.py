"""Texts that are nearly one text: copies with another date, a new headline, a corrected word.

The likeness of two documents is the Jaccard index of their sets of shingles (runs of SHINGLE words; of characters,
in scripts without spaces):

    J(A, B) = |A & B| / |A | B|

    1. MinHash (Broder 1997): of two sets, the least hash is the same with probability J. Instead of hashing 256
       times, one hash deals the shingles into 256 bins, each of which keeps its least (Li, Owen & Zhang 2012); an
       empty bin takes over another's, the same one in every document (Shrivastava 2017).
    2. A byte of each is enough: 256 bytes a document, equal by chance in one bin of 256 (Li & König 2010).
    3. LSH (Indyk & Motwani 1998): 32 bands of 8 bins; who shares a band is a candidate. With J = 0.8 that happens
       to 997 in 1,000 pairs, with 0.3 to 2.
    4. Candidates are verified by counting equal bins: J is known to 0.025.

A document is compared with those that were kept before it, and the first of a kind stays.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.words import Batch, Hashes, mixed

BINS, BANDS = 256, 32
LIKENESS = 0.72  # estimated J from which a document is a copy: 0.8 is three errors above it, 0.6 four below
SLOTS = 4        # of a bucket in the index
EMPTY = np.uint64((1 << 44) - 1)
NO_WORDS = b""

Signature = bytes  # BINS of them, or NO_WORDS


class Signing:
    """Signatures, batch by batch; of a document that goes on in the next batch the bins are carried over."""

    def __init__(self) -> None:
        self.opened = np.full(BINS, EMPTY)

    def read(self, batch: Batch) -> list[Signature]:
        """The signature of each document that ends in the batch."""
        least = least_of_chunks(batch)                                              # (chunks, BINS)
        first = np.searchsorted(batch.document_of_chunk, np.arange(batch.n_documents))
        least = np.minimum.reduceat(least, first, axis=0)                           # (documents, BINS)
        np.minimum(least[0], self.opened, out=least[0])
        self.opened = least[-1] if batch.stays_open else np.full(BINS, EMPTY)
        ended = least[: batch.n_ended]
        blank = (ended == EMPTY).all(axis=1)
        filled = fill_empty(ended).astype(np.uint8)
        return [NO_WORDS if none else row.tobytes() for none, row in zip(blank, filled, strict=True)]


def least_of_chunks(batch: Batch) -> Hashes:
    """The least hash in each bin: of sorted keys (chunk, bin, hash) the first of each (chunk, bin). (chunks, BINS)"""
    least = np.full((len(batch.chunks), BINS), EMPTY)
    keys = batch.sketch_keys
    bins = keys >> np.uint64(44)
    first = np.ones(len(keys), np.bool_)
    np.not_equal(bins[1:], bins[:-1], out=first[1:])
    least.reshape(-1)[bins[first].astype(np.int64)] = keys[first] & EMPTY
    return least


def fill_empty(least: Hashes) -> Hashes:
    """Every empty bin takes over the least hash of another, asked for in an order that all documents share.

    A document of a few words has so few full bins that asking is slow: from then on each bin takes the one of all its
    hashes that is the least to this bin, which is MinHash as Broder wrote it down.
    """
    filled, full = least.copy(), least != EMPTY
    row, empty = np.nonzero(~full & full.any(axis=1)[:, None])
    for donor in donors():
        found = full[row, donor[empty]]
        filled[row[found], empty[found]] = least[row[found], donor[empty[found]]]
        row, empty = row[~found], empty[~found]
        if not len(row):
            return filled
    for poor in np.unique(row):
        hashes = least[poor, full[poor]]                                      # (few,)
        mine = mixed(hashes[:, None] ^ SALT)                                  # (few, BINS)
        here = empty[row == poor]
        filled[poor, here] = hashes[np.argmin(mine[:, here], axis=0)]
    return filled


SALT = mixed(np.arange(1, BINS + 1, dtype=np.uint64))  # (BINS,)
TRIES = 24


@cache
def donors() -> list[NDArray[np.int64]]:
    """Which bin each bin asks, try by try. (BINS,)"""
    return [mixed(np.arange(BINS, dtype=np.uint64) + np.uint64(1000 * n)).astype(np.int64) & 255 for n in range(TRIES)]


class NearDuplicates:
    """The signatures of all documents that were kept, and who has which band: about 512 bytes each, and its name."""

    def __init__(self) -> None:
        self.count = 0
        self.names: list[str] = []
        self.bands = np.zeros((1024, BANDS), np.uint64)  # the signatures, eight bins at a time
        self.table = np.zeros((1 << 14, SLOTS), np.int32)  # by band: numbers of documents, from 1

    def find(self, signature: Signature) -> str | None:
        """The name of the kept document that is most like this one, if it is a copy."""
        bands = np.frombuffer(signature, np.uint64)                           # (BANDS,)
        numbers = self.table[self._buckets(bands)]                            # (BANDS, SLOTS)
        found = self.bands[numbers - 1, BAND] == bands[:, None]               # (BANDS, SLOTS)
        candidates = np.unique(numbers[found & (numbers > 0)]) - 1
        if not len(candidates):
            return None
        equal = self.bands[candidates].view(np.uint8) == np.frombuffer(signature, np.uint8)  # (candidates, BINS)
        best = int(np.argmax(equal.sum(axis=1)))
        return self.names[candidates[best]] if likeness(equal[best].mean()) >= LIKENESS else None

    def add(self, signature: Signature, name: str) -> None:
        """Keep a document."""
        if self.count == len(self.bands):
            self.bands = np.concatenate([self.bands, np.zeros_like(self.bands)])
        bands = np.frombuffer(signature, np.uint64)
        self.bands[self.count] = bands
        self.count += 1
        self.names.append(name)
        if self.count * BANDS * 2 > self.table.size:
            self._grow()
        else:
            self._insert(bands, self.count)

    def _buckets(self, bands: Hashes) -> NDArray[np.int64]:
        mixed = (bands ^ BAND[:, 0].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(64 - (len(self.table).bit_length() - 1))).astype(np.int64)

    def _insert(self, bands: Hashes, number: int) -> None:
        """Into the first free slot of each bucket; a full bucket costs the document one band of its 32."""
        buckets = self._buckets(bands)
        row = self.table[buckets]                                             # (BANDS, SLOTS)
        slot = np.argmin(row, axis=1)
        free = row[np.arange(BANDS), slot] == 0
        self.table[buckets[free], slot[free]] = number

    def _grow(self) -> None:
        self.table = np.zeros((2 * len(self.table), SLOTS), np.int32)
        for number in range(1, self.count + 1):
            self._insert(self.bands[number - 1], number)


BAND = np.arange(BANDS)[:, None]  # (BANDS, 1)


def likeness(equal: float) -> float:
    """J from the share of equal bytes, of which one in 256 is equal by chance."""
    return (equal - 1 / 256) / (1 - 1 / 256)
