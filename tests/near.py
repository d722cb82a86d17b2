"""What the tests of Triton kernels share: how wrong a kernel may be, and buffers with poison around them."""

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
