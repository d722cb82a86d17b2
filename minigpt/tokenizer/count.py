"""How often does each pre-token occur? Texts go in one after the other and are forgotten.

A text of millions of words has few different ones. So each is kept once, with its count, and everything after this
file sees only those: memory grows with the different pre-tokens, not with the text. A hundred thousand pre-tokens are
split, looked up and counted at a time; short texts are put together for that.

Words stay in the order in which they first come, whether one process counts or several: each of those counts whole
batches, and the batches' words are added up in the order of the batches.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minigpt.runtime.workers import in_order
from minigpt.tokenizer.arrays import Growing
from minigpt.tokenizer.patterns import PIECE, Splitter
from minigpt.tokenizer.split import pre_tokens, rules_of
from minigpt.tokenizer.word_counts import CountsFile, SavedCounts, WordCounts
from minigpt.tokenizer.word_index import WordIndex, Words

SHARE = 32 * PIECE    # characters handed to another process at a time: counting them takes longer than sending them
SAVE_EVERY = 60.0     # seconds


class WordCounter:
    """Adds up words, each given once or with a count."""

    def __init__(self) -> None:
        self.index = WordIndex()
        self.data, self.lengths, self.counts = Growing(np.uint8), Growing(np.int64), Growing(np.int64)

    def add(self, words: Words, times: np.ndarray | int = 1) -> None:
        if not len(words.lengths):
            return
        numbers, new = self.index.number(words)
        first = words.pick(new)
        self.data.append(first.bytes())
        self.lengths.append(first.lengths)
        self.counts.append(np.zeros(len(new), np.int64))
        np.add.at(self.counts.all, numbers, times)

    def add_counts(self, counts: WordCounts) -> None:
        self.add(counts.words(), counts.counts)

    def total(self) -> WordCounts:
        return WordCounts(self.data.all, self.lengths.all, self.counts.all)


class Batch(NamedTuple):
    """Pieces of texts to be counted together."""

    pieces: list[str]
    ended: int     # how many texts end in it
    whole: bool    # whether it ends with a text, so that counting can be resumed behind it


def count_words(
    texts: Iterable[str],
    pattern: str,
    *,
    num_proc: int = 1,
    progress: bool = False,
    checkpoint: Path | None = None,
) -> WordCounts:
    """How often each pre-token of `texts` occurs.

    With a `checkpoint`, what has been counted is written to that file every minute and at the end, and a file that is
    there already is gone on from: then `texts` must be the same texts again, of which those counted are only read and
    compared. Finished counts may also be had without the texts: give none at all.

    Raises: ValueError if `checkpoint` is damaged, or holds counts by another pattern or of other texts.
    """
    counter, ended, texts, digest = WordCounter(), 0, iter(texts), hashlib.blake2b(digest_size=16)
    file = CountsFile(checkpoint, pattern) if checkpoint else None
    if file and (saved := file.read()):
        given = _pass_over(texts, saved, Splitter(pattern), digest)
        if (given or not saved.complete) and (given, digest.hexdigest()) != (saved.texts, saved.digest):
            found = f"only {given} were given" if given < saved.texts else "these are not the same"
            raise ValueError(f"{checkpoint} counted {saved.texts} texts, and {found}: delete it first")
        if saved.complete:
            return saved.words
        counter.add_counts(saved.words)
        ended = given
    saved_at = time.monotonic()
    with tqdm(desc="counting words", unit=" chars", unit_scale=True, disable=not progress) as bar:
        for batch in _counted(texts, pattern, num_proc, counter):
            ended += batch.ended
            if file:
                digest.update("".join(batch.pieces).encode())
            bar.update(sum(map(len, batch.pieces)))
            if file and batch.whole and time.monotonic() - saved_at > SAVE_EVERY:
                file.write(SavedCounts(counter.total(), ended, complete=False, digest=digest.hexdigest()))
                saved_at = time.monotonic()
    if file:
        file.write(SavedCounts(counter.total(), ended, complete=True, digest=digest.hexdigest()))
    return counter.total()


def _pass_over(texts: Iterator[str], saved: SavedCounts, splitter: Splitter, digest: "hashlib._Hash") -> int:
    """Read what has been counted, and one text more if that was all; returns how many texts were read."""
    given = 0
    for text in islice(texts, saved.texts + saved.complete):
        given += 1
        for piece in splitter.pieces(text):  # spelled as it was counted
            digest.update(piece.encode())
    return given


def _counted(texts: Iterator[str], pattern: str, num_proc: int, counter: WordCounter) -> Iterator[Batch]:
    """Add all texts to `counter`, by this process or by `num_proc` others; yields each batch after it was added."""
    splitter = Splitter(pattern)
    if num_proc == 1:
        for batch in batches(texts, splitter, PIECE):
            add_pieces(counter, batch.pieces, splitter)
            yield batch
        return
    shares = ((batch, batch.pieces) for batch in batches(texts, splitter, SHARE))
    for batch, counts in in_order(partial(count_share, pattern), shares, num_proc):
        counter.add_counts(counts)
        yield batch


def count_share(pattern: str, pieces: list[str]) -> WordCounts:
    """What one process does with one batch."""
    counter, splitter = WordCounter(), Splitter(pattern)
    for batch in batches(pieces, splitter, PIECE):
        add_pieces(counter, batch.pieces, splitter)
    return counter.total()


def batches(texts: Iterable[str], splitter: Splitter, size: int) -> Iterator[Batch]:
    """Batches of about `size` characters: many short texts, or a part of a long one, whose last batch ends with it."""
    pieces, length, ended, cut = [], 0, 0, False
    for text in texts:
        for piece in filter(None, splitter.pieces(text)):
            if length >= size:  # only now is it sure that more of this text follows
                yield Batch(pieces, ended, whole=False)
                pieces, length, ended, cut = [], 0, 0, True
            pieces.append(piece)
            length += len(piece)
        ended += 1
        if cut or length >= size:
            yield Batch(pieces, ended, whole=True)
            pieces, length, ended, cut = [], 0, 0, False
    if ended:
        yield Batch(pieces, ended, whole=True)


def add_pieces(counter: WordCounter, pieces: list[str], splitter: Splitter) -> None:
    """Count the pre-tokens of these pieces: all at once if the pattern's rules are known, else one by one."""
    rules = rules_of(splitter.pattern)
    if rules is None:
        found = Counter(word for piece in pieces for word in splitter.split(piece))
        counter.add_counts(WordCounts.of({word.encode(): count for word, count in found.items()}))
    elif pieces:
        counter.add(pre_tokens(pieces, rules)[0])
