"""Cleaning by several processes: whole documents go out by the megabyte, and come back in their order.

Whatever looks at one document alone gives the same wherever it does so. Only a document too long to be sent is
worked on here, as it streams by.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TypeVar

from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport
from minigpt.runtime.workers import in_order

JOB = 1 << 20   # characters: what they take to clean is fifty times what they take to send
LONG = 1 << 23  # characters from which a document that comes in pieces is not sent: it would have to be held whole

Found = TypeVar("Found")
Work = Callable[[Iterable[Document], CleanReport], Iterable[Found]]
Job = tuple[Iterator[Document], list[Document] | None]  # (what is worked on here, or else what is sent)


def by_document(work: Work[Found], pieces: Iterable[Document], report: CleanReport, workers: int) -> Iterator[Found]:
    """work(pieces, report), for a work that finds the same in a document whatever comes before and after it."""
    if workers == 1:
        yield from work(pieces, report)
        return
    for here, found in in_order(partial(one_job, work), jobs(iter(pieces)), workers):
        if found is None:
            yield from work(here, report)
        else:
            results, counted = found
            report.include(counted)
            yield from results


def one_job(work: Work[Found], pieces: list[Document]) -> tuple[list[Found], CleanReport]:
    report = CleanReport()
    return list(work(pieces, report)), report


def jobs(pieces: Iterator[Document]) -> Iterator[Job]:
    """Documents by the JOB. A long one comes alone, to be read to its end before another job is asked for."""
    job: list[Document] = []
    held = whole = 0  # characters in the job, and how many of its pieces belong to documents that have ended
    for piece in pieces:
        job.append(piece)
        held += len(piece.text)
        if piece.ends:
            whole = len(job)
        if held >= (JOB if piece.ends else LONG):
            if whole:
                yield iter(()), job[:whole]
            if whole < len(job):
                yield chain(job[whole:], to_the_end(pieces)), None
            job, held, whole = [], 0, 0
    if job:
        yield iter(()), job


def to_the_end(pieces: Iterator[Document]) -> Iterator[Document]:
    """The rest of a document."""
    for piece in pieces:
        yield piece
        if piece.ends:
            return
