"""Is this text worth reading? Rules that need no language, each written for a kind of junk that the web is full of.

Every rule looks at sums over a document, so a document may come in chunks. What the rules must keep is as important
as what they must drop: prose in any script, poems, source code, Markdown, tables with words in them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.document import Document
from minigpt.corpus.words import DIGIT, LETTER, SOLO, SPACE, SYMBOL, WORD_WEIGHT, Batch, Hashes

Sums = NDArray[np.int64]  # (documents, len(COUNTS))


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where each rule begins. Sources: Gopher is Rae et al. 2021, table A1; C4 Raffel et al. 2020, section 2.2.

    Gopher judged English prose. Where source code, tables or poems would have fallen to its number, ours is laxer.
    """

    garbled: float = 0.005       # share of U+FFFD in the characters
    mojibake: float = 0.005      # share of pairs like Ã© in the characters; three at least
    minified: float = 0.5        # share of characters in lines over 1,000 long, of which symbols are over an eighth
    dump: float = 0.3            # share of characters in runs of 60 and more without a space
    symbols: float = 0.5         # share of symbols in the ink; Gopher: four fifths of the words have a letter
    digits: float = 0.5          # share of digits in the ink
    lorem_ipsum: float = 0.2     # share of its words in the words; C4 dropped every page with its first two
    repeated_lines: float = 0.5  # share of words in lines that came before; Gopher: 0.2 of characters, 0.3 of lines
    repeated_words: float = 0.5  # share of runs of 5 words that came before; Gopher: 0.15 of characters
    menu: float = 0.8            # share of lines of at most 3 words without a mark at the end; FineWeb: 0.88
    menu_lines: int = 10         # shorter lists are no menus
    too_short: int = 10          # words, or four times as many characters of unspaced scripts; Gopher: 50


# What is summed up of each document. "ink" is what is no space.
COUNTS = ("characters", "ink", "symbols", "digits", "lost", "mojibake", "unbroken", "minified", "words", "weight",
          "lorem", "repeated_line_words", "line_words", "repeated_runs", "runs", "lines", "menu_lines")  # fmt: skip

UNBROKEN = 60     # characters without a space: base64 has lines of 64 or 76, PEM of 64, a SHA-512 128
ENDLESS = 1_000   # characters of a line: longer than a paragraph mostly is (The Stack drops such files of code)
SHORT_LINE = 3 * WORD_WEIGHT
LOREM = ("lorem ipsum dolor sit amet consectetur adipiscing elit eiusmod tempor incididunt labore dolore magna aliqua "
         "veniam quis nostrud exercitation ullamco laboris nisi aliquip commodo consequat duis aute irure "
         "reprehenderit voluptate velit esse cillum fugiat nulla pariatur excepteur sint occaecat cupidatat proident "
         "culpa officia deserunt mollit laborum")  # fmt: skip

FIELD = np.uint64(21)  # bits of a counter: three stand side by side in 64; a batch has fewer than 2**21 characters
FIELD_MASK = np.uint64((1 << 21) - 1)


class Quality:
    """The rules, batch by batch; of a document that goes on in the next batch the sums are carried over."""

    def __init__(self, limits: Thresholds) -> None:
        self.limits, self.opened = limits, np.zeros(len(COUNTS), np.int64)

    def read(self, batch: Batch) -> list[str]:
        """For each document that ends in the batch the first rule that it falls to, or ""."""
        sums = measure_quality(batch)
        sums[0] += self.opened
        self.opened = sums[-1] if batch.stays_open else np.zeros(len(COUNTS), np.int64)
        return verdicts(sums[: batch.n_ended], self.limits)


def verdicts(sums: Sums, limits: Thresholds) -> list[str]:
    """The first rule of each row of sums."""
    s = dict(zip(COUNTS, sums.T, strict=True))

    def share(part: str, whole: str) -> NDArray[np.float64]:
        return s[part] / np.maximum(s[whole], 1)

    falls = {
        "garbled": share("lost", "characters") > limits.garbled,
        "mojibake": (share("mojibake", "characters") > limits.mojibake) & (s["mojibake"] >= 3),
        "minified": share("minified", "characters") > limits.minified,
        "dump": share("unbroken", "characters") > limits.dump,
        "symbols": share("symbols", "ink") > limits.symbols,
        "digits": share("digits", "ink") > limits.digits,
        "lorem-ipsum": share("lorem", "words") > limits.lorem_ipsum,
        "repeated-lines": share("repeated_line_words", "line_words") > limits.repeated_lines,
        "repeated-words": share("repeated_runs", "runs") > limits.repeated_words,
        "menu": (share("menu_lines", "lines") > limits.menu) & (s["lines"] >= limits.menu_lines),
        "too-short": s["weight"] < limits.too_short * WORD_WEIGHT,
    }
    found = np.array(["", *falls])
    first = np.argmax(np.array([np.zeros(len(sums), np.bool_), *falls.values()]), axis=0)
    return [str(rule) for rule in found[first]]


def measure_quality(batch: Batch) -> Sums:
    """The sums of every document that has chunks in the batch. (documents, len(COUNTS))"""
    of_chunk = np.zeros((len(batch.chunks), len(COUNTS)), np.int64)
    columns = dict(zip(COUNTS, of_chunk.T, strict=True))  # views: what is written there stands in of_chunk
    count_characters(batch, columns)
    count_words(batch, columns)
    count_repeats(batch, columns)
    first = np.searchsorted(batch.document_of_chunk, np.arange(batch.n_documents))
    return np.add.reduceat(of_chunk, first, axis=0)


def count_characters(batch: Batch, columns: dict[str, Sums]) -> None:
    """Classes of characters by line and chunk, long runs, and the marks of lost or misread bytes."""
    classes = batch.classes
    starts, ends = batch.lines
    of_line, chunks = batch.chunk_of_line, len(batch.chunks)
    counted = np.zeros(5, np.uint64)
    counted[[SYMBOL, DIGIT, SPACE]] = np.uint64(1) << (FIELD * np.arange(3, dtype=np.uint64))
    running = np.zeros(len(classes) + 1, np.uint64)
    np.cumsum(counted[classes], out=running[1:])
    inside = running[ends] - running[starts]                           # (lines,) three counters each
    symbols, digits, spaces = ((inside >> (FIELD * np.uint64(k)) & FIELD_MASK).astype(np.int64) for k in range(3))
    length = ends - starts
    for name, values in (
        ("characters", length),
        ("symbols", symbols),
        ("digits", digits),
        ("ink", length - spaces),
        ("minified", np.where((length > ENDLESS) & (symbols * 8 > length), length, 0)),
    ):
        columns[name] += sums_by(of_line, values, chunks)
    count_unbroken(batch, columns["unbroken"])
    if not batch.text.isascii():
        count_misread(batch, columns)


def sums_by(group: NDArray[np.int64], values: NDArray[np.int64], groups: int) -> Sums:
    return np.bincount(group, values, groups).astype(np.int64)


def count_unbroken(batch: Batch, column: Sums) -> None:
    """Characters in runs of at least UNBROKEN without a space, in scripts that have spaces."""
    border = np.flatnonzero((batch.classes == SPACE) | (batch.classes == SOLO))
    length = np.diff(border, prepend=-1) - 1
    long = np.flatnonzero(length >= UNBROKEN)
    if len(long):
        chunk = np.searchsorted(batch.chunk_starts, border[long], side="right") - 1
        column += sums_by(chunk, length[long], len(column))


def count_misread(batch: Batch, columns: dict[str, Sums]) -> None:
    """U+FFFD; and a first byte of UTF-8 with a following one, both read as Latin-1 or Windows-1252."""
    codes, chunks = batch.codes, len(batch.chunks)
    lost = np.flatnonzero(codes == 0xFFFD)
    columns["lost"] += np.bincount(np.searchsorted(batch.chunk_starts, lost, side="right") - 1, minlength=chunks)
    lead = np.flatnonzero((codes >= 0xC2) & (codes <= 0xF4))
    following = np.isin(codes[lead + 1], FOLLOWING)  # the last character is a line end
    pairs = lead[following]
    columns["mojibake"] += np.bincount(np.searchsorted(batch.chunk_starts, pairs, side="right") - 1, minlength=chunks)


# what the bytes 80 ... BF are in Latin-1 and in Windows-1252
FOLLOWING = np.array(sorted({*range(0x80, 0xC0), *map(ord, bytes(range(0x80, 0xA0)).decode("cp1252", "ignore"))}))


def count_words(batch: Batch, columns: dict[str, Sums]) -> None:
    """Words, their weight, those of lorem ipsum, and lines that could stand in a menu."""
    chunks, counts = len(batch.chunks), np.diff(batch.chunk_words)
    columns["words"] += counts
    weight = np.full(len(batch.words[0]), WORD_WEIGHT) if batch.weights is None else batch.weights
    running = np.concatenate([[0], np.cumsum(weight)])                 # (words + 1,)
    columns["weight"] += np.diff(running[batch.chunk_words])
    if "ipsum" in batch.text.lower():
        filler = np.concatenate([[0], np.cumsum(np.isin(batch.word_hashes, lorem_hashes()))])
        columns["lorem"] += np.diff(filler[batch.chunk_words])
    ends, of_line = batch.lines[1], batch.chunk_of_line
    line_weight = np.diff(running[batch.line_words])                   # (lines,)
    worded = line_weight > 0
    # the last mark of a line: a word's end shows an unfinished one; code and tables end in symbols
    last = batch.classes[np.maximum(ends - 1, 0)]
    unmarked = (last == LETTER) | (last == DIGIT) | (last == SOLO)
    short = worded & (line_weight <= SHORT_LINE) & unmarked
    columns["lines"] += np.bincount(of_line[worded], minlength=chunks)
    columns["menu_lines"] += np.bincount(of_line[short], minlength=chunks)


def lorem_hashes() -> Hashes:
    return Batch([Document(LOREM, "lorem")]).word_hashes


def count_repeats(batch: Batch, columns: dict[str, Sums]) -> None:
    """Lines and runs of words that stood earlier in the same chunk."""
    chunks = len(batch.chunks)
    words = np.diff(batch.line_words)
    worded = np.flatnonzero(words)
    of_line = batch.chunk_of_line[worded]
    key = batch.line_hashes[worded] ^ (of_line.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    _, first = np.unique(key, return_index=True)
    columns["line_words"] += sums_by(of_line, words[worded], chunks)
    columns["repeated_line_words"] += columns["line_words"] - sums_by(of_line[first], words[worded][first], chunks)
    keys = batch.sketch_keys
    fresh = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    of_run = (keys >> np.uint64(52)).astype(np.int64)
    total = np.bincount(of_run, minlength=chunks)
    columns["runs"] += total
    columns["repeated_runs"] += total - np.bincount(of_run[fresh], minlength=chunks)
