"""A document cut where only its own text decides.

Readers hand out pieces as files happen to be read. Statistics over such pieces would depend on that; over chunks
they cannot: wherever a document arrives cut, its chunks are the same. Almost every document is one chunk.
"""

from collections.abc import Iterable, Iterator

from minigpt.corpus.document import Document
from minigpt.corpus.files import pause_before

CHUNK = 1 << 18      # characters: long enough to hold nearly every document whole
MOST_CHUNKS = 4_000  # of one batch: their number must fit into twelve bits (see words.py)


def recut(pieces: Iterable[Document], size: int = CHUNK) -> Iterator[Document]:
    """The same documents in chunks of at most `size` characters, cut where a reader would pause."""
    rest: list[str] = []
    held = 0
    for piece in pieces:
        rest.append(piece.text)
        held += len(piece.text)
        if held > size or (piece.ends and len(rest) > 1):
            text = "".join(rest)
            while len(text) > size:
                cut = pause_before(text, size)
                yield piece._replace(text=text[:cut], ends=False)
                text = text[cut:]
            rest, held = [text], len(text)
        if piece.ends:
            yield piece._replace(text=rest[0])
            rest, held = [], 0


def batches(chunks: Iterable[Document], size: int = CHUNK // 2) -> Iterator[list[Document]]:
    """Chunks by the batch, of about `size` characters: short documents share the price of a numpy call."""
    batch: list[Document] = []
    held = 0
    for chunk in chunks:
        batch.append(chunk)
        held += len(chunk.text) + 1
        if held >= size or len(batch) == MOST_CHUNKS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
