"""The corpus of a run: read, cleaned, split. This is the door the training comes through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from minigpt.corpus.clean import Measure, drop_empty, drop_held_out, drop_repeats, measure, normalise
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport, Kept
from minigpt.corpus.sources import Reader, open_source
from minigpt.corpus.split import FIRST_PART, TRAIN, VAL, after, before, put_all, select, split_by_hash


@dataclass(frozen=True)
class Corpus:
    """Two streams of documents that have no text in common. Each call begins again at the first document."""

    train: Callable[[], Iterator[Document]]
    val: Callable[[], Iterator[Document]]
    report: CleanReport


def open_corpus(config: CorpusConfig) -> Corpus:
    """Read everything once, to see what is kept and on which side; the streams then read it again.

    Two passes instead of one keep only a few bytes of each document in memory, however large the corpus.
    Raises: ValueError if nothing is left, or one side is empty; whatever `open_source` raises.
    """
    report = CleanReport()
    corpus = with_own_share(config, report) if config.val_data is None else with_val_data(config, report)
    dropped = sum(rule.documents for rule in report.dropped.values())
    why = f" ({dropped:,} documents were dropped: {', '.join(report.dropped)})" if dropped else ""
    if not report.train.characters:
        raise ValueError(f"--data {config.data} has no text to train on{why}; give it more text")
    if not report.val.characters:
        spec = config.val_data or config.data
        raise ValueError(f"{spec} has no text to hold out{why}; name some with --val-data")
    return corpus


def describe(config: CorpusConfig) -> str:
    """What `python -m minigpt corpus` prints."""
    return f"corpus: {config.data}\n{open_corpus(config).report}"


@dataclass(frozen=True)
class Stream:
    """A source as the run reads it. Nothing is dropped yet: what is, only a whole pass can tell."""

    source: Reader
    clean: bool

    def pieces(self, report: CleanReport | None = None) -> Iterator[Document]:
        documents = self.source(report or CleanReport())
        return normalise(documents) if self.clean else documents

    def measures(self, report: CleanReport) -> Iterator[Measure]:
        measures = measure(self.pieces(report))
        return drop_repeats(drop_empty(measures)) if self.clean else measures


def with_own_share(config: CorpusConfig, report: CleanReport) -> Corpus:
    """Hold out some documents of the data; the last tenth, where there is only one."""
    stream = Stream(open_source(config.data), config.clean)
    sides = split_by_hash(stream.measures(report), report)

    def train() -> Iterator[Document]:
        return select(stream.pieces(), sides, TRAIN)

    def val() -> Iterator[Document]:
        return select(stream.pieces(), sides, VAL)

    if report.train.documents != 1 or report.val.documents:
        return Corpus(train, val, report)
    cut = int(FIRST_PART * report.train.characters)
    corpus = Corpus(lambda: before(train(), cut), lambda: after(train(), cut), report)
    report.train, report.val = Kept.of(corpus.train()), Kept.of(corpus.val())
    return corpus


def with_val_data(config: CorpusConfig, report: CleanReport) -> Corpus:
    """Hold out --val-data wholly, and train on what --data has besides."""
    assert config.val_data is not None, "with_val_data needs --val-data"
    data, val_data = (Stream(open_source(spec), config.clean) for spec in (config.data, config.val_data))
    held_out: set[bytes] = set()

    def remembered() -> Iterator[Measure]:
        for document in val_data.measures(report):
            held_out.add(document.digest)
            yield document

    val_sides = put_all(remembered(), VAL, report)
    train_sides = put_all(drop_held_out(data.measures(report), held_out), TRAIN, report)
    return Corpus(
        lambda: select(data.pieces(), train_sides, TRAIN),
        lambda: select(val_data.pieces(), val_sides, VAL),
        report,
    )
