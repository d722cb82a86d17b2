"""The C in `step/` as a library: compiled once for this machine where a C compiler is found, and never required.

The library lies in the user's cache folder, under a name made of everything that decides what it is: the source, the
compiler's words about itself, and the instructions that this machine has.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from minigpt.runtime.console import say

SOURCE = Path(__file__).parent / "step" / "step.c"
COMPILERS = ("cc", "gcc", "clang")
# rounding as written but for a · b + c, whose one rounding is better; no errno and no traps, which forbid vectors
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
MACHINE = ("-march=native",)
THREADS = ("-fopenmp",)
PATIENCE = 120  # seconds
KEPT = 8  # libraries: of several versions, compilers and machines that share a home


class NotCompiled(Exception):
    """Why there is no library."""


def library() -> ctypes.CDLL:
    """It, compiled and loaded; the first time on a machine takes some seconds. Raises: NotCompiled."""
    made = _attempt()
    if isinstance(made, NotCompiled):
        raise made
    return made


@cache
def _attempt() -> ctypes.CDLL | NotCompiled:
    """Once in a process, also where it fails: a compiler may take long to say no.

    Raises: ValueError for a MINIGPT_ENGINE that is none.
    """
    if (asked := os.environ.get("MINIGPT_ENGINE", "auto")) == "torch":
        return NotCompiled("MINIGPT_ENGINE=torch asks for torch")
    if asked != "auto":
        raise ValueError(f"MINIGPT_ENGINE={asked} is not a choice: choose auto (C where it can be compiled) or torch")
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minigpt"
        return ctypes.CDLL(str(_compiled(found(), _own(folder))))
    except NotCompiled as reason:
        return reason
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home is known
        return NotCompiled(f"the compiled step cannot be stored or loaded: {error}")


def _own(folder: Path) -> Path:
    """A folder that nobody else can write to: what lies in it is executed. Raises: NotCompiled, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise NotCompiled(f"{folder} can be written to by others: chmod go-w it, or set XDG_CACHE_HOME")
    return folder


def explain() -> tuple[str, str, str]:
    """Who computes the engine's steps on a CPU, and why: a line for `doctor`."""
    try:
        library()
    except NotCompiled as reason:
        return "engine", "torch", str(reason)
    return "engine", "C", f"compiled by {found()}; MINIGPT_ENGINE=torch or --compiled off changes it"


def found() -> str:
    """The C compiler: $CC, or one with a usual name. Raises: NotCompiled."""
    for name in filter(None, (os.environ.get("CC"), *COMPILERS)):
        if path := shutil.which(name):
            return path
    raise NotCompiled(f"no C compiler is found: none of {', '.join(COMPILERS)} is installed")


def _compiled(compiler: str, folder: Path) -> Path:
    """The library in `folder`: found there, or made. Written aside and renamed, as others may be doing the same."""
    told = _said(compiler, *MACHINE, "-dM", "-E", "-x", "c", os.devnull)  # every instruction set it would use
    machine = "\n".join(sorted(told.splitlines()))
    sources = [path.read_bytes() for path in sorted(SOURCE.parent.iterdir())]
    made_of = (*sources, *map(str.encode, (compiler, machine, *FLAGS, *THREADS)))
    target = folder / f"step-{hashlib.sha256(b'|'.join(made_of)).hexdigest()[:16]}.so"
    if target.exists():
        with suppress(OSError):  # in a folder that cannot be written to, nothing is removed either
            target.touch()  # in use: it counts as new
        return target
    say("compiling the engine's step for this machine, once")
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        made = Path(aside) / target.name
        try:
            _said(compiler, *FLAGS, *MACHINE, *THREADS, str(SOURCE), "-o", str(made), "-lm")
        except NotCompiled:  # a compiler without OpenMP: one thread then
            _said(compiler, *FLAGS, *MACHINE, str(SOURCE), "-o", str(made), "-lm")
        made.replace(target)
    with suppress(OSError):  # another process removes the same ones
        remove_old(folder)
    return target


def remove_old(folder: Path) -> None:
    """All but the KEPT libraries that were made or loaded last. A process that has loaded one goes on with it."""
    made = {path: path.stat().st_mtime_ns for path in folder.glob("step-*.so")}
    for path in sorted(made, key=made.get)[:-KEPT]:
        path.unlink()


def _said(*command: str) -> str:
    """What a command prints. Raises: NotCompiled with the first line of its complaint."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace",
                              timeout=PATIENCE).stdout
    except subprocess.TimeoutExpired:
        raise NotCompiled(f"{command[0]} takes more than {PATIENCE} seconds") from None
    except (OSError, subprocess.CalledProcessError) as error:
        complaint = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise NotCompiled(f"{command[0]} cannot compile step.c: {complaint[0] if complaint else error}") from None
