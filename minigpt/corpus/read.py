"""The corpus of a run: read, cleaned, split. This is the door the training comes through."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from minigpt.corpus.boilerplate import LineCounts
from minigpt.corpus.chunks import batches
from minigpt.corpus.clean import Measure
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.document import Document
from minigpt.corpus.many import by_document
from minigpt.corpus.near_duplicates import NearDuplicates
from minigpt.corpus.overlap import RUN, EvalTexts
from minigpt.corpus.report import RULES, CleanReport, Kept
from minigpt.corpus.rules import Cleaning, judged, marked
from minigpt.corpus.sources import Reader, open_source
from minigpt.corpus.split import FIRST_PART, TRAIN, VAL, Sides, after, before, put_all, select, split_by_hash
from minigpt.corpus.words import Batch


@dataclass(frozen=True)
class Corpus:
    """Two streams of documents that have no text in common. Each call begins again at the first document."""

    train: Callable[[], Iterator[Document]]
    val: Callable[[], Iterator[Document]]
    report: CleanReport


def open_corpus(config: CorpusConfig, workers: int = 1) -> Corpus:
    """Read everything once, to see what is kept and on which side; the streams then read it again.

    Two passes instead of one keep only a few bytes of each document in memory, however large the corpus. So many
    `workers` clean a large one, if a switch asks for more than normal spelling; their number changes nothing else.
    Raises: ValueError if nothing is left, or one side is empty; whatever `open_source` raises.
    """
    report = CleanReport()
    asked = workers if config.cleaning else 1  # to send a text to a process costs as much as to spell it normally
    corpus = (with_own_share if config.val_data is None else with_val_data)(config, report, asked)
    dropped = sum(rule.documents for rule in report.dropped.values())
    rules = [rule for rule in RULES if rule in report.dropped]
    why = f" ({dropped:,} documents were dropped: {', '.join(rules)})" if dropped else ""
    if not report.train.characters:
        raise ValueError(f"--data {config.data} has no text to train on{why}; give it more text")
    if not report.val.characters:
        spec = config.val_data or config.data
        raise ValueError(f"{spec} has no text to hold out{why}; name some with --val-data")
    return corpus


def describe(config: CorpusConfig, workers: int = 1) -> str:
    """What `python -m minigpt corpus` prints."""
    return f"corpus: {config.data}\n{open_corpus(config, workers).report}"


@dataclass(frozen=True)
class Stream:
    """A source as the run reads it. Nothing is dropped yet: what is, only a whole pass can tell."""

    source: Reader
    cleaning: Cleaning
    kept: NearDuplicates
    workers: int
    touched: bytearray = field(default_factory=bytearray)  # of each document, whether cleaning changed it

    def measures(self, report: CleanReport, held_out: Collection[bytes] = ()) -> Iterator[Measure]:
        measures = by_document(self.cleaning.measured, self.source(report), report, self.workers)
        for one in judged(measures, self.cleaning.config, held_out, self.kept):
            self.touched.append(one.changed)
            yield one

    def side(self, sides: Sides, side: int) -> Iterator[Document]:
        """The documents of one side. What is on none is left out first: to clean it again would be for nothing."""
        unseen = CleanReport()  # all was counted at the first time
        touched = (flag for flag, other in zip(self.touched, sides, strict=True) if other == side)
        pieces = marked(select(self.source(unseen), sides, side), touched)
        return by_document(self.cleaning.changed_again, pieces, unseen, self.workers)


def prepare(config: CorpusConfig, sources: Iterable[Reader], workers: int) -> Cleaning:
    """The readings that must come first: of lines, to see which are boilerplate, and of the evaluation texts."""
    cleaning = Cleaning(config)
    if config.boilerplate:
        unseen = CleanReport()  # the judging pass counts the same again
        pieces = (piece for source in sources for piece in source(unseen))
        cleaning.lines = LineCounts.of(by_document(cleaning.lines_found, pieces, unseen, workers))
    if config.eval_data is not None:
        unseen = CleanReport()
        texts = Cleaning(config).changed(open_source(config.eval_data, config.errors)(unseen), unseen)
        cleaning.eval_texts = EvalTexts(map(Batch, batches(texts)))
        if not len(cleaning.eval_texts.hashes):
            raise ValueError(
                f"--eval-data {config.eval_data} has no run of {RUN} words to look for; give the evaluation texts "
                "themselves: a file, folder, glob, URL or hf:NAME with longer texts"
            )
    return cleaning


def with_own_share(config: CorpusConfig, report: CleanReport, workers: int) -> Corpus:
    """Hold out some documents of the data; the last tenth, where there is only one."""
    source = open_source(config.data, config.errors)
    stream = Stream(source, prepare(config, [source], workers), NearDuplicates(), workers)
    sides = split_by_hash(stream.measures(report), report)

    def train() -> Iterator[Document]:
        return stream.side(sides, TRAIN)

    def val() -> Iterator[Document]:
        return stream.side(sides, VAL)

    if report.train.documents != 1 or report.val.documents:
        return Corpus(train, val, report)
    cut = int(FIRST_PART * report.train.characters)
    corpus = Corpus(lambda: before(train(), cut), lambda: after(train(), cut), report)
    report.train, report.val = Kept.of(corpus.train()), Kept.of(corpus.val())
    return corpus


def with_val_data(config: CorpusConfig, report: CleanReport, workers: int) -> Corpus:
    """Hold out --val-data wholly, and train on what --data has besides."""
    assert config.val_data is not None, "with_val_data needs --val-data"
    sources = [open_source(spec, config.errors) for spec in (config.data, config.val_data)]
    cleaning, kept = prepare(config, sources, workers), NearDuplicates()
    data, val_data = (Stream(source, cleaning, kept, workers) for source in sources)
    held_out: set[bytes] = set()

    def remembered() -> Iterator[Measure]:
        for document in val_data.measures(report):
            held_out.add(document.digest)
            yield document

    val_sides = put_all(remembered(), VAL, report)
    train_sides = put_all(data.measures(report, held_out), TRAIN, report)
    return Corpus(
        lambda: data.side(train_sides, TRAIN),
        lambda: val_data.side(val_sides, VAL),
        report,
    )
