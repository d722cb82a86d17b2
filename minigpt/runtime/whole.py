"""A file or a folder that is there whole, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.runtime.checkpoint import sync


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A name beside `target` to write under. At the end of the block it becomes `target` in one step; if the block
    fails, nothing stays.

    Raises: ValueError if `target` is there already: it may be somebody's only copy; OSError as the disk says.
    """
    if target.exists():
        raise ValueError(f"{target} exists already: remove it, or choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.unfinished")
    _remove(aside)
    try:
        yield aside
        for path in sorted(aside.rglob("*")) if aside.is_dir() else []:
            sync(path)
        sync(aside)
        os.replace(aside, target)
        sync(target.parent)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
