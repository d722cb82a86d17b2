"""The text of files, in pieces that may be counted as if each were a text: of one with seams, little is held."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from minigpt.tokenizer.patterns import Splitter

BLOCK = 1 << 22  # bytes


def read_files(
    paths: Iterable[str | Path], pattern: str, errors: Literal["strict", "replace"] = "strict"
) -> Iterator[str]:
    """The files' text, one file after the other, cut only where `pattern` cuts whatever the context.

    By a pattern that is not known here nothing says where that is: then each file is one piece.

    Raises: ValueError at the first byte that is not UTF-8, unless errors="replace" makes it U+FFFD.
    """
    if errors not in ("strict", "replace"):
        raise ValueError(f'errors={errors!r} is unknown: choose "strict" or "replace"')
    splitter = Splitter(pattern)
    for path in map(Path, paths):
        held, length, enough = [], 0, BLOCK
        for block in _decoded(path, errors):
            held.append(block)
            length += len(block)
            if length >= enough:
                *pieces, rest = splitter.pieces("".join(held))
                yield from pieces
                held, length = [rest], len(rest)
                enough = max(BLOCK, 2 * length)  # a file without seams is not copied again for every block
        yield from splitter.pieces("".join(held))


def _decoded(path: Path, errors: str) -> Iterator[str]:
    """The text in blocks, line ends untouched."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    consumed = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield _decode(decoder, block, consumed, path)
            consumed += len(block)
    yield _decode(decoder, b"", consumed, path)


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, consumed: int, path: Path) -> str:
    pending = len(decoder.getstate()[0])  # the first bytes of a character cut by the last block
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte {consumed - pending + error.start:,} ({error.reason}). Save it as UTF-8, "
            'or replace such bytes with errors="replace"'
        ) from None
