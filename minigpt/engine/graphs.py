"""Steps of a GPU, recorded once and replayed.

A step in which every text writes a token is some hundred operations, and a GPU is done with each of them before the
host has begun the next. But it is the same hundred every time, only with other numbers to begin with. So it is
recorded as a CUDA graph, once for each of a few numbers of rows; from then on a step is one copy and one launch:

    numbers (rows, 2 + n + pages)    id, position, the n ids before it (for a short convolution), pages of its sequence

A record reads and writes where it did when it was made, and whatever Python computed meanwhile is a constant of it. So
the step is a function of `numbers` alone. Rows that nobody needs are idle: they look at the store's spare page, write
there, and their logits are passed over. Steps that also read prompts differ in shape every time, and stay as they are.

Source: a graph for each of a few batch sizes, which share their memory, as in vLLM's and nano-vllm's model runners.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from minigpt.engine.config import EngineConfig
from minigpt.engine.forward import Forward
from minigpt.engine.paged import Paged
from minigpt.engine.scheduler import Work

WARM_UPS = 2  # steps before one is recorded: kernels are compiled in the first, libraries set memory aside


class Recorded(NamedTuple):
    """A step that can be done again: `replay` leaves its logits where the first ones lay."""

    logits: Tensor
    replay: Callable[[], None]


class NotRecorded(Exception):
    """A step does what cannot be recorded: it waits for the GPU, or its shapes depend on numbers."""


Record = Callable[[Callable[[], Tensor]], Recorded]  # a step, warmed up and recorded; raises: NotRecorded


def graphed(forward: Forward, config: EngineConfig) -> "Forward | GraphedForward":
    """`forward`, its steps recorded where that can be: with pages, on a GPU."""
    if config.graphs and isinstance(forward.store, Paged) and forward.store.device.type == "cuda":
        return GraphedForward(forward, config, CUDAGraphs(forward.store.device))
    return forward


class GraphedForward:
    """A `Forward` with pages, whose steps that only write are recorded when it is made."""

    def __init__(self, forward: Forward, config: EngineConfig, record: Record) -> None:
        assert isinstance(forward.store, Paged), "lanes grow, so their addresses change: only pages can be recorded"
        self.forward, self.store, self.invariant = forward, forward.store, forward.invariant
        self.widths = (1, 1, forward.earlier, self.store.longest)
        most, gpu = config.max_batch * (1 + config.drafts), self.store.device.type == "cuda"
        self.staged = torch.empty(most, sum(self.widths), dtype=torch.int32, pin_memory=gpu)
        self.numbers = torch.empty(self.staged.shape, dtype=torch.int32, device=self.store.device)
        self.recorded = self._recorded(record)  # by rows, the fewest first; none: nothing could be recorded

    def logits(self, works: Sequence[Work]) -> Tensor:
        """As `Forward.logits`; of steps that only write they are gone with the next step."""
        if not self.recorded or not all(work.sequence.writes for work in works):
            return self.forward.logits(works)
        rows = sum(work.count for work in works)
        recorded = self.recorded[size := next(size for size in self.recorded if size >= rows)]
        self._fill(works, size)
        recorded.replay()
        return recorded.logits[:rows]

    def _fill(self, works: Sequence[Work], size: int) -> None:
        """The numbers of `size` rows. Whoever chose tokens has waited for the last copy: its memory is free again."""
        staged, n, at = self.staged.numpy(), self.forward.earlier, 0
        for work in works:
            rows, start, pages = staged[at : at + work.count], work.sequence.computed, work.sequence.pages
            rows[:, 0], rows[:, 1] = work.ids, range(start, start + work.count)
            rows[:, 2 : 2 + n] = work.earlier(n)
            rows[:, 2 + n : 2 + n + len(pages)] = pages  # what stands behind them is not looked at
            at += work.count
        idle = staged[at:size]
        idle[:, :2], idle[:, 2 : 2 + n], idle[:, 2 + n :] = 0, -1, self.store.spare
        self.numbers[:size].copy_(self.staged[:size], non_blocking=True)

    def _step(self, size: int) -> Tensor:
        """The first `size` rows of `numbers` -> logits (size, V)"""
        ids, position, before, table = self.numbers[:size].split(self.widths, dim=1)
        self.store.place(position[:, 0].long(), table)
        x = self.forward.embedded(ids[:, 0], before if self.forward.earlier else None)
        return self.forward.computed(x, size, range(size))

    @torch.inference_mode()
    def _recorded(self, record: Record) -> dict[int, Recorded]:
        """The widest first: the others find room in what it has set aside."""
        most, found = len(self.staged), {}
        try:
            for size in reversed(sizes(most)):
                self._fill([], size)
                found[size] = record(partial(self._step, size))
        except NotRecorded as reason:
            warnings.warn(f"steps are computed operation by operation, for none could be recorded: {reason}",
                          RuntimeWarning, stacklevel=6)  # fmt: skip
            return {}
        return dict(reversed(found.items()))


def sizes(most: int) -> list[int]:
    """Numbers of rows that are recorded: 1, 2, 4, ... and the most there can be. At most half of the rows are idle."""
    return [*(1 << i for i in range((most - 1).bit_length())), most]


class CUDAGraphs:
    """`Record` on a GPU. All records share one memory, for no two run at once; what logits lie in is kept."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream, self.pool = device, torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], Tensor]) -> Recorded:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):  # and back: a capture that fails does not see to it
                for _ in range(WARM_UPS):
                    step()
                logits = self._captured(step, graph)
            torch.cuda.current_stream().wait_stream(self.stream)
        return Recorded(logits, graph.replay)

    def _captured(self, step: Callable[[], Tensor], graph: torch.cuda.CUDAGraph) -> Tensor:
        """Where the graph leaves its logits. What other threads ask of the GPU meanwhile harms nobody: thread_local."""
        try:
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                return step()
        except RuntimeError as error:  # all that torch says of a capture; the first of several tells why
            raise NotRecorded(str(error.__context__ or error).split("\n")[0]) from error
