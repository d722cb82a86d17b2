"""One file of tokens: mapped into memory by as many processes as like, and telling when it is damaged.

A header of 128 bytes, the token ids, zeros up to a multiple of 8, and the places where documents start; all
numbers little-endian.

    offset  bytes  field
         0      8  magic: "minigpt" and a zero byte
         8      4  version of this format
        12      4  bytes per token id: 2 or 4
        16      8  number of this shard in its stream, from 0
        24      8  tokens
        32      8  documents that start here (8 bytes each)
        40      8  the largest token id
        48     32  fingerprint of the tokenizer that made the ids
        80     32  SHA-256 of all the rest: what follows the header, then bytes 0 to 79
       112     16  zeros, for later versions
"""

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"minigpt\0"
VERSION = 1
FIELDS = struct.Struct("<8sIIQQQQ32s")  # the first 80 bytes
HEADER_BYTES = 128
CURE = "Delete its folder and run again, which writes it anew."


class Shard(NamedTuple):
    """A part of a token stream. The arrays are windows on the file: nothing is read until it is looked at."""

    tokens: np.ndarray           # (n,) uint16 or uint32
    document_starts: np.ndarray  # (documents,) uint64, places in `tokens`
    number: int = 0
    max_token: int = 0


class ShardWriter:
    """Writes one shard. It is a shard only once `close` has put the header in place and synced the file."""

    def __init__(self, path: Path, tokenizer_fingerprint: str, dtype: np.dtype, number: int = 0) -> None:
        self.path, self.number = path, number
        self.fingerprint = fingerprint_bytes(tokenizer_fingerprint)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.tokens, self.max_token = 0, 0
        self.starts: list[int] = []
        self.digest = hashlib.sha256()
        self.file = path.open("wb")
        self.file.write(bytes(HEADER_BYTES))

    def write(self, ids: np.ndarray, starts_document: bool = True) -> None:
        """Append ids, as a new document or as more of the last one."""
        if starts_document:
            self.starts.append(self.tokens)
        if len(ids):
            self.max_token = max(self.max_token, int(ids.max()))
            self._append(np.ascontiguousarray(ids, dtype=self.dtype).tobytes())
        self.tokens += len(ids)

    def close(self) -> None:
        """Complete the file: document starts at its end, the header in its place, all of it on the disk."""
        assert self.max_token <= np.iinfo(self.dtype).max, f"id {self.max_token} does not fit in {self.dtype}"
        self._append(bytes(-self.tokens * self.dtype.itemsize % 8))
        self._append(np.array(self.starts, dtype="<u8").tobytes())
        fields = FIELDS.pack(
            MAGIC, VERSION, self.dtype.itemsize, self.number, self.tokens, len(self.starts), self.max_token,
            self.fingerprint,
        )  # fmt: skip
        self.digest.update(fields)
        self.file.seek(0)
        self.file.write(fields + self.digest.digest())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    def abandon(self) -> None:
        """Let go of the file as it is. A full disk can refuse even this: closing writes what is buffered."""
        with contextlib.suppress(OSError):
            self.file.close()

    def _append(self, data: bytes) -> None:
        self.digest.update(data)
        self.file.write(data)


def read_shard(path: Path, tokenizer_fingerprint: str) -> Shard:
    """Map a shard into memory, after checking all of it.

    Raises: ValueError if it is truncated, damaged, of another version or by another tokenizer.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[:8] != MAGIC:
        raise ValueError(f"{path} is not a shard of tokens (or its beginning is lost). {CURE}")
    _, version, width, number, tokens, documents, max_token, fingerprint = FIELDS.unpack_from(header)
    if version != VERSION:
        raise ValueError(f"{path} has format version {version}; this code reads version {VERSION}. {CURE}")
    starts_at = HEADER_BYTES + (tokens * width + 7) // 8 * 8
    size = path.stat().st_size
    if width not in (2, 4) or size != starts_at + 8 * documents:
        expected = f"{starts_at + 8 * documents:,} bytes"
        raise ValueError(f"{path} is truncated or damaged: {size:,} bytes instead of {expected}. {CURE}")
    if digest_of(path) != header[FIELDS.size : FIELDS.size + 32]:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one that was written. {CURE}")
    if fingerprint != fingerprint_bytes(tokenizer_fingerprint):
        raise ValueError(
            f"{path} was written with another tokenizer ({fingerprint.hex()[:12]}…, this run has "
            f"{tokenizer_fingerprint[:12]}…). {CURE}"
        )
    return Shard(
        mapped(path, f"<u{width}", HEADER_BYTES, tokens),
        mapped(path, "<u8", starts_at, documents),
        number,
        max_token,
    )


def mapped(path: Path, dtype: str, offset: int, count: int) -> np.ndarray:
    """An array on the file itself; an empty one is made, since systems refuse to map nothing."""
    return np.memmap(path, dtype, "r", offset, (count,)) if count else np.zeros(0, dtype)


def digest_of(path: Path) -> bytes:
    """What the digest in the header must be, in one pass over the file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        while block := file.read(1 << 20):
            digest.update(block)
    digest.update(header[: FIELDS.size])
    return digest.digest()


def fingerprint_bytes(fingerprint: str) -> bytes:
    value = bytes.fromhex(fingerprint)
    assert len(value) == 32, f"a fingerprint is a SHA-256 in hex, got {fingerprint!r}"
    return value
