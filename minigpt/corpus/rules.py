"""All that cleaning does, in its order: what changes a text, what is found in it, what drops it.

    controls -> normalise -> boilerplate -> personal data      a stream of chunks
    quality, evaluation overlap, signature                     findings of each document
    empty, junk, duplicate, in-val, in-eval, near-duplicate    the first that applies drops it

Boilerplate and evaluation texts are read before, for themselves.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from minigpt.corpus import clean
from minigpt.corpus.boilerplate import LineCounts, remove_boilerplate
from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.clean import Measure, Measuring
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.controls import remove_controls
from minigpt.corpus.document import Document
from minigpt.corpus.near_duplicates import NearDuplicates, Signing
from minigpt.corpus.overlap import EvalTexts, Overlap
from minigpt.corpus.personal import mask_personal
from minigpt.corpus.quality import Quality, Thresholds
from minigpt.corpus.report import CleanReport
from minigpt.corpus.words import Batch


@dataclass
class Cleaning:
    """What cleans all streams of one corpus alike: the settings, and what earlier readings found."""

    config: CorpusConfig
    lines: LineCounts | None = None       # of the whole corpus; None: boilerplate stays
    eval_texts: EvalTexts | None = None
    kept: NearDuplicates | None = None    # shared by the streams, so that none copies another

    def spelled(self, pieces: Iterable[Document], report: CleanReport) -> Iterator[Document]:
        """The text in one spelling. Beyond `clean`, in chunks, which nothing but the text decides."""
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

    def changed_again(self, pieces: Iterable[Document], touched: Iterable[int]) -> Iterator[Document]:
        """The same once more; a document in which nothing was found is not searched a second time."""
        unseen, flags = CleanReport(), iter(touched)  # all was counted at the first time
        chunks = marked(self.spelled(pieces, unseen), flags)
        for found, some in groupby(chunks, key=itemgetter(0)):
            same = (chunk for _, chunk in some)
            yield from self._edited(same, unseen) if found else same

    def _edited(self, chunks: Iterator[Document], report: CleanReport) -> Iterator[Document]:
        if self.lines is not None:
            chunks = remove_boilerplate(chunks, self.lines, report)
        return mask_personal(chunks, report) if self.config.mask_personal else chunks

    def judged(self, chunks: Iterable[Document], held_out: Collection[bytes]) -> Iterator[Measure]:
        """Every document of a stream of changed chunks, with the rule that drops it, if one does."""
        if not self.config.clean:
            return clean.drop_held_out(clean.measure(chunks), held_out)
        measures = self.found(chunks) if self.config.cleaning else clean.measure(chunks)
        measures = clean.drop_repeats(clean.drop_junk(clean.drop_empty(measures)))
        measures = clean.drop_shared(clean.drop_held_out(measures, held_out))
        return measures if self.kept is None else clean.drop_near_duplicates(measures, self.kept)

    def found(self, chunks: Iterable[Document]) -> Iterator[Measure]:
        """The measures of a stream with what the rules of this chapter find in each document."""
        measuring = Measuring()
        readers = {
            "junk": Quality(Thresholds()) if self.config.quality else None,
            "shared": Overlap(self.eval_texts) if self.eval_texts is not None else None,
            "signature": Signing() if self.kept is not None else None,
        }
        asked = {name: reader for name, reader in readers.items() if reader is not None}
        for some in batches(chunks):
            batch = Batch(some)
            measures = [one for chunk in some if (one := measuring.read(chunk))]
            findings = zip(*(reader.read(batch) for reader in asked.values()), strict=True) if asked else ()
            for one, finding in zip(measures, findings or [()] * len(measures), strict=True):
                yield one._replace(**dict(zip(asked, finding, strict=True)))


def marked(chunks: Iterable[Document], flags: Iterator[int]) -> Iterator[tuple[int, Document]]:
    """Every chunk with the flag of its document."""
    begins, flag = True, 0
    for chunk in chunks:
        flag = next(flags) if begins else flag
        begins = chunk.ends
        yield flag, chunk
