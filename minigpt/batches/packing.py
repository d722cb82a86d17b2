"""Documents to one stream of tokens, and the borders between them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from minigpt.batches.shards import SHARD_TOKENS, StreamWriter
from minigpt.corpus.document import Document
from minigpt.runtime.workers import in_order

TOGETHER = 1 << 21   # characters encoded in one call: short documents cost a third of what they cost alone
WORTH_IT = 1 << 24   # characters for each further process: starting one takes as long as encoding a few million


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    n_vocab: int
    eot_token: int | None
    fingerprint: str

    def encode_batch_to_numpy(self, texts: Iterable[str]) -> list[np.ndarray]: ...


def pack(pieces: Iterable[Document], tokenizer: Encoder, processes: int = 1) -> Iterator[tuple[np.ndarray, bool]]:
    """(ids, whether they start a document) of each piece, with the end-of-text token after each document.

    Documents stand end to end in the stream, so no token of a batch is padding; what divides them is
    the end-of-text token and, on request, the attention mask. The number of processes changes nothing.
    """
    starts = True
    groups = ((group, [piece.text for piece in group]) for group in _groups(pieces))
    for group, encoded in in_order(tokenizer.encode_batch_to_numpy, groups, processes):
        for piece, ids in zip(group, encoded, strict=True):
            if piece.ends and tokenizer.eot_token is not None:
                ids = np.append(ids, np.asarray(tokenizer.eot_token, ids.dtype))
            yield ids, starts
            starts = piece.ends


def _groups(pieces: Iterable[Document]) -> Iterator[list[Document]]:
    group, characters = [], 0
    for piece in pieces:
        group.append(piece)
        characters += len(piece.text)
        if characters >= TOGETHER:
            yield group
            group, characters = [], 0
    if group:
        yield group


def tokenize_corpus(
    pieces: Iterable[Document],
    tokenizer: Encoder,
    folder: Path,
    prefix: str,
    *,
    shard_tokens: int = SHARD_TOKENS,
    progress: bool = False,
    characters: int | None = None,
    processes: int = 1,
    resume: bool = False,
) -> list[Path]:
    """Write the tokens of a corpus as shards in `folder`; a few million characters at a time are in memory.

    progress shows a bar, and the time left if it is told how many characters there are. Of `processes`, only as many
    are started as so many characters are worth. resume goes on behind the full shards of an interrupted call with the
    same pieces; the bytes are those of a call in peace.
    """
    bar = tqdm(desc=f"tokenize {prefix}", total=characters, unit="ch", unit_scale=True, disable=not progress)
    writer = StreamWriter(
        folder,
        prefix,
        vocab_size=tokenizer.n_vocab,
        fingerprint=tokenizer.fingerprint,
        shard_tokens=shard_tokens,
        resume=resume,
    )
    if characters is not None:
        processes = min(processes, 1 + characters // WORTH_IT)

    def counted() -> Iterator[Document]:
        for piece in pieces:
            yield piece
            bar.update(len(piece.text))

    with bar, writer:
        again = writer.begun > 0             # the last document found is encoded again, and not written again
        written = writer.tokens_of_last
        for ids, starts_document in pack(_without_first(counted(), writer.begun - 1), tokenizer, processes):
            writer.write(ids[written:], starts_document and not again)
            again, written = False, max(0, written - len(ids))
    return writer.paths


def _without_first(pieces: Iterable[Document], documents: int) -> Iterator[Document]:
    """The pieces behind so many documents."""
    for piece in pieces:
        if documents <= 0:
            yield piece
        documents -= piece.ends


def document_ids(document_starts: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """The document of each token of some windows, counted from the window's first: (B,) -> (B, length) int64.

        document[b, t] = how many documents start in (starts[b], starts[b] + t]

    document_starts: (documents,) ascending.
    """
    places = starts[:, None] + np.arange(length)                          # (B, length)
    number = np.searchsorted(document_starts, places, side="right")      # (B, length)
    return number - number[:, :1]
