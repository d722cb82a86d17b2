"""Rotary positions, alone and after the norm of each head: the Triton kernels against the reference."""

import pytest
import torch
from budget import assert_within_budget
from hypothesis import given, settings
from hypothesis import strategies as st
from near import memory_watched
from torch import Tensor

from kernels import builtin, reference

pytest.importorskip("triton")
from kernels.gpu import rotary as ours

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = ["plain", "transposed", "part of q, k and v"]


def heads(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """x (B, H, T, D) as a model's projections leave it. "part of": NaN lie on both sides of every head."""
    B, H, T, D = shape
    if layout == "plain":
        return torch.randn(shape).to(DEVICE, dtype)
    x = torch.full((B, T, H + 2, D), torch.nan).to(DEVICE, dtype)
    x[:, :, 1:-1] = torch.randn(B, T, H, D).to(DEVICE, dtype)
    x = x[:, :, 1:-1]                                                # (B, T, H, D), gaps between
    return (x if layout == "part of q, k and v" else x.contiguous()).transpose(1, 2)


def angles(B: int | None, T: int, D: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """cos and sin, (T, D/2) or (B, 1, T, D/2), with NaN before and after them in memory."""
    shape = (T, D // 2) if B is None else (B, 1, T, D // 2)
    angle = torch.rand(shape) * 7
    both = []
    for values in (angle.cos(), angle.sin()):
        among = torch.full((values.numel() + 16,), torch.nan).to(DEVICE, dtype)
        among[8:-8] = values.flatten().to(DEVICE, dtype)
        both.append(among[8:-8].view(shape))
    return both[0], both[1]


def run(module, x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, dy: Tensor, exact: bool = False):
    """y, dx and, with a weight, dweight; all in float64 if `exact`."""
    if exact:
        x, cos, sin, dy = x.double(), cos.double(), sin.double(), dy.double()
        weight = weight if weight is None else weight.double()
    x = x.detach().requires_grad_()
    if weight is None:
        y = module.rotary(x, cos, sin)
        return [y, *torch.autograd.grad(y, x, dy)]
    weight = weight.detach().requires_grad_()
    y = module.rms_norm_rotary(x, weight, 1e-5, cos, sin)
    return [y, *torch.autograd.grad(y, (x, weight), dy)]


def summands(x: Tensor, weight: Tensor | None, dy: Tensor) -> tuple[float, float, float]:
    """How large are the numbers that y, dx and dweight are sums of? The sums may cancel to almost nothing.

    After a norm, dx is a difference of weight · dy / rms and a projection of it, and dweight adds dy · x / rms over
    all rows.
    """
    if weight is None:
        return 1.0, 1.0, 1.0
    x, weight, dy = x.double(), weight.double(), dy.double().abs().amax(-1, keepdim=True)  # turned, it is as large
    rms = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return 1.0, (dy * weight.abs().max() / rms).max().item(), (dy * x.abs() / rms).sum((0, 1, 2)).max().item()


@settings(max_examples=14, deadline=None)
@given(
    B=st.integers(1, 2), H=st.integers(1, 3), T=st.integers(1, 7), D=st.sampled_from([2, 6, 16, 24]),
    dtype=st.sampled_from(DTYPES), layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    normed=st.booleans(), wide_gain=st.booleans(), own_angles=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_outputs_and_gradients_are_the_references(
    B, H, T, D, dtype, layouts, normed, wide_gain, own_angles, seed
):  # fmt: skip
    """Any strides, any number of heads, angles shared or one's own; whatever is read too far is NaN."""
    torch.manual_seed(seed)
    x, dy = (heads((B, H, T, D), dtype, layout) for layout in layouts)
    cos, sin = angles(B if own_angles else None, T, D)
    weight = torch.randn(D).to(DEVICE, torch.float32 if wide_gain else dtype) if normed else None
    if normed:
        assert ours.uncovered_rms_norm_rotary(x, weight, 1e-5, cos, sin) is None
    assert ours.uncovered_rotary(x, cos, sin) is None
    fast, plain = run(ours, x, weight, cos, sin, dy), run(reference, x, weight, cos, sin, dy)
    truth, sizes = run(reference, x, weight, cos, sin, dy, exact=True), summands(x, weight, dy)
    for ours_, theirs, true, size in zip(fast, plain, truth, sizes, strict=False):
        assert ours_.dtype == theirs.dtype
        unit = torch.finfo(theirs.dtype).eps * max(1.0, size, true.abs().max().item())
        assert_within_budget(ours_, theirs, true, slack=2 * unit)


@pytest.mark.skipif(DEVICE == "cuda", reason="watches the interpreter, which runs without a GPU only")
@pytest.mark.parametrize("normed", [False, True])
def test_nothing_is_read_beyond_the_ends(normed):
    """Neither pairs nor heads nor positions fill a tile, and sums over rows find only what was written."""
    x, dy = torch.randn(1, 3, 5, 6), torch.randn(1, 3, 5, 6)
    cos, sin = (angle.clone() for angle in angles(None, 5, 6))
    weight = torch.randn(6) if normed else None
    with memory_watched():
        found = run(ours, x, weight, cos, sin, dy)
    torch.testing.assert_close(found, run(reference, x, weight, cos, sin, dy), rtol=1e-4, atol=1e-5)


def test_angles_may_be_in_half_precision():
    """They are read in their own dtype and used in float32."""
    x, (cos, sin) = heads((1, 2, 5, 8), torch.bfloat16, "plain"), angles(None, 5, 8, torch.bfloat16)
    truth = reference.rotary(x.double(), cos.double(), sin.double())
    assert_within_budget(ours.rotary(x, cos, sin), reference.rotary(x, cos, sin), truth, slack=2**-7)


@pytest.mark.parametrize("normed", [False, True])
def test_the_result_lies_in_memory_as_x_does(normed):
    """Attention and the projections' backward pass would otherwise begin with a copy."""
    x, (cos, sin) = heads((2, 3, 5, 8), torch.float32, "transposed"), angles(None, 5, 8)
    weight = torch.ones(8, device=DEVICE) if normed else None
    y, dx, *_ = run(ours, x, weight, cos, sin, torch.randn_like(x))
    assert y.stride() == dx.stride() == x.stride()


def test_gradients_are_the_same_to_the_last_bit_every_time():
    """Parts are summed in a fixed order: a run can be repeated exactly."""
    x, (cos, sin) = heads((2, 3, 11, 8), torch.float32, "transposed"), angles(None, 11, 8)
    weight, dy = torch.randn(8, device=DEVICE), torch.randn_like(x)
    once, again = (run(ours, x, weight, cos, sin, dy) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_turning_back_undoes_the_turn():
    """The gradient of a rotation is its inverse."""
    x, (cos, sin) = heads((1, 2, 7, 16), torch.float32, "transposed"), angles(None, 7, 16)
    y, dx = run(ours, x, None, cos, sin, ours.rotary(x, cos, sin))
    torch.testing.assert_close(dx, x)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_autograd_and_the_compiler_may_trust_the_ops(layout):
    """opcheck: shapes, strides and gradients promised to torch.compile are those that come."""
    x, (cos, sin) = heads((2, 2, 3, 4), torch.float32, layout).requires_grad_(), angles(None, 3, 4)
    weight = torch.randn(4, device=DEVICE, requires_grad=True)
    torch.library.opcheck(ours._turn, (x, None, cos, sin, 0.0, False))
    torch.library.opcheck(ours._turn, (x, weight, cos, sin, 1e-5, False))
    torch.library.opcheck(ours._backward, (x.detach(), x.detach(), weight.detach(), cos, sin, 1e-5))


def test_what_is_left_to_plain_torch_has_a_reason():
    """A fallback says why."""
    x, (cos, sin), weight = torch.ones(2, 3, 5, 8), angles(None, 5, 8), torch.ones(8)
    cos, sin = cos.cpu(), sin.cpu()
    assert "float64" in ours.uncovered_rotary(x, cos.double(), sin)
    assert "contiguous" in ours.uncovered_rotary(x.mT.contiguous().mT, cos, sin)
    assert "(B, 1, T, D/2)" in ours.uncovered_rotary(x, cos[:1], sin[:1])
    assert "gradient" in ours.uncovered_rotary(x, cos.clone().requires_grad_(), sin)
    assert "bfloat16" in ours.uncovered_rms_norm_rotary(x, weight.bfloat16(), 1e-5, cos, sin)


@pytest.mark.parametrize("module", [reference, builtin, ours])
def test_what_does_not_fit_is_refused_alike(module):
    """Shapes by which nothing can be turned."""
    x, (cos, sin) = torch.ones(2, 3, 5, 8), angles(None, 5, 8)
    cos, sin = cos.cpu(), sin.cpu()
    for args in ((x[0], cos, sin), (x[..., :7], cos, sin), (x, cos[:3], sin[:3]), (x, cos, sin[:1])):
        with pytest.raises(ValueError, match="rotary|needs cos and sin"):
            module.rotary(*args)


def test_the_fused_calls_of_torch_norm_and_turn_alike():
    """builtin's pair is what runs on a CPU."""
    x, (cos, sin), weight = torch.randn(2, 3, 5, 8), angles(None, 5, 8), torch.randn(8)
    found, expected = (module.rms_norm_rotary(x, weight, 1e-5, cos.cpu(), sin.cpu()) for module in (builtin, reference))
    torch.testing.assert_close(found, expected)
