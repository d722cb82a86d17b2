"""Clocks: how long does a call take on the GPU, and how much memory does it need?

Contenders take turns (A, B, C, A, B, C), so that a drifting clock rate meets all alike. Before each turn a buffer
larger than the L2 cache is written, so that inputs come from memory, and the GPU is given a pause during which the
host queues the whole call: between the two events lies the GPU's work alone, not Python's. What the host needs is
recorded beside it (`host_us`).
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Run = Callable[[], tuple[Tensor, ...]]
FLUSH = 256 * 2**20   # bytes: several times the L2 cache of any GPU so far
CYCLES_PER_US = 2000  # a GPU's clock, roughly: only the length of a pause hangs on it
LONGEST_PAUSE_US = 100_000


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        if len(values) == 1:
            return Spread(values[0], values[0], values[0])
        return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


class Times(NamedTuple):
    """What one row's contenders took."""

    us: dict[str, Spread]          # on the GPU
    host_us: dict[str, float]      # until the call came back to Python
    ratios: dict[str, Spread]      # peer / ours, turn by turn: > 1 means that ours is faster


class GPUClock:
    """CUDA events."""

    label = "CUDA events"

    def __init__(self) -> None:
        self.flush = torch.empty(FLUSH // 4, dtype=torch.int32, device="cuda")

    def times(self, runs: Mapping[str, Run], turns: int, budget_s: float) -> Times:
        """`turns` turns, fewer (but 5) if they would take longer than budget_s. All have run before: they are warm."""
        host_us = {name: self._host_us(run) for name, run in runs.items()}
        began, taken = time.perf_counter(), 0
        us: dict[str, list[float]] = {name: [] for name in runs}
        while taken < turns and (taken < 5 or time.perf_counter() - began < budget_s):
            events = {name: self._turn(run, host_us[name]) for name, run in runs.items()}
            torch.cuda.synchronize()
            for name, (begin, end) in events.items():
                us[name].append(begin.elapsed_time(end) * 1000)
            taken += 1
        return Times({name: Spread.of(values) for name, values in us.items()}, host_us, ratios(us))

    def _host_us(self, run: Run) -> float:
        """The median of three calls; also the last of the warming up."""
        spent = []
        for _ in range(3):
            torch.cuda.synchronize()
            began = time.perf_counter()
            run()
            spent.append((time.perf_counter() - began) * 1e6)
        torch.cuda.synchronize()
        return statistics.median(spent)

    def _turn(self, run: Run, host_us: float) -> tuple[Any, Any]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.fill_(1)
        torch.cuda._sleep(int(min(2 * host_us + 100, LONGEST_PAUSE_US) * CYCLES_PER_US))
        begin.record()
        run()
        end.record()
        return begin, end

    def peak_mb(self, run: Run) -> float:
        """The most memory held during a call beyond what was held before it: results and gradients included."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def ceilings(self) -> dict[str, float]:
        """What nothing beats: GB/s of a large copy (read and written), TFLOP/s of a product of random bfloat16."""
        source = torch.randint(2**31 - 1, (2**30,), dtype=torch.int32, device="cuda")  # 4 GB
        target = torch.empty_like(source)
        copy = self.times({"ours": lambda: (target.copy_(source),)}, 20, 5).us["ours"]
        a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        a @ b
        product = self.times({"ours": lambda: (a @ b,)}, 20, 5).us["ours"]
        return {"copy": 2 * source.nbytes / copy.median / 1e3, "matmul": 2 * 8192**3 / product.median / 1e6}


class StubClock:
    """No clock: for a dry run on a CPU, where all have run once when they were checked. Nothing is timed."""

    label = "stub: nothing was timed"

    def times(self, runs: Mapping[str, Run], turns: int, budget_s: float) -> Times:
        return Times({}, {}, {})

    def peak_mb(self, run: Run) -> float | None:
        return None

    def ceilings(self) -> dict[str, float]:
        return {}


def ratios(us: Mapping[str, list[float]]) -> dict[str, Spread]:
    """Each peer over ours, turn by turn, so that both met the same clock rate."""
    return {
        name: Spread.of([theirs / mine for theirs, mine in zip(values, us["ours"], strict=True)])
        for name, values in us.items()
        if name != "ours"
    }
