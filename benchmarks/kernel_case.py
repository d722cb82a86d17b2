"""What a case is: ours, its peers, the truth, and when an answer counts as wrong."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernel_costs import Cost
from benchmarks.kernel_timing import Run

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}  # ‖out - truth‖ / ‖truth‖


def everything(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs


@dataclass(kw_only=True)
class Trial:
    """One case with its inputs drawn. A run returns results and gradients alike, always in the same order."""

    ours: Run
    peers: dict[str, Run]
    truth: Run                                                                         # in float64 or float32
    part: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = everything              # of the results, to compare


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table, not yet built. `build` and `cost` take the fields of `size` as arguments."""

    key: str                                                        # such as attention/forward/64/T4096
    op: str                                                         # of the package `kernels`
    size: Mapping[str, Any]
    toy: Mapping[str, Any] = field(default_factory=dict)            # what is smaller in a dry run
    build: Callable[..., Trial]
    cost: Callable[[Mapping[str, Any]], Cost]
    tolerance: float | None = None                                  # None: TOLERANCE of the dtype
    compiled: bool = False                                          # has a peer that torch.compile makes
    memory: bool = False                                            # its peak of memory is measured too
    turns: int = 20

    def shape(self, *, dry: bool) -> dict[str, Any]:
        return {**self.size, **(self.toy if dry else {})}

    def describe(self, *, dry: bool) -> str:
        """The shape in words: B16 H12 T1024 bfloat16."""
        parts = [str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else f"{name.rstrip('_')}{value}"
                 for name, value in self.shape(dry=dry).items() if isinstance(value, int | torch.dtype)
                 and not isinstance(value, bool)]  # fmt: skip
        return " ".join(parts)

    def allowed_error(self, *, dry: bool) -> float:
        return self.tolerance or TOLERANCE[self.shape(dry=dry)["dtype"]]


def relative_error(outputs: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> float:
    """The worst ‖out - truth‖ / ‖truth‖ of all tensors; infinite where something is not finite or missing."""
    if len(outputs) != len(truth) or any(a.shape != b.shape for a, b in zip(outputs, truth, strict=False)):
        return math.inf
    errors = [(a.double() - b.double()).norm() / b.double().norm() for a, b in zip(outputs, truth, strict=True)]
    worst = float(torch.stack(errors).max())
    return worst if math.isfinite(worst) else math.inf


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Within, fresh memory is full of NaN: an element that a kernel forgets to write shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def answer(run: Run, trial: Trial, truth: tuple[Tensor, ...]) -> float:
    """One poisoned run, its error. Every element must be finite, though only a part may be compared."""
    with poisoned():
        outputs = run()
    if not all(bool(x.isfinite().all()) for x in outputs):
        return math.inf
    return relative_error(trial.part(outputs), truth)


# --- how peers are made -----------------------------------------------------------------------------------


def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The function under torch.compile, when it is first called. In a dry run Dynamo reads it, but nothing compiles."""

    @functools.cache
    def ready() -> Callable[..., Any]:
        import torch._functorch.config

        torch._functorch.config.donated_buffer = False  # else a backward pass could not be timed alone
        backend = "inductor" if device == "cuda" else "eager"
        return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

    return lambda *args: ready()(*args)


def forward_run(function: Callable[[], Tensor | tuple[Tensor, ...]]) -> Run:
    """Results without gradients; the graph for them is not built."""

    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        y = function()
        return y if isinstance(y, tuple) else (y,)

    return run


def backward_run(function: Callable[[], Tensor], inputs: tuple[Tensor, ...], dy: Tensor) -> Run:
    """Gradients of one forward pass, which is made at the first call and kept."""
    y = functools.cache(function)
    return lambda: torch.autograd.grad(y(), inputs, dy, retain_graph=True)


def both_run(function: Callable[[], Any], inputs: tuple[Tensor, ...], dys: tuple[Tensor, ...]) -> Run:
    """Results, then gradients."""

    def run() -> tuple[Tensor, ...]:
        y = function()
        ys = y if isinstance(y, tuple) else (y,)
        return (*(x.detach() for x in ys), *torch.autograd.grad(ys, inputs, dys))

    return run


def run_of(way: str, function: Callable[[], Any], inputs: tuple[Tensor, ...], dys: tuple[Tensor, ...]) -> Run:
    """way: forward, backward or both."""
    if way == "forward":
        return forward_run(function)
    return backward_run(function, inputs, *dys) if way == "backward" else both_run(function, inputs, dys)
