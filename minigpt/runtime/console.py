"""Errors that a user, a file or the network can cause end in one clear line and exit status 2."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LESS_MEMORY = (
    "these help, most effective first: a smaller --batch-size (with a larger --accumulate), --context-length, --n-embd"
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can cause into `error: ...` and status 2; Ctrl+C into status 130.

    A character that standard output cannot show becomes a question mark: a model may write any.
    MINIGPT_TRACEBACK=1 shows the whole traceback instead, for those who look for a bug in our code.
    """
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):  # and no StringIO, which shows everything
        sys.stdout.reconfigure(errors="replace")
    if os.environ.get("MINIGPT_TRACEBACK") == "1":
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        message = explain(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def _open_what_is_closed() -> None:
    """A service may have closed the three standard streams, and has then no file behind them: nothing, from here on.

    Left closed, their numbers would go to the next files that are opened, and what a library says would be in those.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  as long as the process


def explain(error: Exception) -> str | None:
    """One line for the user; None where the error can only be ours."""
    if isinstance(error, OSError) and (error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)):
        return f"the disk is full{_at(error)}; what was complete is untouched. Free some space, then run the same line."
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"no permission to write or read{_at(error)}: {error.strerror}. Change that, or name another place."
    if is_out_of_memory(error):
        return f"out of memory; {LESS_MEMORY}"
    if isinstance(error, RuntimeError):
        return None
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"  # without Python's [Errno 20]
    return " ".join(str(error).split()) or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """torch raises OutOfMemoryError on a GPU but a plain RuntimeError from its CPU allocator."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def _at(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def say(text: str) -> None:
    """A line for the person at the terminal. It goes to stderr, so that stdout stays for the product."""
    print(text, file=sys.stderr, flush=True)
