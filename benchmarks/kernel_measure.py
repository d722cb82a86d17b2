"""One case, from fresh inputs to a row: first right, then fast. Whatever goes wrong is written into the row."""

import contextlib
import gc
import math

import torch

import kernels
from benchmarks.kernel_case import Case, answer, relative_error
from benchmarks.kernel_table import Row
from benchmarks.kernel_timing import GPUClock, Run, StubClock
from kernels import dispatch

SECONDS = 6.0  # of timing per row: slow rows take fewer turns


def measure(case: Case, clock: GPUClock | StubClock, device: str, ceilings: dict[str, float]) -> Row:
    row = Row(key=case.key, shape=case.describe(dry=device == "cpu"))
    try:
        _measure(row, case, clock, device, ceilings)
    except Exception as error:
        row.state, row.reason = "FAILED", said(error)
    tidy(case, device)
    return row


def _measure(
    row: Row, case: Case, clock: GPUClock | StubClock, device: str, ceilings: dict[str, float]
) -> None:
    dry = device == "cpu"
    size = case.shape(dry=dry)
    trial = case.build(**size, device=device)
    truth = trial.truth()
    dispatch.forget()
    error = answer(trial.ours, trial, truth)
    row.errors["ours"] = error if math.isfinite(error) else None
    if (problem := fallen_back(case.op, device, size["dtype"])) is not None:
        row.state, row.reason = "FAILED", f"plain torch ran: {problem}"
        return
    runs = {"ours": trial.ours}
    for name, peer in trial.peers.items():
        try:
            stray = relative_error(trial.part(peer()), truth)
            wait(device)
        except Exception as problem:
            row.skipped[name] = said(problem)
            continue
        row.errors[name] = stray if math.isfinite(stray) else None
        runs[name] = peer
    if error > (allowed := case.allowed_error(dry=dry)):
        row.state, row.reason = "WRONG", f"error {error:.1e}, allowed {allowed:.1e}: not timed"
        return
    del truth
    row.state = "OK"
    if case.memory:
        peaks = {name: clock.peak_mb(run) for name, run in runs.items()}
        row.peak_mb = {name: peak for name, peak in peaks.items() if peak is not None}
    time_row(row, case, clock, runs, size, ceilings)


def fallen_back(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Why no kernel of ours ran, or not everywhere; None if one did. Others' times are not ours to report."""
    where = torch.empty(0, device=device).device  # cuda:0 rather than cuda: the tensors' own
    choice = next(row for row in kernels.explain(where, dtype) if row.op == op)
    return None if choice.choice in dispatch.KERNELS and " where " not in choice.reason else choice.reason


def time_row(
    row: Row, case: Case, clock: GPUClock | StubClock, runs: dict[str, Run], size: dict, ceilings: dict[str, float]
) -> None:
    """Times, ratios, and what they are worth against the ceiling that binds this case."""
    times = clock.times(runs, case.turns, SECONDS)
    row.us = {name: list(spread) for name, spread in times.us.items()}
    row.ratios = {name: list(spread) for name, spread in times.ratios.items()}
    row.host_us = times.host_us
    if row.us:
        cost, us = case.cost(size), row.us["ours"][1]
        row.unit = "TFLOP/s" if cost.limit == "matmul" else "GB/s"
        row.rate = cost.flops / us / 1e6 if cost.limit == "matmul" else cost.bytes / us / 1e3
        row.of_ceiling = row.rate / ceilings[cost.limit]


def warm(case: Case, device: str) -> None:
    """Run everybody once, in a process of its own, so that what they compile lies in the caches on disk.

    Nothing is reported: what fails here fails again where it is measured, and is written down there.
    """
    try:
        trial = case.build(**case.shape(dry=device == "cpu"), device=device)
        runs = [trial.ours, *trial.peers.values()]
    except Exception:
        return
    for run in runs:
        try:
            run()
            wait(device)
        except Exception:
            continue
    tidy(case, device)


def said(error: Exception) -> str:
    """The exception's name and words, in one line of bounded length: compilers can say a lot."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def wait(device: str) -> None:
    """Until the GPU is done, so that an error shows where it was made."""
    if device == "cuda":
        torch.cuda.synchronize()


def tidy(case: Case, device: str) -> None:
    """Leave neither memory nor compiled functions to the next case."""
    if case.compiled:
        torch._dynamo.reset()
    if device == "cuda":
        gc.collect()
        with contextlib.suppress(RuntimeError):  # a broken GPU raises at any call: `broken` will say so
            torch.cuda.empty_cache()


def broken(device: str) -> bool:
    """After an illegal memory access every later call fails: only a new process helps."""
    try:
        wait(device)
    except Exception:
        return True
    return False
