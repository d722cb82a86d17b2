"""Documents to one stream of tokens, and the borders between them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from minigpt.batches.shards import SHARD_TOKENS, StreamWriter
from minigpt.corpus.document import Document


class Encoder(Protocol):
    """What is needed of a tokenizer."""

    n_vocab: int
    eot_token: int | None
    fingerprint: str

    def encode_to_numpy(self, text: str) -> np.ndarray: ...


def pack(pieces: Iterable[Document], tokenizer: Encoder) -> Iterator[tuple[np.ndarray, bool]]:
    """(ids, whether they start a document) of each piece, with the end-of-text token after each document.

    Documents stand end to end in the stream, so no token of a batch is padding; what divides them is
    the end-of-text token and, on request, the attention mask.
    """
    starts = True
    for piece in pieces:
        ids = tokenizer.encode_to_numpy(piece.text)
        if piece.ends and tokenizer.eot_token is not None:
            ids = np.append(ids, np.asarray(tokenizer.eot_token, ids.dtype))
        yield ids, starts
        starts = piece.ends


def tokenize_corpus(
    pieces: Iterable[Document],
    tokenizer: Encoder,
    folder: Path,
    prefix: str,
    *,
    shard_tokens: int = SHARD_TOKENS,
    progress: bool = False,
    characters: int | None = None,
) -> list[Path]:
    """Write the tokens of a corpus as shards in `folder`; a piece of the text at a time is in memory.

    progress shows a bar, and the time left if it is told how many characters there are.
    """
    bar = tqdm(desc=f"tokenize {prefix}", total=characters, unit="ch", unit_scale=True, disable=not progress)
    writer = StreamWriter(
        folder,
        prefix,
        vocab_size=tokenizer.n_vocab,
        fingerprint=tokenizer.fingerprint,
        shard_tokens=shard_tokens,
    )

    def counted() -> Iterator[Document]:
        for piece in pieces:
            yield piece
            bar.update(len(piece.text))

    with bar, writer:
        for ids, starts_document in pack(counted(), tokenizer):
            writer.write(ids, starts_document)
    return writer.paths


def document_ids(document_starts: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """The document of each token of some windows, counted from the window's first: (B,) -> (B, length) int64.

        document[b, t] = how many documents start in (starts[b], starts[b] + t]

    document_starts: (documents,) ascending.
    """
    places = starts[:, None] + np.arange(length)                          # (B, length)
    number = np.searchsorted(document_starts, places, side="right")      # (B, length)
    return number - number[:, :1]
