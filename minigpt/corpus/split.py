"""Which documents are held out: decided once, by hash, so that no text stands on both sides.

The side of a document hangs on its own text (or key), not on its place or its neighbours: new documents
move none of the old ones.
"""

import hashlib
from collections.abc import Iterable, Iterator

from minigpt.corpus.clean import Measure
from minigpt.corpus.document import Document
from minigpt.corpus.report import CleanReport, Kept

HELD_OUT = 0.05     # of the documents, where there are several
FIRST_PART = 0.9    # of a lone document is trained on; nanoGPT cuts there too, so losses can be compared

DROPPED, TRAIN, VAL = range(3)  # the side of a document: one byte each is all that stays in memory
Sides = bytearray


def draw(document: Measure) -> float:
    """A number in [0, 1) that only the document's key, or else its text, decides."""
    key = document.key.encode()
    digest = hashlib.blake2b(key, digest_size=8).digest() if key else document.digest[:8]
    return int.from_bytes(digest, "big") / 2**64


def split_by_hash(documents: Iterable[Measure], report: CleanReport) -> Sides:
    """Hold out the documents that draw less than HELD_OUT, and count all of them in an empty report.

    Few documents can all fall on one side. Then those with the lowest draw change over (several, if their
    texts or keys are equal); documents that all draw the same stay together, to be trained on.
    """
    sides = Sides()
    lowest, tied = 1.0, list[tuple[int, Measure]]()
    for index, document in enumerate(documents):
        if document.rule:
            sides.append(DROPPED)
            report.drop(document.rule, document.name, document.bytes, document.shown)
            continue
        drawn = draw(document)
        sides.append(VAL if drawn < HELD_OUT else TRAIN)
        (report.val if drawn < HELD_OUT else report.train).add(document.characters, document.bytes)
        if drawn < lowest:
            lowest, tied = drawn, []
        if drawn == lowest:
            tied.append((index, document))
    if not report.train.documents:
        change_over(tied, sides, TRAIN, report.val, report.train)
    elif not report.val.documents and len(tied) < report.train.documents:
        change_over(tied, sides, VAL, report.train, report.val)
    return sides


def change_over(documents: list[tuple[int, Measure]], sides: Sides, side: int, old: Kept, new: Kept) -> None:
    for index, document in documents:
        sides[index] = side
        old.remove(document.characters, document.bytes)
        new.add(document.characters, document.bytes)


def put_all(documents: Iterable[Measure], side: int, report: CleanReport) -> Sides:
    """Put every document that is kept on one side."""
    sides = Sides()
    for document in documents:
        sides.append(DROPPED if document.rule else side)
        if document.rule:
            report.drop(document.rule, document.name, document.bytes, document.shown)
        else:
            (report.val if side == VAL else report.train).add(document.characters, document.bytes)
    return sides


def select(pieces: Iterable[Document], sides: Sides, side: int) -> Iterator[Document]:
    """The pieces of the documents on one side.

    Raises: ValueError if these are not as many documents as were split.
    """
    index = 0
    for piece in pieces:
        if index < len(sides) and sides[index] == side:
            yield piece
        index += piece.ends
    if index != len(sides):
        raise ValueError(
            f"the data had {len(sides):,} documents when it was split and has {index:,} now: "
            "something writes to it. Start again when it has finished."
        )


def before(pieces: Iterable[Document], characters: int) -> Iterator[Document]:
    """The first characters of a lone document."""
    for piece in pieces:
        last = len(piece.text) >= characters
        yield piece._replace(text=piece.text[:characters], ends=last)
        if last:
            return
        characters -= len(piece.text)


def after(pieces: Iterable[Document], characters: int) -> Iterator[Document]:
    """What `before` leaves."""
    for piece in pieces:
        if len(piece.text) > characters:
            yield piece._replace(text=piece.text[characters:])
        characters = max(0, characters - len(piece.text))
