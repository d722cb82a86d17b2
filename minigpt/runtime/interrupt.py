"""Ctrl+C and SIGTERM become a flag that the loop asks for between two steps, so that nothing is half done."""

import signal
import time
from types import FrameType, TracebackType
from typing import Self

PATIENCE = 2.0  # seconds; torchrun passes one Ctrl+C on twice, so only a later one means "at once"


class Interrupt:
    """While open, the first signal is only noted in `.signal`; a Ctrl+C more than two seconds later stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0  # 0 until a signal came, then its number
        self._since = 0.0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and time.monotonic() - self._since > PATIENCE:
            raise KeyboardInterrupt
        if not self.signal:
            self.signal, self._since = number, time.monotonic()
