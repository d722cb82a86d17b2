"""A file or a folder that is there whole, or not at all."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A name beside `file` to write under. At the end of the block it takes the place of `file` in one step; if the
    block fails, `file` is what it was, or absent.

    Raises: OSError as the disk says.
    """
    aside = file.with_name(f".{file.name}.new")
    try:
        yield aside
        sync(aside)
        os.replace(aside, file)
    finally:
        _remove(aside)


def new_file(path: str) -> Path:
    """Where a file that the user names can be written, an older one replaced; its folder is made.

    Raises: ValueError for a folder or a device of that name; OSError where the folder cannot be made.
    """
    file = Path(path).resolve()  # a link stays one: what it leads to is replaced
    if file.exists() and not file.is_file():
        raise ValueError(f"{path} is {'a folder' if file.is_dir() else 'no ordinary file'}: name a file to write")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def write_json_lines(file: Path, rows: Iterable[Any]) -> None:
    """One JSON object a line; an older file stays until the new one is whole. Raises: OSError as the disk says."""
    with replacing(file) as aside, aside.open("w", encoding="utf-8", newline="\n") as opened:
        for row in rows:
            opened.write(json.dumps(row, ensure_ascii=False) + "\n")


def sync(path: Path) -> None:
    """Ask the system to put a file, or a folder's list of names, on the disk now."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and needs no such call
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def must_be_writable(folder: Path) -> None:
    """Asked before an hour of work, not after it. Raises: ValueError for an --out-dir that can be no folder of ours."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"--out-dir {folder}: {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"--out-dir {folder}: no permission to write into {there}; choose another folder")
