"""What is not worth reading, and one spelling for the rest."""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from minigpt.corpus.document import Document
from minigpt.corpus.near_duplicates import NearDuplicates
from minigpt.corpus.report import SHOWN

OPENING = 2 * SHOWN  # characters of a document that an example of it is made of


def normalise(pieces: Iterable[Document]) -> Iterator[Document]:
    """One spelling for what looks the same: Unicode NFC, line ends LF, no byte-order mark."""
    begins = True
    for piece in pieces:
        text = piece.text.removeprefix("\ufeff") if begins else piece.text
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        begins = piece.ends
        yield piece._replace(text=unicodedata.normalize("NFC", text))


class Measure(NamedTuple):
    """What is remembered of a document that was read: never its text."""

    name: str
    key: str
    characters: int
    bytes: int
    blank: bool
    digest: bytes    # equal exactly where the texts are
    rule: str = ""   # the rule that drops it; "" keeps it
    shown: str = ""  # its first characters, or what a rule found: an example for the report
    changed: bool = False  # whether a piece of it was
    junk: str = ""   # the first rule of quality that it falls to; these three are left empty unless asked for
    shared: str = "" # what it shares with the evaluation texts
    signature: bytes = b""  # for the search of near-duplicates; empty where there are no words


class Measuring:
    """One document after another, piece by piece."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.digest, self.characters, self.bytes = hashlib.blake2b(digest_size=16), 0, 0
        self.blank, self.rule, self.shown, self.changed = True, "", "", False

    def read(self, piece: Document) -> Measure | None:
        """The measure of a document, at its last piece."""
        try:
            encoded = piece.text.encode("utf-8")
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which is no character
            encoded, self.rule = b"", "not-utf-8"
        self.digest.update(encoded)
        self.characters += len(piece.text)
        self.bytes += len(encoded)
        self.blank = self.blank and not piece.text.strip()
        self.changed = self.changed or piece.changed
        if len(self.shown) < OPENING:
            self.shown += piece.text[: OPENING - len(self.shown)]
        if not piece.ends:
            return None
        size = (self.characters, self.bytes, self.blank)
        one = Measure(piece.name, piece.key, *size, self.digest.digest(), self.rule, self.shown, self.changed)
        self._begin()
        return one


def measure(pieces: Iterable[Document]) -> Iterator[Measure]:
    """Read documents piece by piece and measure each at its end."""
    measuring = Measuring()
    yield from (one for piece in pieces if (one := measuring.read(piece)))


def drop_empty(measures: Iterable[Measure]) -> Iterator[Measure]:
    for one in measures:
        yield one._replace(rule="empty") if one.blank and not one.rule else one


def drop_repeats(measures: Iterable[Measure]) -> Iterator[Measure]:
    """Keep the first of equal texts. Sixteen bytes of each stay in memory, whatever its length."""
    seen: set[bytes] = set()
    for one in measures:
        yield one._replace(rule="duplicate") if one.digest in seen and not one.rule else one
        seen.add(one.digest)


def drop_held_out(measures: Iterable[Measure], held_out: Collection[bytes]) -> Iterator[Measure]:
    """Drop every text whose digest is among the held-out ones: to train on it would fake a low loss."""
    for one in measures:
        yield one._replace(rule="in-val") if one.digest in held_out and not one.rule else one


def drop_junk(measures: Iterable[Measure]) -> Iterator[Measure]:
    """Drop what a rule of quality found to be junk."""
    for one in measures:
        yield one._replace(rule=one.junk) if one.junk and not one.rule else one


def drop_shared(measures: Iterable[Measure]) -> Iterator[Measure]:
    """Drop what stands in the evaluation texts: to have read the answers is no skill."""
    for one in measures:
        yield one._replace(rule="in-eval", shown=one.shared) if one.shared and not one.rule else one


def drop_near_duplicates(measures: Iterable[Measure], kept: NearDuplicates) -> Iterator[Measure]:
    """Keep the first of nearly equal texts, among those that no other rule dropped."""
    for one in measures:
        if one.rule or not one.signature:
            yield one
        elif (twin := kept.find(one.signature)) is not None:
            yield one._replace(rule="near-duplicate", shown=f"like {twin}: {one.shown}")
        else:
            kept.add(one.signature, one.name)
            yield one
