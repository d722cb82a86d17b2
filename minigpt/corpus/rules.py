"""All that cleaning does, in its order: what changes a text, what is found in it, what drops it.

    markup -> controls -> normalise -> boilerplate -> personal data    a stream of chunks
    quality, evaluation overlap, signature                             findings of each document
    empty, junk, duplicate, in-val, in-eval, near-duplicate            the first that applies drops it

Boilerplate and evaluation texts are read before, for themselves. The first two rows look at one document alone, so
several processes may share the documents (many.py); the last one remembers other documents, and is for one.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from minigpt.corpus import clean
from minigpt.corpus.boilerplate import LineCounts, LinesFound, find_lines, remove_boilerplate
from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.clean import Measure, Measuring
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.controls import remove_controls
from minigpt.corpus.document import Document
from minigpt.corpus.html_text import without_markup
from minigpt.corpus.near_duplicates import NearDuplicates, Signing
from minigpt.corpus.overlap import EvalTexts, Overlap
from minigpt.corpus.personal import mask_personal
from minigpt.corpus.quality import Quality, Thresholds
from minigpt.corpus.report import CleanReport
from minigpt.corpus.words import Batch


@dataclass
class Cleaning:
    """What cleans each document of a corpus for itself: the settings, and what earlier readings found."""

    config: CorpusConfig
    lines: LineCounts | None = None       # of the whole corpus; None: boilerplate stays
    eval_texts: EvalTexts | None = None

    def spelled(self, pieces: Iterable[Document], report: CleanReport) -> Iterator[Document]:
        """The text in one spelling. Beyond `clean`, in chunks, which nothing but the text decides."""
        pieces = without_markup(pieces)
        if not self.config.clean:
            yield from pieces
        elif not self.config.cleaning:
            yield from clean.normalise(pieces)
        else:
            chunks = recut(pieces)
            yield from clean.normalise(remove_controls(chunks, report) if self.config.quality else chunks)

    def changed(self, pieces: Iterable[Document], report: CleanReport) -> Iterator[Document]:
        """The text as it will be learned from."""
        return self._edited(self.spelled(pieces, report), report)

    def changed_again(self, pieces: Iterable[Document], report: CleanReport) -> Iterator[Document]:
        """The same once more, of `marked` documents: one in which nothing was found is not searched a second time."""
        for found, some in groupby(self.spelled(pieces, report), key=attrgetter("changed")):
            same = iter(some)
            yield from self._edited(same, report) if found else same

    def lines_found(self, pieces: Iterable[Document], report: CleanReport) -> Iterator[LinesFound]:
        """The lines of each document, to see which of them are boilerplate."""
        return find_lines(self.spelled(pieces, report))

    def measured(self, pieces: Iterable[Document], report: CleanReport) -> Iterator[Measure]:
        """The measure of each document as it will be learned from, and what is found in it."""
        chunks = self.changed(pieces, report)
        return self.found(chunks) if self.config.cleaning else clean.measure(chunks)

    def _edited(self, chunks: Iterable[Document], report: CleanReport) -> Iterator[Document]:
        if self.lines is not None:
            chunks = remove_boilerplate(chunks, self.lines, report)
        yield from mask_personal(chunks, report) if self.config.mask_personal else chunks

    def found(self, chunks: Iterable[Document]) -> Iterator[Measure]:
        """The measures of a stream with what the rules of this chapter find in each document."""
        measuring = Measuring()
        readers = {
            "junk": Quality(Thresholds()) if self.config.quality else None,
            "shared": Overlap(self.eval_texts) if self.eval_texts is not None else None,
            "signature": Signing() if self.config.near_duplicates else None,
        }
        asked = {name: reader for name, reader in readers.items() if reader is not None}
        for some in batches(chunks):
            batch = Batch(some)
            measures = [one for chunk in some if (one := measuring.read(chunk))]
            findings = zip(*(reader.read(batch) for reader in asked.values()), strict=True) if asked else ()
            for one, finding in zip(measures, findings or [()] * len(measures), strict=True):
                yield one._replace(**dict(zip(asked, finding, strict=True)))


def judged(
    measures: Iterable[Measure], config: CorpusConfig, held_out: Collection[bytes], kept: NearDuplicates
) -> Iterator[Measure]:
    """Every document with the rule that drops it, if one does; streams share `kept`, so that none copies another."""
    if not config.clean:
        return clean.drop_held_out(measures, held_out)
    measures = clean.drop_repeats(clean.drop_junk(clean.drop_empty(measures)))
    measures = clean.drop_shared(clean.drop_held_out(measures, held_out))
    return clean.drop_near_duplicates(measures, kept) if config.near_duplicates else measures


def marked(pieces: Iterable[Document], touched: Iterable[int]) -> Iterator[Document]:
    """Every piece with `changed` as its document was found to be."""
    begins, flags, flag = True, iter(touched), 0
    for piece in pieces:
        flag = next(flags) if begins else flag
        begins = piece.ends
        yield piece._replace(changed=bool(flag))
