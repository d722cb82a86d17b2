"""One function in several processes; what it returns comes out in the order of what went in."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, Generic, TypeVar

AHEAD = 2  # items read ahead for each worker: one to work on and one to go on with, and no more in memory

Kept = TypeVar("Kept")
Sent = TypeVar("Sent")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Sent], Result], items: Iterable[tuple[Kept, Sent | None]], workers: int
) -> Iterator[tuple[Kept, Result | None]]:
    """(kept, function(sent)) for each item (kept, sent), in their order; what is kept stays in this process.

    With one worker this is a loop, and more of them change nothing but the time: an error, of the function or of the
    items, comes in its place, too. The first few items are worked on here: until the others have started, and if no
    more come, none is. Where `sent` is None there is nothing to do but to wait: the item comes out before another is
    read.

    `function` is pickled once for each worker, so it may carry large tables. Ctrl+C reaches all processes of a
    terminal; only this one heeds it. Workers end with the iterator, and with this process, however it ends.
    """
    waiting: deque[tuple[Kept, Future | Here]] = deque()
    pool = None
    try:
        for kept, sent, error in _read(items):
            if workers > 1 and pool is None and len(waiting) == AHEAD * workers:
                pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (function,))  # fork copies held locks
            if pool is None or sent is None or error:
                waiting.append((kept, Here(function, sent, error)))
            else:
                with _interrupts_held():
                    waiting.append((kept, pool.submit(_work, sent)))
            while len(waiting) > (0 if workers == 1 or sent is None else AHEAD * workers):
                kept, future = waiting.popleft()
                yield kept, future.result()
        while waiting:
            kept, future = waiting.popleft()
            yield kept, future.result()
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


class Here(Generic[Sent, Result]):
    """A future whose work is done by who asks for the result."""

    def __init__(self, function: Callable[[Sent], Result], sent: Sent | None, error: Exception | None) -> None:
        self.function, self.sent, self.error = function, sent, error

    def result(self) -> Result | None:
        if self.error is not None:
            raise self.error
        return None if self.sent is None else self.function(self.sent)


def _read(items: Iterable[tuple[Kept, Sent]]) -> Iterator[tuple[Any, Any, Exception | None]]:
    """The items; at last the error that ended them, which must wait until what came before it is done."""
    try:
        for kept, sent in items:
            yield kept, sent, None
    except Exception as error:
        yield None, None, error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes inherit what is held back: until a new one ignores Ctrl+C by itself, it must not hear of it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker --------------------------------------------------------------------------------------------------

_function: Callable[[Any], Any] | None = None


def _begin(function: Callable[[Any], Any]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = function


def _end_with_parent() -> None:
    """Whoever was killed cannot tell its children to stop, and they would wait for work for ever."""
    parent = parent_process()
    assert parent is not None, "a worker was started by somebody"
    parent.join()
    os._exit(1)


def _work(sent: Any) -> Any:
    assert _function is not None, "a worker begins with its function"
    return _function(sent)
