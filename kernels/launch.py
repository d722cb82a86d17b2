"""How an op starts a Triton kernel: on a GPU, in Triton's interpreter on a CPU, or on paper.

Every launch in this package goes through `launch`, so that three readers see the same thing: the GPU runs it, a
machine without one runs it in the interpreter (`interpreter.py`) and compiles it for a GPU that is not there
(`machine_code.py`). What is compiled on paper is therefore what an op would launch, not a copy of its arguments.

This file imports no Triton: who launches a kernel holds one already.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels import interpreter

PAPER_PROCESSORS = 132  # multiprocessors of the GPU on paper: an H100 or H200


class Launch(NamedTuple):
    """One launch, on paper."""

    kernel: Any
    arguments: dict[str, Any]  # by parameter name: tensors, numbers and constants
    options: dict[str, int]    # num_warps, num_stages
    grid: tuple[int, ...]


class _Paper:
    """Where launches are written down instead of run; None while they run."""

    arch: int | None = None
    launches: list[Launch] = []  # noqa: RUF012 (one notebook for the process is meant)


@contextlib.contextmanager
def on_paper(arch: int) -> Iterator[list[Launch]]:
    """Within, launches are written down as a GPU of compute capability `arch` (90: Hopper) would get them.

    Ops may then be called with tensors on the meta device, of any size: nothing is computed.
    """
    assert _Paper.arch is None, "one page at a time"
    _Paper.arch, _Paper.launches = arch, []
    try:
        yield _Paper.launches
    finally:
        _Paper.arch = None


def launch(
    kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int = 4, num_stages: int = 2, **constants: Any
) -> None:
    """Run `kernel` once per point of the grid, on the device of its first tensor.

    Raises: whatever the compiler raises; never reads or waits for the device.
    """
    options = {"num_warps": num_warps, "num_stages": num_stages}
    device = next(x for x in args if isinstance(x, Tensor)).device
    if _Paper.arch is not None:
        names = [name for name in kernel.arg_names if name not in constants]
        arguments = dict(zip(names, args, strict=True)) | constants
        _Paper.launches.append(Launch(kernel, arguments, options, grid))
    elif device.type == "cpu":
        interpreter.teach_bfloat16()
        with np.errstate(all="ignore"):  # rows beyond the end may divide by 0: nobody stores them
            kernel[grid](*args, **constants)
    else:
        with torch.cuda.device(device):
            # said aloud, for its default changes with Triton 3.10 and the last bits of the results with it
            kernel[grid](*args, **constants, **options, enable_fp_fusion=True)


def arch_of(x: Tensor) -> int:
    """Compute capability of the GPU a launch on x would reach, 90 for 9.0; 0 for the interpreter."""
    if _Paper.arch is not None:
        return _Paper.arch
    return 0 if x.device.type == "cpu" else _properties(x.device)[0]


def processors_of(x: Tensor) -> int:
    """How many programs run at the same time at least: the GPU's multiprocessors; 2 in the interpreter."""
    if _Paper.arch is not None:
        return PAPER_PROCESSORS
    return 2 if x.device.type == "cpu" else _properties(x.device)[1]


@functools.cache
def _properties(device: torch.device) -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(device)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up: how many tiles of b cover a."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """Triton's tensors have powers of two as sides: the smallest that holds n."""
    return 1 << (n - 1).bit_length()
