"""Are the files those that something was made from? Whoever keeps what was made keeps their stamps beside it."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from minigpt.corpus.config import CorpusConfig
from minigpt.corpus.sources import files_of

Files = list[tuple[Path, str]]


class Stamp(NamedTuple):
    """Of the files that one of --data, --val-data, --eval-data names."""

    files: int
    bytes: int
    touched: str  # digest of names, sizes and times of the last change: seen again without reading
    content: str  # digest of names and contents: asked for where times differ, as they do in a copy


def stamps(config: CorpusConfig) -> dict[str, dict[str, Any]]:
    """By setting, ready for JSON; only files have any: not Python's library, a URL or hf:NAME. Reads every file."""
    made = {}
    for name in ("data", "val_data", "eval_data"):
        spec = getattr(config, name)
        if spec is not None and spec != "python" and (files := files_of(spec)):
            made[name] = Stamp(len(files), size(files), touched(files), content(files))._asdict()
    return made


def is_unchanged(config: CorpusConfig, made: dict[str, dict[str, Any]]) -> bool:
    """Whether the files are those of the stamps.

    Files that are gone count as unchanged: what was made of them may have moved to another machine without them.
    """
    for name, stamp in made.items():
        then, files = Stamp(**stamp), files_of(getattr(config, name))
        if not files or touched(files) == then.touched:
            continue
        if (len(files), size(files)) != (then.files, then.bytes) or content(files) != then.content:
            return False
    return True


def size(files: Files) -> int:
    return sum(path.stat().st_size for path, _ in files)


def touched(files: Files) -> str:
    facts = [(name, path.stat().st_size, path.stat().st_mtime_ns) for path, name in files]
    return hashlib.blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def content(files: Files) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, name in files:
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "blake2b")
        digest.update(repr((name, inner.hexdigest())).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
