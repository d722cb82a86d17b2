"""Different words and their counts, in memory and in a file: what training knows of the text."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from minigpt.runtime.whole import replacing
from minigpt.tokenizer.word_index import PADDING, Words


class WordCounts(NamedTuple):
    """Different words, in the order in which they first come, and how often each occurs."""

    data: np.ndarray     # (sum of lengths,) uint8: one word after the other
    lengths: np.ndarray  # (words,) int64
    counts: np.ndarray   # (words,) int64

    @classmethod
    def of(cls, counts: Mapping[bytes, int]) -> Self:
        lengths = np.fromiter(map(len, counts), np.int64, len(counts))
        times = np.fromiter(counts.values(), np.int64, len(counts))
        return cls(np.frombuffer(b"".join(counts), np.uint8), lengths, times)

    def words(self) -> Words:
        return Words(self.data.tobytes() + bytes(PADDING), self.lengths.cumsum() - self.lengths, self.lengths)

    def as_dict(self) -> dict[bytes, int]:
        return dict(zip(self.words().each(), self.counts.tolist(), strict=True))


class SavedCounts(NamedTuple):
    words: WordCounts
    texts: int       # how many were counted
    complete: bool   # those were all
    digest: str = "" # of their characters: other texts must not be gone on with


class CountsFile:
    """Where a training that is killed finds what it had counted. The file is whole or absent.

    Counting is what takes hours; learning merges from the counts takes seconds to minutes and, as it depends on nothing
    else, gives the same again.
    """

    def __init__(self, path: Path, pattern: str) -> None:
        self.path, self.pattern = path, pattern

    def write(self, saved: SavedCounts) -> None:
        with replacing(self.path) as aside, aside.open("wb") as file:
            facts = {"texts": saved.texts, "complete": saved.complete, "digest": saved.digest, "pattern": self.pattern}
            np.savez(file, **saved.words._asdict(), **facts)

    def read(self) -> SavedCounts | None:
        """What was saved; None if nothing was. Raises: ValueError if it is damaged, or was split otherwise."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                words = WordCounts(*(file[name] for name in WordCounts._fields))
                saved = SavedCounts(words, int(file["texts"]), bool(file["complete"]), str(file["digest"]))
                pattern = str(file["pattern"])
        except (ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} holds no counts of words ({error}): delete it to count again") from None
        if pattern != self.pattern:
            raise ValueError(
                f"{self.path} was counted with another split pattern: delete it to count again, "
                f"or train with pattern={pattern!r}"
            )
        return saved
