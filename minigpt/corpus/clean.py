"""What is not worth reading, and one spelling for the rest."""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from minigpt.corpus.document import Document


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


def measure(pieces: Iterable[Document]) -> Iterator[Measure]:
    """Read documents piece by piece and measure each at its end."""
    digest, characters, size, blank, rule = hashlib.blake2b(digest_size=16), 0, 0, True, ""
    for piece in pieces:
        try:
            encoded = piece.text.encode("utf-8")
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which is no character
            encoded, rule = b"", "not-utf-8"
        digest.update(encoded)
        characters += len(piece.text)
        size += len(encoded)
        blank = blank and not piece.text.strip()
        if piece.ends:
            yield Measure(piece.name, piece.key, characters, size, blank, digest.digest(), rule)
            digest, characters, size, blank, rule = hashlib.blake2b(digest_size=16), 0, 0, True, ""


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
