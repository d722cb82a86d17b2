"""A stream of tokens over several shards: written all or nothing, read as one long array."""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from minigpt.batches.shard_file import CURE, Shard, ShardWriter, read_shard
from minigpt.runtime.whole import sync
from minigpt.tokenizer.arrays import id_type

SHARD_TOKENS = 100_000_000  # 200 MB with two bytes a token: few files, and none too large to copy


class StreamWriter:
    """Writes a stream as `<prefix>-00000-of-00002.bin`, ...; under hidden names until all of it is on disk.

    As a context manager: an error, also a full disk, removes what was written and leaves an older stream of the same
    prefix untouched. With `resume`, whatever is neither the disk's nor the text's fault leaves the shards that were
    full, and these are found and gone on from: for a caller who knows that they were made of the same documents.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        *,
        vocab_size: int,
        fingerprint: str,
        shard_tokens: int = SHARD_TOKENS,
        resume: bool = False,
    ) -> None:
        self.folder, self.prefix, self.resume = Path(folder), prefix, resume
        self.fingerprint, self.shard_tokens = fingerprint, shard_tokens
        self.dtype = np.dtype(id_type(vocab_size))
        self.hidden: list[Path] = []
        self.paths: list[Path] = []  # the finished shards, once the context has ended
        self.begun = 0               # documents in the shards that were found
        self.tokens_of_last = 0      # how many tokens of the last of them

    def write(self, ids: np.ndarray, starts_document: bool = True) -> None:
        """Append ids, as a new document or as more of the last one; a shard that is full ends."""
        with naming_the_folder(self.folder):
            while self.writer.tokens + len(ids) > self.shard_tokens:
                room = self.shard_tokens - self.writer.tokens
                self.writer.write(ids[:room], starts_document and room > 0)
                ids, starts_document = ids[room:], starts_document and room == 0
                self.writer.close()
                self._open_next()
            self.writer.write(ids, starts_document)

    def _open_next(self) -> None:
        number = len(self.hidden)
        self.hidden.append(self.folder / f".{self.prefix}-{number:05}.tmp")
        self.writer = ShardWriter(self.hidden[-1], self.fingerprint, self.dtype, number)

    def __enter__(self) -> Self:
        with naming_the_folder(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            found = self._full_shards() if self.resume else []
            for path in set(self.folder.glob(f".{self.prefix}-*.tmp")) - set(found):
                path.unlink()
            self.hidden = found
            self._open_next()
        return self

    def _full_shards(self) -> list[Path]:
        """Shards that an interrupted writer has completed, up to the first that is not whole."""
        found: list[Path] = []
        tokens = last_start = 0
        for path in sorted(self.folder.glob(f".{self.prefix}-*.tmp")):
            try:
                shard = read_shard(path, self.fingerprint)
            except ValueError:
                break
            if shard.number != len(found) or len(shard.tokens) != self.shard_tokens:
                break
            found.append(path)
            if len(shard.document_starts):
                last_start = tokens + int(shard.document_starts[-1])
            tokens += len(shard.tokens)
            self.begun += len(shard.document_starts)
        self.tokens_of_last = tokens - last_start
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with naming_the_folder(self.folder):
                    self.writer.close()
                    self._show()
        finally:
            self.writer.abandon()
            # full shards stay for whoever resumes, unless the disk is full or the text is at fault
            stopped = self.resume and kind is not None and not issubclass(kind, OSError | ValueError)
            for path in self.hidden[-1:] if stopped else self.hidden:
                path.unlink(missing_ok=True)

    def _show(self) -> None:
        """Give the shards their names. The older stream goes first: a crash in between leaves one that is
        visibly incomplete, never one mixed from two.
        """
        for path in self.folder.glob(f"{self.prefix}-*-of-*.bin"):
            path.unlink()
        for number, path in enumerate(self.hidden):
            self.paths.append(self.folder / f"{self.prefix}-{number:05}-of-{len(self.hidden):05}.bin")
            os.replace(path, self.paths[-1])
        sync(self.folder)


def write_shards(
    token_arrays: Iterable[np.ndarray],
    folder: Path,
    prefix: str,
    *,
    vocab_size: int,
    fingerprint: str,
    shard_tokens: int = SHARD_TOKENS,
) -> list[Path]:
    """Write a stream of documents, one array each."""
    writer = StreamWriter(
        folder, prefix, vocab_size=vocab_size, fingerprint=fingerprint, shard_tokens=shard_tokens
    )
    with writer:
        for ids in token_arrays:
            writer.write(ids)
    return writer.paths


class TokenStream:
    """Several shards as one long array of token ids."""

    def __init__(self, shards: list[Shard]) -> None:
        # plain arrays over the mapped memory: np.memmap's own indexing is several times slower
        self.parts = [np.asarray(shard.tokens) for shard in shards]
        self.ends = list(accumulate(len(part) for part in self.parts))
        self.shards = shards

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, where: slice) -> np.ndarray:
        """The ids from where.start up to where.stop: a view, where one shard holds them all."""
        start, stop, step = where.indices(len(self))
        assert step == 1, f"a token stream is read one way, got step {step}"
        return self.read(start, stop)

    def read(self, start: int, stop: int) -> np.ndarray:
        found = []
        for number in range(bisect_right(self.ends, start), len(self.parts)):
            part = self.parts[number]
            begin = self.ends[number] - len(part)
            found.append(part[max(0, start - begin) : max(0, stop - begin)])
            if stop <= self.ends[number]:
                break
        return found[0] if len(found) == 1 else np.concatenate(found or [np.zeros(0, np.uint16)])

    def rows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """A window of the stream from each start, with zeros past its end: (B,) -> (B, length) int64."""
        rows = np.zeros((len(starts), length), np.int64)
        for row, start in zip(rows, starts.tolist(), strict=True):
            ids = self.read(start, start + length)
            row[: len(ids)] = ids
        return rows

    @cached_property
    def document_starts(self) -> np.ndarray:
        """Where documents start in the whole stream, ascending: (documents,) int64."""
        begins = [end - len(part) for end, part in zip(self.ends, self.parts, strict=True)]
        starts = [shard.document_starts.astype(np.int64) for shard in self.shards]
        return np.concatenate([start + begin for start, begin in zip(starts, begins, strict=True)])


def open_shards(folder: Path, prefix: str, fingerprint: str, vocab_size: int | None = None) -> TokenStream:
    """Open, and check, every shard of a stream.

    Raises: FileNotFoundError if there is none; ValueError if one is missing or damaged, was written by
    another tokenizer, or holds ids that a vocabulary of vocab_size does not have.
    """
    paths = sorted(Path(folder).glob(f"{prefix}-*-of-*.bin"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no shards called {prefix}-*.bin")
    shards = [read_shard(path, fingerprint) for path in paths]
    count = int(paths[0].stem.rpartition("-")[2])
    if [shard.number for shard in shards] != list(range(count)):
        raise ValueError(f"{folder} holds {len(paths)} of the {count} shards of {prefix}. {CURE}")
    for path, shard in zip(paths, shards, strict=True):
        if vocab_size is not None and shard.max_token >= vocab_size:
            raise ValueError(
                f"{path} holds token id {shard.max_token}, but the vocabulary ends at {vocab_size - 1}: "
                f"the model and the tokenizer do not belong together. {CURE}"
            )
    return TokenStream(shards)


@contextmanager
def naming_the_folder(folder: Path) -> Iterator[None]:
    """Writing to a full disk fails without saying where; the folder is what the user can change."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise
