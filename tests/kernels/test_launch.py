"""The door through which every kernel is started, and the interpreter behind it."""

import pytest
import torch

pytest.importorskip("triton")
import triton
import triton.language as tl

from kernels.launch import arch_of, cdiv, launch, next_power_of_2, on_paper


def test_sides_are_rounded_up():
    """Rounded down they lose a tile; rounded up too far they cost twice the work, and no result shows it."""
    assert [cdiv(n, 16) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]
    assert [next_power_of_2(n) for n in (1, 2, 3, 4, 64, 65)] == [1, 2, 4, 4, 64, 128]


def test_paper_is_put_away_after_an_error():
    """Else every later launch would be written down, and compute nothing."""
    with pytest.raises(RuntimeError, match="no"), on_paper(90):
        raise RuntimeError("no")
    assert arch_of(torch.empty(1)) == 0


@triton.jit
def _copy_kernel(x, y, count, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < count, other=0.0).to(y.dtype.element_ty), mask=i < count)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the interpreter")
def test_the_interpreter_rounds_bfloat16_as_torch_does():
    """To nearest, ties to even: cut off instead, every result stored would be a little small. NaN stays NaN."""
    bits = torch.randint(-(2**31), 2**31 - 1, (1000,), dtype=torch.int32)
    ties = (torch.arange(200, dtype=torch.int32) << 16) + 0x3F808000
    nans = torch.tensor([0x7FFFFFFF, 0x7F800001], dtype=torch.int32)  # rounded like numbers: -0 and infinity
    x = torch.cat([bits, ties, nans]).view(torch.float32)
    y = torch.empty(x.shape, dtype=torch.bfloat16)
    launch(_copy_kernel, (1,), x, y, x.numel(), BLOCK=2048)
    torch.testing.assert_close(y, x.bfloat16(), rtol=0, atol=0, equal_nan=True)
