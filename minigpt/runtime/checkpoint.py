"""Folders that are whole or absent.

A checkpoint is written under a name that nobody reads, every file is synced to the disk, a digest of all files is
added, and only then the folder gets its real name in one step that the file system promises to be atomic. A process
killed at any moment leaves either the old state or the new one, and a disk that loses bits later is found out by
the digest, so that the checkpoint before it is used instead, aloud.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minigpt.runtime.console import say
from minigpt.runtime.whole import replacing, sync

DIGEST = "digest.json"
NAME = re.compile(r"checkpoint-(\d+)")


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None], *, keep: int = 2) -> Path:
    """Let `write` fill a new `folder/checkpoint-<step>`, make it durable, then drop all but the newest `keep`.

    Raises: OSError (disk full, read-only); then nothing but the unfinished folder is lost, and that is removed.
    """
    final, aside = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.unfinished"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write(aside)
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        digest = {path.relative_to(aside).as_posix(): file_digest(path) for path in files}
        (aside / DIGEST).write_text(json.dumps(digest, indent=1) + "\n", encoding="utf-8")
        for path in [*files, aside / DIGEST]:
            shutil.copymode(aside / DIGEST, path)  # safetensors writes files that nobody else may read
            sync(path)
        for path in [*(path for path in aside.rglob("*") if path.is_dir()), aside]:
            sync(path)
        shutil.rmtree(final, ignore_errors=True)  # only a damaged one can stand there: a whole one was resumed from
        os.replace(aside, final)
        sync(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for old in checkpoints(folder)[keep:]:
        remove_checkpoint(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, newest first, whole or not."""
    found = [path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    match = NAME.fullmatch(checkpoint.name)
    assert match, f"{checkpoint.name} is not the name of a checkpoint"
    return int(match[1])


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose every bit is as it was written. Damaged ones are named aloud and passed over.

    Raises: ValueError if there are checkpoints but none is whole.
    """
    found = checkpoints(folder)
    for path in found:
        problem = damage(path)
        if problem is None:
            return path
        say(f"warning: {path} is damaged ({problem}); using the one before it")
    if found:
        raise ValueError(
            f"no checkpoint in {folder} is whole ({len(found)} damaged). Begin again with --overwrite, or take a copy."
        )
    return None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None if each file is there and has its digest."""
    try:
        digest = json.loads((checkpoint / DIGEST).read_text(encoding="utf-8"))
        for name, expected in digest.items():
            if file_digest(checkpoint / name) != expected:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"{DIGEST} cannot be read: {error}"
    return None


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint so that a crash in between cannot leave half of it under its real name."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(checkpoint, doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Clear away what a killed process left under names that nobody reads."""
    for pattern in (".checkpoint-*.unfinished", ".checkpoint-*.removed"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def publish(checkpoint: Path, folder: Path) -> None:
    """Show the newest checkpoint's own files (not its state/) at the run's top level, one atomic step per file.

    Hard links where the file system has them: the newest weights then take no second place on the disk.
    """
    for source in sorted(path for path in checkpoint.iterdir() if path.is_file() and path.name != DIGEST):
        aside = folder / f".{source.name}.new"
        aside.unlink(missing_ok=True)
        try:
            os.link(source, aside)
        except OSError:
            shutil.copyfile(source, aside)
        os.replace(aside, folder / source.name)


# --- files ------------------------------------------------------------------------------------------------------


def save_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Tensors by name, as safetensors: no code in the file, memory-mapped, bit-exact.

    Raises: OSError if the disk is full or read-only.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file, metadata)
    except SafetensorError as error:  # it wraps the system's errors
        raise OSError(f"{file} could not be written: {error}") from None


def load_tensors(file: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Raises: ValueError if the file is damaged."""
    try:
        return load_file(file, device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); use an older checkpoint or a copy") from None


def file_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(file: Path, value: object) -> None:
    """One JSON file, whole or absent."""
    with replacing(file) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def read_json(file: Path) -> dict:
    """Raises: ValueError if the file is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); use an older checkpoint or a copy") from None
