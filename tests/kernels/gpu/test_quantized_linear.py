"""Weights of 8 and 4 bits: what they stand for, how they are made, and the kernels that read them."""

import pytest
import torch
from budget import assert_within_budget
from hypothesis import given, settings
from hypothesis import strategies as st
from near import memory_watched
from torch import Tensor

from kernels import quantization, reference
from kernels.quantization import dequantized, quantize_int4, quantize_int8

pytest.importorskip("triton")
from kernels.gpu import quantized_linear as gpu

SLACK = {torch.float32: 2e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6}


def inside(x: Tensor, garbage: float) -> Tensor:
    """x amid a larger tensor of garbage: what is read beyond its edges shows in the result."""
    around = torch.full((x.size(0) + 4, x.size(1) + 32), garbage).to(x.dtype)
    middle = around[2:-2, 16:-16]
    return middle.copy_(x)


def quantized(N: int, K: int, group: int | None) -> tuple[Tensor, Tensor]:
    w = torch.randn(N, K) / K**0.5
    weight, scale = quantize_int8(w) if group is None else quantize_int4(w, group)
    scale = inside(scale, float("nan")) if group else inside(scale[None], float("nan"))[0]
    return inside(weight, 99), scale


@settings(max_examples=40)
@given(
    M=st.sampled_from([1, 1, 2, 5, 16, 17]),
    N=st.integers(1, 70),
    width=st.sampled_from([(96, 32), (192, 96), (128, 128), (320, 64), (1, None), (37, None), (256, None)]),
    dtype=st.sampled_from(list(SLACK)),
    seed=st.integers(0, 99),
)
def test_it_equals_its_twin(M, N, width, dtype, seed):
    """Odd rows and columns, groups that are no power of two, views amid garbage; the scale multiplies sums."""
    torch.manual_seed(seed)
    K, group = width
    weight, scale = quantized(N, K, group)
    x = inside(torch.randn(M, K).to(dtype), float("nan"))
    truth = reference.quantized_linear(x.double(), weight, scale.double())
    plain = reference.quantized_linear(x, weight, scale)
    fast = gpu.quantized_linear(x, weight, scale)
    assert fast.dtype == dtype
    slack = SLACK[dtype]
    if M > gpu.FEW:  # torch multiplies, by W rounded to x.dtype, each number by half a unit at most
        longest = x.double().norm(dim=-1).max() * dequantized(weight, scale).norm(dim=-1).max()
        slack += torch.finfo(dtype).eps / 2 * longest.item()
    assert_within_budget(fast, plain, truth, slack)


@pytest.mark.parametrize("group", [None, 32])
def test_up_to_sixteen_rows_read_small_integers(group, monkeypatch):
    """That is what quantization is for; a row too many for the tile must not be forgotten."""
    seen, kernel = [], gpu.few_rows
    monkeypatch.setattr(gpu, "few_rows", lambda x, *rest: (seen.append(x.size(0)), kernel(x, *rest))[1])
    weight, scale = quantized(5, 64, group)
    for M in (1, 16, 17, 33):
        x = torch.randn(M, 64)
        torch.testing.assert_close(
            gpu.quantized_linear(x, weight, scale), reference.quantized_linear(x, weight, scale), rtol=1e-5, atol=1e-5
        )
    assert seen == [1, 16]


@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("K, group", [(96, 96), (64, 32), (37, None)])
def test_nothing_is_read_beyond_the_ends(M, K, group):
    """Rows of x and of W to fill a tile, columns to fill a piece: none of them are there. Nor need x lie in order."""
    weight, scale = (x.contiguous() for x in quantized(5, K, group))
    x = torch.randn(K, M).T
    with memory_watched():
        y = gpu.quantized_linear(x, weight.clone(), scale.clone())
    torch.testing.assert_close(y, reference.quantized_linear(x, weight, scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("M", [1, 2])
@pytest.mark.parametrize("group", [None, 32])
def test_every_stored_number_is_read_exactly(M, group):
    """All 256 bytes against the identity: low nibble even, high nibble odd, -128 and -8 too."""
    every = torch.arange(256).to(torch.uint8)[None]
    weight, scale = (every.view(torch.int8), torch.ones(1)) if group is None else (every, torch.ones(1, 16))
    K = 256 if group is None else 512
    x = torch.eye(K)
    for rows in (x[i : i + M] for i in range(0, K, 37 if K > M + 36 else M)):
        assert torch.equal(gpu.quantized_linear(rows, weight, scale), rows @ dequantized(weight, scale).T)


def test_leading_dimensions_stay_as_they_are():
    """Decoding has (B, 1, K), a single sequence (K,), an empty batch (0, K)."""
    weight, scale = quantized(5, 64, 32)
    for shape in [(64,), (3, 1, 64), (2, 20, 64), (0, 64)]:
        x = torch.randn(shape)
        torch.testing.assert_close(
            gpu.quantized_linear(x, weight, scale), reference.quantized_linear(x, weight, scale), rtol=1e-5, atol=1e-6
        )


def test_int4_by_hand():
    """Two numbers a byte, the even one low, 8 added: (1, -7) with scale 1 is 9 + 16 · 1."""
    w = torch.zeros(1, 64)
    w[0, :2], w[0, 62:] = torch.tensor([1.0, -7.0]), torch.tensor([0.5, 3.5])
    weight, scale = quantize_int4(w, group=32)
    assert torch.equal(scale, torch.tensor([[1.0, 0.5]]))
    assert weight[0, 0] == 9 + 16 * 1 and weight[0, 31] == 9 + 16 * 15 and weight[0, 5] == 8 + 16 * 8
    assert torch.equal(dequantized(weight, scale), w)


def test_int8_by_hand():
    """The largest number of a row becomes ±127; a row of zeros stays one."""
    weight, scale = quantize_int8(torch.tensor([[-2.54, 1.27, 0.01], [0.0, 0.0, 0.0]]))
    assert weight.tolist() == [[-127, 64, 0], [0, 0, 0]]  # 63.5 rounds to even
    torch.testing.assert_close(scale, torch.tensor([0.02, 0.0]))


@pytest.mark.parametrize("steps", [127, 7])
def test_a_number_moves_by_half_a_step_at_most(steps):
    """Rounding to the nearest: the error of every weight is bounded by its row's or group's own scale."""
    torch.manual_seed(0)
    w = torch.randn(9, 128) * torch.logspace(-6, 6, 9)[:, None]
    weight, scale = quantize_int8(w) if steps == 127 else quantize_int4(w, 32)
    step = scale[:, None].expand(9, 128) if steps == 127 else scale.repeat_interleave(32, 1)
    assert ((dequantized(weight, scale) - w).abs() <= step * 0.50001).all()


@pytest.mark.parametrize("M", [1, 2])
@pytest.mark.parametrize("group", [None, 32])
def test_torch_knows_the_op(M, group):
    """Shapes on paper as in fact, nothing changed in place: what torch.compile relies on."""
    torch.library.opcheck(gpu._few_rows, (torch.randn(M, 64), *quantized(3, 64, group)))


@pytest.mark.parametrize("M", [1, 3])
def test_two_runs_agree_to_the_last_bit(M):
    """A sampled text can be repeated only if its logits can."""
    args = (torch.randn(M, 192), *quantized(40, 192, 64))
    assert torch.equal(gpu.quantized_linear(*args), gpu.quantized_linear(*args))


def test_what_does_not_fit_is_refused():
    """The same errors from every implementation, with the numbers."""
    weight, scale = quantized(4, 64, 32)
    for linear in (gpu.quantized_linear, reference.quantized_linear):
        with pytest.raises(ValueError, match="64 columns"):
            linear(torch.randn(1, 32), weight, scale)
        with pytest.raises(ValueError, match=r"not torch\.float32"):
            linear(torch.randn(1, 64), weight.float(), scale)
        with pytest.raises(ValueError, match=r"needs a scale \(4, K/group\)"):
            linear(torch.randn(1, 64), weight, scale[:, 0])
        with pytest.raises(ValueError, match="do not divide"):
            linear(torch.randn(1, 64), weight, torch.ones(4, 3))
        with pytest.raises(ValueError, match="group=16"):
            linear(torch.randn(1, 64), weight, torch.ones(4, 4))
    with pytest.raises(ValueError, match="group=48"):
        quantize_int4(torch.randn(2, 96), 48)


def test_what_is_left_to_plain_torch_has_a_reason():
    """A fallback gives its reason."""
    (weight, scale), x = quantized(4, 64, 32), torch.randn(1, 64)
    why = gpu.uncovered_quantized_linear
    assert why(x, weight, scale) is None
    assert "gradients" in why(x.clone().requires_grad_(), weight, scale)
    assert "float64" in why(x.double(), weight, scale)
    assert "gradients" in why(x, weight, scale.clone().requires_grad_())
    with torch.no_grad():
        assert why(x.clone().requires_grad_(), weight, scale) is None
    assert "contiguous" in why(x, weight.T.contiguous().T, scale)
    assert "contiguous" in why(x, weight, scale.T.contiguous().T)
    assert quantization.quantized_linear is reference.quantized_linear
