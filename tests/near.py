"""What the tests of Triton kernels share: how wrong a kernel may be, and what catches reads out of bounds."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from budget import assert_within_budget
from hypothesis import strategies as st
from torch import Tensor

DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])


def assert_near(fast: Tensor, plain: Tensor, truth: Tensor, *, roundings: float = 2) -> None:
    """As wrong as plain torch at that dtype, and then some: `roundings` units in the last place of the largest number.

    A kernel may round where plain torch, computing in float32, does not: the weights that enter a matrix product.
    Results that cancel to almost nothing are sums of numbers of about 1, and are measured by those.
    """
    unit = torch.finfo(fast.dtype).eps * max(1.0, truth.abs().max().item())
    assert_within_budget(fast, plain, truth, slack=roundings * unit)


def guarded(x: Tensor, margin: int = 64) -> Tensor:
    """The same numbers in the middle of a buffer of NaN: what is read beyond them shows in the result.

    The interpreter reads beyond a buffer's end without a word; a GPU may, too, and give other numbers each time.
    """
    room = torch.full((x.numel() + 2 * margin,), float("nan"), dtype=x.dtype)
    inner = room[margin : margin + x.numel()].view(x.shape)
    inner.copy_(x.detach())
    return inner.requires_grad_(x.requires_grad)


@contextlib.contextmanager
def memory_watched() -> Iterator[None]:
    """Within, every load in Triton's interpreter must lie in a tensor of its launch, and find what was written there.

    Rows that nobody stores could be read from beyond a tensor unnoticed, until a GPU faults on one. And memory fresh
    from the system is 0, which hides that nobody wrote it: here torch.empty gives NaN.
    """
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    load, call, ends, reads = InterpreterBuilder.create_masked_load, GridExecutor.__call__, [], [0]

    def called(self: Any, *args: Any, **kwargs: Any) -> None:
        memory = [x.untyped_storage() for x in args if isinstance(x, Tensor)]
        ends[:] = [(x.data_ptr(), x.data_ptr() + x.nbytes()) for x in memory]
        call(self, *args, **kwargs)

    def watched(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        addresses = pointers.data[mask.data].astype(np.int64)
        inside = np.zeros(addresses.shape, dtype=bool)
        for start, end in ends:
            inside |= (addresses >= start) & (addresses < end)
        assert inside.all(), f"{(~inside).sum()} of {inside.size} numbers are read beyond the ends of every tensor"
        reads[0] += inside.size
        return load(self, pointers, mask, *rest)

    before = torch.are_deterministic_algorithms_enabled()
    InterpreterBuilder.create_masked_load, GridExecutor.__call__ = watched, called
    torch.use_deterministic_algorithms(True)  # as torch.utils.deterministic.fill_uninitialized_memory wants it
    try:
        yield
        assert reads[0], "nothing was read: no kernel ran in the interpreter"
    finally:
        torch.use_deterministic_algorithms(before)
        InterpreterBuilder.create_masked_load, GridExecutor.__call__ = load, call
