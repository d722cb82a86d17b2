"""How fast is the cleaning of a corpus? Every step alone, then all of it, in CPU time on one core.

    python -m benchmarks.bench_corpus --data PATH [--eval-data PATH]

Documents are read into memory first, so that a step's time is its own; "open_corpus" and "the whole chain" read
from disk: lines are counted, then documents judged, then the kept ones streamed. MB are 10**6 bytes of UTF-8 text.
"""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minigpt import config
from minigpt.corpus import clean
from minigpt.corpus.boilerplate import LineCounts, remove_boilerplate
from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.controls import remove_controls
from minigpt.corpus.document import Document
from minigpt.corpus.near_duplicates import NearDuplicates, Signing
from minigpt.corpus.overlap import EvalTexts, Overlap
from minigpt.corpus.personal import mask_personal
from minigpt.corpus.quality import Quality, Thresholds
from minigpt.corpus.read import open_corpus
from minigpt.corpus.report import CleanReport
from minigpt.corpus.sources import read_documents
from minigpt.corpus.words import Batch

USAGE = "python -m benchmarks.bench_corpus --data PATH [--eval-data PATH]"


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    data: str = "python"         # what to clean: anything that train.py's --data takes
    eval_data: str | None = None  # evaluation texts to look for; none: the last hundredth of the data
    rounds: int = 3              # of each step; the fastest counts


def read_batches(chunks: list[Document], *readers: Callable[[], object]) -> None:
    """Words, and on top of them what the readers find."""
    made = [reader() for reader in readers]
    for some in batches(chunks):
        batch = Batch(some)
        _ = batch.word_hashes
        for reader in made:
            reader.read(batch)


def search(signatures: list[bytes]) -> None:
    kept = NearDuplicates()
    for number, signature in enumerate(signatures):
        if signature and kept.find(signature) is None:
            kept.add(signature, str(number))


def steps(chunks: list[Document], settings: CorpusConfig) -> Iterable[tuple[str, Callable[[], object]]]:
    """(name, what to time); the findings include the words that they share, so each says what it costs alone."""
    report = CleanReport()
    lines = LineCounts.of(chunks)
    held = chunks[-max(1, len(chunks) // 100) :]
    texts = EvalTexts(map(Batch, batches(recut(read_documents(settings.eval_data)) if settings.eval_data else held)))
    signing = Signing()
    signatures = [one for some in batches(chunks) for one in signing.read(Batch(some))]
    yield "read", lambda: list(read_documents(settings.data))
    yield "recut", lambda: list(recut(chunks))
    yield "controls", lambda: list(remove_controls(chunks, report))
    yield "normalise", lambda: list(clean.normalise(chunks))
    yield "count lines", lambda: LineCounts.of(chunks)
    yield "boilerplate", lambda: list(remove_boilerplate(chunks, lines, report))
    yield "personal data", lambda: list(mask_personal(chunks, report))
    yield "measure", lambda: list(clean.measure(chunks))
    yield "words", lambda: read_batches(chunks)
    yield "words, quality", lambda: read_batches(chunks, lambda: Quality(Thresholds()))
    yield "words, overlap", lambda: read_batches(chunks, lambda: Overlap(texts))
    yield "words, signature", lambda: read_batches(chunks, Signing)
    yield "search", lambda: search(signatures)


def run(settings: CorpusConfig) -> None:
    """Everything, as a training run would do it."""
    corpus = open_corpus(settings)
    for side in (corpus.train, corpus.val):
        for _ in side():
            pass


def cpu_seconds(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main(argv: list[str]) -> None:
    asked = config.from_command_line(BenchConfig(), argv, USAGE)
    settings = CorpusConfig(data=asked.data, eval_data=asked.eval_data or asked.data, quality=True, boilerplate=True,
                            near_duplicates=True, mask_personal=True)  # fmt: skip
    chunks = list(clean.normalise(recut(read_documents(asked.data))))
    size = sum(len(chunk.text.encode()) for chunk in chunks)
    documents = sum(chunk.ends for chunk in chunks)
    print(f"{asked.data}: {size / 1e6:.1f} MB in {documents:,} documents; CPU time of one core, best of {asked.rounds}")
    for name, work in steps(chunks, settings):
        seconds = cpu_seconds(work, asked.rounds)
        print(f"{name:<20}{size / 1e6 / seconds:>10.1f} MB/s{seconds / size * 1e9:>10.1f} ns a byte", flush=True)
    settings = config.replace(settings, {("eval_data",): asked.eval_data})
    for name, work in (("open_corpus", open_corpus), ("the whole chain", run)):
        seconds = cpu_seconds(lambda work=work: work(settings), asked.rounds)
        print(f"{name:<20}{size / 1e6 / seconds:>10.1f} MB/s{seconds / size * 1e9:>10.1f} ns a byte", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
