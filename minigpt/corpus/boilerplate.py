"""Lines that stand in document after document: cookie banners, menus, licences, footers. They are taken out.

The first reading counts in how many documents each line stands; a later one leaves out those that are in many. The
table has a fixed size, so lines can share a counter; each line has one in two tables, and the smaller counts
(Cormode & Muthukrishnan 2005, the count-min sketch): a rare line is lost only where both its counters are shared
with frequent ones, which a thousand frequent lines do to one line in 17 million.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.chunks import batches
from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport, size
from minigpt.corpus.words import SPACE, SYMBOL, Batch, Hashes, mixed

ROW_BITS = 22                  # 4 million counters in each table, four bytes for the count and four for the document
CELL = (1 << ROW_BITS) - 1
FEW_DOCUMENTS = 10             # a line in fewer is no boilerplate, whatever their share
SHARE = 0.01                   # ... and it stands in more than this share of the documents
FEWEST_WORDS, IN_CODE = 3, 8   # of a line; shorter ones are what code is made of: "import numpy as np"
CODE, CODE_LINE = 0.1, 0.15    # share of symbols in the ink from which text, or a line, is code; prose: 0.03 ... 0.08


LinesFound = tuple[Hashes, NDArray[np.int64], int]  # lines, the number of the document of each, how many end


def find_lines(chunks: Iterable[Document]) -> Iterator[LinesFound]:
    """The different lines of each document, by the batch."""
    for batch in map(Batch, batches(chunks)):
        lines = np.flatnonzero(np.diff(batch.line_words) >= FEWEST_WORDS)
        hashes, document = batch.line_hashes[lines], batch.document_of_chunk[batch.chunk_of_line[lines]]
        _, once = np.unique(hashes ^ mixed(document.astype(np.uint64)), return_index=True)
        yield hashes[once], document[once], batch.n_ended


@dataclass
class LineCounts:
    """In how many documents each line stands."""

    counts: NDArray[np.uint32]  # (2, 2**ROW_BITS)
    documents: int = 0

    @classmethod
    def of(cls, found: Iterable[LinesFound]) -> "LineCounts":
        counted = cls(np.zeros((2, 1 << ROW_BITS), np.uint32))
        newest = np.full(counted.counts.shape, -1, np.int32)  # the last document counted there: none counts twice
        for hashes, document, ended in found:
            number = document + counted.documents
            for row, cells in enumerate(cells_of(hashes)):
                each = np.unique(number << ROW_BITS | cells)  # two lines of a document may share a counter
                number_of, cells = each >> ROW_BITS, each & CELL
                fresh = cells[newest[row, cells] != number_of]  # an open document may have been counted before
                np.add.at(counted.counts[row], fresh, np.uint32(1))
                newest[row, cells] = number_of  # in the order of documents: of equal cells the newest is written last
            counted.documents += ended
        return counted

    @property
    def least(self) -> int:
        """From so many documents on, a line is boilerplate."""
        return max(FEW_DOCUMENTS, int(SHARE * self.documents) + 1)

    def is_frequent(self, hashes: Hashes) -> NDArray[np.bool_]:
        first, second = cells_of(hashes)
        return (self.counts[0, first] >= self.least) & (self.counts[1, second] >= self.least)


def cells_of(hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (hashes & np.uint64(CELL)).astype(np.int64), (hashes >> np.uint64(ROW_BITS)).astype(np.int64) & CELL


def remove_boilerplate(chunks: Iterable[Document], counted: LineCounts, report: CleanReport) -> Iterator[Document]:
    """Every chunk without the lines that many documents share."""
    for some in batches(chunks):
        batch = Batch(some)
        gone = np.flatnonzero(is_boilerplate(batch, counted))
        yield from without_lines(batch, gone, report) if len(gone) else some


def is_boilerplate(batch: Batch, counted: LineCounts) -> NDArray[np.bool_]:
    """Whether each line has words enough and stands in documents enough. (lines,)"""
    words = np.diff(batch.line_words)
    found = words >= FEWEST_WORDS
    found[found] = counted.is_frequent(batch.line_hashes[found])
    short = np.flatnonzero(found & (words < IN_CODE))
    if len(short):
        starts, ends = batch.lines
        begin = np.stack([starts[short], ends[short]], axis=1).ravel()
        code_line = symbol_share(batch, begin)[::2] > CODE_LINE  # "def __init__(self):" in a file full of comments
        code = symbol_share(batch, batch.chunk_starts) > CODE
        found[short] = ~(code_line | code[batch.chunk_of_line[short]])
    return found


def symbol_share(batch: Batch, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the ink of each stretch of text, up to where the next starts. (starts,)"""
    symbols = np.add.reduceat(batch.classes == SYMBOL, starts, dtype=np.int64)
    ink = np.add.reduceat(batch.classes != SPACE, starts, dtype=np.int64)
    return symbols / np.maximum(ink, 1)


def without_lines(batch: Batch, gone: NDArray[np.int64], report: CleanReport) -> Iterator[Document]:
    starts, ends = batch.lines
    of_gone = batch.chunk_of_line[gone]
    border = np.searchsorted(of_gone, np.arange(len(batch.chunks) + 1))
    for number, chunk in enumerate(batch.chunks):
        lines = gone[border[number] : border[number + 1]]
        if not len(lines):
            yield chunk
            continue
        offset = int(batch.chunk_starts[number])
        parts, at = [], 0
        for line in lines:
            begin, end = int(starts[line]) - offset, int(ends[line]) + 1 - offset  # with its line end
            parts.append(chunk.text[at:begin])
            report.change("boilerplate", chunk.name, size(chunk.text[begin:end]), chunk.text[begin:end])
            at = end
        yield chunk._replace(text="".join(parts) + chunk.text[at:], changed=True)
