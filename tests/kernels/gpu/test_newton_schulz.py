"""Newton-Schulz on half of the products: the result is the same, and the halves agree to the last bit."""

import pytest
import torch
from budget import assert_within_budget
from hypothesis import given, settings
from hypothesis import strategies as st
from near import memory_watched
from torch import Tensor

from kernels import builtin, reference
from kernels.gpu.newton_schulz import _symmetric_product, newton_schulz, symmetric_product, uncovered_newton_schulz

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDES = [1, 2, 7, 31, 32, 33, 65]  # the interpreter's tiles have a side of 32


def fenced(x: Tensor) -> Tensor:
    """x in the middle of a tensor of NaN: rows, columns and matrices around it."""
    n, M, N = x.shape
    buffer = torch.full((n + 2, M + 2, N + 3), float("nan"), dtype=x.dtype, device=DEVICE)
    inner = buffer[1:-1, 1:-1, 1:-2]  # (n, M, N)
    return inner.copy_(x)


@settings(max_examples=12)
@given(
    st.sampled_from([1, 2]), st.sampled_from(SIDES), st.sampled_from(SIDES), st.sampled_from(DTYPES), st.booleans(),
    st.integers(0, 2**16),
)  # fmt: skip
def test_the_product_is_right_and_symmetric_to_the_last_bit(n, M, N, dtype, added, seed):
    """Only half is computed. NaN all around: nothing of it may enter a sum."""
    torch.manual_seed(seed)
    x = torch.randn(n, M, N).to(DEVICE, dtype)  # (n, M, N)
    input = torch.randn(n, M, M).to(DEVICE)     # (n, M, M)
    input = (input + input.mT).to(dtype) if added else None
    beta, alpha = (0.7, -1.3) if added else (0.0, 1.0)
    y = symmetric_product(fenced(x), None if input is None else fenced(input), beta, alpha)
    truth = alpha * x.double() @ x.double().mT
    plain = alpha * x.float() @ x.float().mT
    if input is not None:
        truth, plain = truth + beta * input.double(), plain + beta * input.float()
    assert y.dtype == dtype and torch.equal(y, y.mT)
    assert_within_budget(y, plain.to(dtype), truth, slack=4e-6 * float(truth.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (4, 9), (33, 33), (40, 33), (2, 3, 5), (2, 1, 35, 3)], ids=str)
def test_it_is_as_right_as_plain_torch(shape, dtype):
    """Wide, tall, square, one number, and batches."""
    torch.manual_seed(0)
    g = torch.randn(shape).to(DEVICE, dtype)
    fast, plain, truth = newton_schulz(g), builtin.newton_schulz(g), reference.newton_schulz(g.double())
    assert fast.dtype == dtype
    assert_within_budget(fast, plain, truth, slack=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_singular_values_come_near_one(dtype):
    """That is all Muon asks for, in half precision too."""
    torch.manual_seed(0)
    values = torch.linalg.svdvals(newton_schulz(torch.randn(33, 50).to(DEVICE, dtype)).float())
    assert ((values > 0.6) & (values < 1.3)).all(), values


@pytest.mark.skipif(DEVICE == "cuda", reason="watches the interpreter, which runs without a GPU only")
def test_nothing_is_read_beyond_the_ends():
    """Rows that nobody stores could be read from beyond the matrix unnoticed, until a GPU faults on one."""
    x, s = torch.randn(1, 33, 35), torch.randn(1, 33, 33)
    with memory_watched():
        symmetric_product(x, None, 0.0, 1.0)
        symmetric_product(s, s, 0.5, 2.0)


def test_views_and_steps():
    """A gradient may be a view of any strides; fewer steps are fewer steps."""
    torch.manual_seed(0)
    g = torch.randn(2, 35, 80, device=DEVICE)[:, :, ::2].mT  # (2, 40, 35)
    for steps in (0, 1, 3):
        torch.testing.assert_close(newton_schulz(g, steps), builtin.newton_schulz(g, steps), atol=2e-6, rtol=1e-5)


def test_two_runs_agree_to_the_last_bit():
    """Else ranks that compute the same step would part."""
    g = torch.randn(40, 70, device=DEVICE)
    assert torch.equal(newton_schulz(g), newton_schulz(g))


def test_torch_knows_the_op():
    """Shapes and dtypes without computing, for torch.compile."""
    x, s = torch.randn(1, 3, 5, device=DEVICE), torch.randn(1, 3, 3, device=DEVICE)
    torch.library.opcheck(_symmetric_product, (x, None, 0.0, 1.0))
    torch.library.opcheck(_symmetric_product, (x, s + s.mT, 0.5, 2.0))


def test_it_says_what_it_does_not_cover():
    """float64 would be summed in float32."""
    g = torch.randn(3, 5)
    assert uncovered_newton_schulz(g) is None
    assert "float64" in uncovered_newton_schulz(g.double())


@pytest.mark.parametrize("op", [reference.newton_schulz, builtin.newton_schulz, newton_schulz])
def test_what_is_no_matrix_is_refused_alike(op):
    """A vector, or nothing at all."""
    for g in (torch.ones(3), torch.ones(0, 5)):
        with pytest.raises(ValueError, match="newton_schulz takes matrices"):
            op(g)
