"""Texts that a model will be judged by do not belong into what it learns from.

A document that shares 13 words in a row with them is dropped, whatever its case and punctuation (Brown et al. 2020,
"Language models are few-shot learners", appendix C); in scripts without spaces 50 characters, in mixed text what
weighs as much. An evaluation text shorter than that is too common to be looked for.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.report import SHOWN
from minigpt.corpus.words import WORD_WEIGHT, Batch, Hashes

RUN = 13            # words
SIEVE = 1 << 22     # one byte for each of so many classes of hashes: most are ruled out by one look


class EvalTexts:
    """The runs of 13 words of all evaluation texts: eight bytes each."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        hashes = []
        for batch in batches:
            found = runs(batch)
            hashes.append(np.unique(found[is_within(batch, np.arange(len(found)))]))
        self.hashes: Hashes = np.unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)
        self.sieve = np.zeros(SIEVE, np.bool_)
        self.sieve[self.hashes >> np.uint64(42)] = True

    def first_shared(self, batch: Batch) -> dict[int, str]:
        """{document: excerpt} of those that share something."""
        hashes = runs(batch)
        maybe = np.flatnonzero(self.sieve[hashes >> np.uint64(42)])
        if not len(maybe):
            return {}
        at = np.minimum(np.searchsorted(self.hashes, hashes[maybe]), len(self.hashes) - 1)
        maybe = maybe[self.hashes[at] == hashes[maybe]]
        place = batch.words[0][maybe[is_within(batch, maybe)]]
        chunk = np.searchsorted(batch.chunk_starts, place, side="right") - 1
        document, first = np.unique(batch.document_of_chunk[chunk], return_index=True)
        ends = np.append(batch.chunk_starts[1:], len(batch.text)) - 1  # what comes behind is another document's
        ends = np.minimum(place + SHOWN, ends[chunk])[first]
        return {int(d): batch.text[p:end] for d, p, end in zip(document, place[first], ends, strict=True)}


def runs(batch: Batch) -> Hashes:
    """The hash of the run that begins at each word and weighs as much as RUN words. (runs <= words,)"""
    if batch.weights is None:
        return batch.equal_runs(RUN)
    running = np.concatenate([[0], np.cumsum(batch.weights)])  # (words + 1,)
    first = np.flatnonzero(running[:-1] + RUN * WORD_WEIGHT <= running[-1])
    return batch.run_hashes(first, first + lengths(running, first))


def lengths(running: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many words from each on it takes to weigh as much as RUN words."""
    return np.searchsorted(running, running[first] + RUN * WORD_WEIGHT) - first


def is_within(batch: Batch, first: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the runs from these words on end in the chunk in which they begin."""
    if batch.weights is None:
        end = first + RUN
    else:
        running = np.concatenate([[0], np.cumsum(batch.weights)])
        end = first + lengths(running, first)
    return end <= batch.chunk_words[np.searchsorted(batch.chunk_words, first, side="right")]


class Overlap:
    """What documents share with evaluation texts, batch by batch."""

    def __init__(self, texts: EvalTexts) -> None:
        self.texts, self.opened = texts, ""

    def read(self, batch: Batch) -> list[str]:
        """For each document that ends in the batch an excerpt of what it shares, or ""."""
        found = self.texts.first_shared(batch)
        found[0] = self.opened or found.get(0, "")
        self.opened = found.get(batch.n_documents - 1, "") if batch.stays_open else ""
        return [found.get(number, "") for number in range(batch.n_ended)]
