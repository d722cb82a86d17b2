"""The next batches, fetched while this one is computed with."""

import queue
import threading
from typing import Protocol, Self

from minigpt.batches.loader import Batch


class Resumable(Protocol):
    """A loader: an iterator whose place can be saved and found again."""

    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...


class Prefetch:
    """A loader read ahead by a thread, in the same order.

    Its state is that of the batches handed out, so a run that stops while others wait in the queue resumes
    with the first of them. An exception of the loader is raised where its batch would have come.
    """

    def __init__(self, loader: Resumable, depth: int = 2) -> None:
        self.loader, self.depth = loader, depth
        self.state = loader.state_dict()
        self.thread: threading.Thread | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.thread is None:
            self._start()
        batch, state, error = self.ready.get()
        if error is not None:
            self.close()
            raise error
        self.state = state
        return batch

    def state_dict(self) -> dict[str, int]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.close()
        self.loader.load_state_dict(state)
        self.state = self.loader.state_dict()

    def close(self) -> None:
        """End the thread. The next batch asked for starts another, at the first batch not yet handed out."""
        if self.thread is not None:
            self.stopping.set()
            self.thread.join()
            self.thread = None
            self.loader.load_state_dict(self.state)

    def _start(self) -> None:
        self.ready: queue.Queue = queue.Queue(self.depth)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._fetch, name="prefetch", daemon=True)
        self.thread.start()

    def _fetch(self) -> None:
        error: Exception | None = None
        while error is None and not self.stopping.is_set():
            batch = None
            try:
                batch = next(self.loader)
            except Exception as caught:  # handed to the consumer, who raises it
                error = caught
            self._hand_over((batch, self.loader.state_dict(), error))

    def _hand_over(self, item: tuple[Batch | None, dict[str, int], Exception | None]) -> None:
        """Wait for room in the queue, but not longer than there is someone to fetch for."""
        while not self.stopping.is_set():
            try:
                return self.ready.put(item, timeout=0.05)
            except queue.Full:
                continue
