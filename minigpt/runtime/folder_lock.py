"""One process at a time in a folder."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """Held from `take` until the end of the `with`, or of the process, however that ends: the kernel lets go of it.

    Where the system or the file system has no such locks, nothing is held.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handle: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def take(self, *, make: bool = False) -> None:
        """Hold the folder, if it is there; `make` it if it is not. Taken twice is taken once.

        Raises: ValueError if another process holds it; OSError.
        """
        if make:
            self.folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None or self.handle is not None or not self.folder.is_dir():
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise ValueError(f"another process is at work in {self.folder}: wait for it, or choose another "
                             "folder") from None  # fmt: skip
        except OSError:  # a file system without locks
            os.close(handle)
        else:
            self.handle = handle
