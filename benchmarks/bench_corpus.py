"""How fast is the cleaning of a corpus, and how much of what it looks for does it find? Rows of Markdown.

    python -m benchmarks.bench_corpus --data PATH [--eval-data PATH]   every step alone, then all: CPU time, one core
    python -m benchmarks.bench_corpus --what processes --data PATH [--workers 2]   wall time, needs idle cores
    python -m benchmarks.bench_corpus --what copies [--planted 20000] [--seed 1]
    python -m benchmarks.bench_corpus --what personal [--planted 20000] [--seed 1]

Documents are read into memory first, so that a step's time is its own; "open_corpus" and "the whole chain" read
from disk: lines are counted, then documents judged, then the kept ones streamed. MB are 10**6 bytes of UTF-8 text.
"""

import os
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.planted_corpus import MAKERS, copies, personal
from minigpt import config
from minigpt.corpus import clean
from minigpt.corpus.boilerplate import LineCounts, find_lines, remove_boilerplate
from minigpt.corpus.chunks import batches, recut
from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.controls import remove_controls
from minigpt.corpus.document import Document
from minigpt.corpus.near_duplicates import NearDuplicates, Signing
from minigpt.corpus.overlap import EvalTexts, Overlap
from minigpt.corpus.personal import find_personal, mask_personal
from minigpt.corpus.quality import Quality, Thresholds
from minigpt.corpus.read import open_corpus
from minigpt.corpus.report import CleanReport
from minigpt.corpus.sources import read_documents
from minigpt.corpus.words import Batch

USAGE = "python -m benchmarks.bench_corpus [--what steps|processes|copies|personal] [--data PATH]"


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    what: Literal["steps", "processes", "copies", "personal"] = "steps"  # two of speed, two of what is found
    data: str = "python"         # what to clean: anything that train.py's --data takes
    eval_data: str | None = None  # evaluation texts to look for; none: the last hundredth of the data
    rounds: int = 3              # of each step; the fastest counts
    workers: int = 2             # processes that are compared with one
    planted: int = 20_000        # documents, half of them copies, or lines, half of them with personal data
    seed: int = 1                # of what is planted


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
    lines = LineCounts.of(find_lines(chunks))
    held = chunks[-max(1, len(chunks) // 100) :]
    texts = EvalTexts(map(Batch, batches(recut(read_documents(settings.eval_data)) if settings.eval_data else held)))
    signing = Signing()
    signatures = [one for some in batches(chunks) for one in signing.read(Batch(some))]
    yield "read", lambda: list(read_documents(settings.data))
    yield "recut", lambda: list(recut(chunks))
    yield "controls", lambda: list(remove_controls(chunks, report))
    yield "normalise", lambda: list(clean.normalise(chunks))
    yield "count lines", lambda: LineCounts.of(find_lines(chunks))
    yield "boilerplate", lambda: list(remove_boilerplate(chunks, lines, report))
    yield "personal data", lambda: list(mask_personal(chunks, report))
    yield "measure", lambda: list(clean.measure(chunks))
    yield "words", lambda: read_batches(chunks)
    yield "words, quality", lambda: read_batches(chunks, lambda: Quality(Thresholds()))
    yield "words, overlap", lambda: read_batches(chunks, lambda: Overlap(texts))
    yield "words, signature", lambda: read_batches(chunks, Signing)
    yield "search", lambda: search(signatures)


def run(settings: CorpusConfig, workers: int = 1) -> None:
    """Everything, as a training run would do it."""
    corpus = open_corpus(settings, workers)
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


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def time_steps(asked: BenchConfig, settings: CorpusConfig) -> None:
    chunks = list(clean.normalise(recut(read_documents(asked.data))))
    size = sum(len(chunk.text.encode()) for chunk in chunks)
    documents = sum(chunk.ends for chunk in chunks)
    print(f"{asked.data}: {size / 1e6:.1f} MB in {documents:,} documents; CPU time, best of {asked.rounds}\n")
    row("step", "MB/s", "ns a byte")
    row("---", "---:", "---:")
    named = list(steps(chunks, settings))
    named += [("open_corpus", lambda: open_corpus(settings)), ("the whole chain", lambda: run(settings))]
    for name, work in named:
        seconds = cpu_seconds(work, asked.rounds)
        row(name, f"{size / 1e6 / seconds:.1f}", f"{seconds / size * 1e9:.1f}")


def cpu_of(whom: int) -> float:
    used = resource.getrusage(whom)
    return used.ru_utime + used.ru_stime


def time_processes(asked: BenchConfig, settings: CorpusConfig) -> None:
    """The whole chain by one process and by several, in turns; what this one does itself is what cannot be shared."""
    size = open_corpus(settings).report.read.bytes
    print(f"{asked.data}: {size / 1e6:.1f} MB; median of {asked.rounds}, load {os.getloadavg()[0]:.1f}\n")
    row("workers", "wall, s", "MB/s", "CPU of this process, s", "CPU of workers, s")
    row(*["---:"] * 5)
    taken: dict[int, list[tuple[float, float, float]]] = {1: [], asked.workers: []}
    for _ in range(asked.rounds):
        for workers, seconds in taken.items():
            before = (time.perf_counter(), cpu_of(resource.RUSAGE_SELF), cpu_of(resource.RUSAGE_CHILDREN))
            run(settings, workers)
            after = (time.perf_counter(), cpu_of(resource.RUSAGE_SELF), cpu_of(resource.RUSAGE_CHILDREN))
            seconds.append(tuple(end - begin for begin, end in zip(before, after, strict=True)))
    for workers, seconds in taken.items():
        wall, own, others = (statistics.median(column) for column in zip(*seconds, strict=True))
        row(workers, f"{wall:.2f}", f"{size / 1e6 / wall:.1f}", f"{own:.2f}", f"{others:.2f}")


def count_copies(asked: BenchConfig) -> None:
    """Share of planted copies that are dropped, by the exact Jaccard index of each and its original."""
    planted = copies(asked.planted, asked.seed)
    kept, dropped = NearDuplicates(), []
    documents = (Document(copy.text, str(number)) for number, copy in enumerate(planted))
    signing = Signing()
    signatures = (one for some in batches(recut(documents)) for one in signing.read(Batch(some)))
    begin = time.process_time()
    for number, signature in enumerate(signatures):
        dropped.append(kept.find(signature) is not None)
        if not dropped[-1]:
            kept.add(signature, str(number))
    rate = len(planted) / (time.process_time() - begin)
    print(f"{len(planted):,} documents, seed {asked.seed}; {rate:,.0f} a second signed and searched\n")
    row("Jaccard index", "documents", "dropped", "share", "goal")
    row("---", "---:", "---:", "---:", "---")
    for low, high, goal in ((0.9, 1.01, ""), (0.8, 0.9, ""), (0.8, 1.01, ">= 0.95"), (0.6, 0.8, "either"),
                            (0.0, 0.6, "<= 0.01")):  # fmt: skip
        hits = [gone for gone, copy in zip(dropped, planted, strict=True) if low <= copy.like < high]
        name = f"{low} to {min(high, 1.0)}" if low else f"below {high}, and originals"
        row(name, f"{len(hits):,}", f"{sum(hits):,}", f"{sum(hits) / len(hits):.4f}", goal)


def count_personal(asked: BenchConfig) -> None:
    """A find is right if its kind, letters and digits are those that were planted."""
    planted, found, right = Counter[str](), Counter[str](), Counter[str]()
    for line, kind, what in personal(asked.planted, asked.seed):
        want = {(kind, written(what))} if kind else set()
        got = {(one.kind, written(line[one.start : one.end])) for one in find_personal(line)}
        for counted, some in ((planted, want), (found, got), (right, want & got)):
            counted.update(kind for kind, _ in some)
    print(f"{asked.planted:,} lines, seed {asked.seed}\n")
    row("kind", "planted", "recall (goal 0.99)", "precision (goal 0.97)")
    row("---", "---:", "---:", "---:")
    for kind in MAKERS:
        row(kind, f"{planted[kind]:,}", f"{right[kind] / planted[kind]:.4f}", f"{right[kind] / found[kind]:.4f}")


def written(text: str) -> str:
    """Letters and digits, without the "tel:" of a link."""
    return "".join(filter(str.isalnum, text)).removeprefix("tel")


def main(argv: list[str]) -> None:
    asked = config.from_command_line(BenchConfig(), argv, USAGE)
    settings = CorpusConfig(data=asked.data, eval_data=asked.eval_data, quality=True, boilerplate=True,
                            near_duplicates=True, mask_personal=True)  # fmt: skip
    if asked.what == "copies":
        count_copies(asked)
    elif asked.what == "personal":
        count_personal(asked)
    else:
        (time_steps if asked.what == "steps" else time_processes)(asked, settings)


if __name__ == "__main__":
    main(sys.argv[1:])
