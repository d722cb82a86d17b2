"""What is read and written once, is: no second pass over a gradient, no wider copy of a weight."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")
from kernels.gpu import cross_entropy, newton_schulz, quantized_linear, rms_norm
from kernels.gpu.parts import sum_parts
from kernels.quantization import dequantized, quantize_int4, quantize_int8

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.float16, torch.bfloat16]


class Made(TorchDispatchMode):
    """Notes every operation that returns floats, with how many and of which dtype."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        views = ("view", "expand", "unsqueeze", "select", "flatten", "detach", "empty")
        if isinstance(result, Tensor) and result.is_floating_point() and not any(v in func.name() for v in views):
            self.found.append((func.name(), result.numel(), result.dtype))
        return result

    def __enter__(self) -> "Made":
        self.found: list[tuple[str, int, torch.dtype]] = []
        return super().__enter__()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_gradient_is_scaled_in_one_pass_and_in_float32(dtype):
    """1/N rounded to half precision would tilt the whole gradient; made wide first, it would be written thrice."""
    torch.manual_seed(0)
    x, weight = (torch.randn(shape, device=DEVICE).to(dtype).requires_grad_() for shape in ((7, 16), (20, 16)))
    targets, factor = torch.arange(7, device=DEVICE), 1 / 7
    loss = cross_entropy.linear_cross_entropy(x, weight, targets, reduction="sum")
    whole = [d.detach().clone() for d in loss.grad_fn.saved_tensors]
    with Made() as made:
        found = torch.autograd.grad(loss, (x, weight), torch.tensor(factor, device=DEVICE))
    for got, d in zip(found, whole, strict=True):
        assert torch.equal(got, (d.float() * torch.tensor(factor, device=DEVICE)).to(dtype))
    assert [(numel, kind) for _, numel, kind in made.found if numel > 1] == [(7 * 16, dtype), (20 * 16, dtype)]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_is_written_out_once(bits, dtype):
    """In float32 it would take four times the memory of the model that was quantized to save memory."""
    torch.manual_seed(0)
    w = torch.randn(6, 64, device=DEVICE)
    weight, scale = quantize_int8(w) if bits == 8 else quantize_int4(w, 32)
    x = torch.randn(17, 64, device=DEVICE).to(dtype)
    with Made() as made:
        y = quantized_linear.quantized_linear(x, weight, scale)
    assert torch.equal(y, torch.nn.functional.linear(x, dequantized(weight, scale).to(dtype)))
    assert not [each for each in made.found if each[1] == 6 * 64 and each[2] == torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 37), (2, 4, 16), (2, 3, 1)], ids=str)
def test_parts_are_summed_and_rounded_once(shape, dtype):
    """The interpreter's steps have 4 rows, a program 16 columns; nothing of a neighbour may enter a sum."""
    torch.manual_seed(0)
    parts = torch.randn(shape, device=DEVICE)
    total = sum_parts(parts, dtype)
    assert total.dtype == dtype
    torch.testing.assert_close(total, parts.sum(1).to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_after_a_norms_backward_pass_torch_has_nothing_to_do():
    """A sum and a conversion would be two launches after every norm of a model."""
    x = torch.randn(9, 8, device=DEVICE).bfloat16().requires_grad_()
    weight = torch.ones(8, device=DEVICE).bfloat16().requires_grad_()
    y, dy = rms_norm.rms_norm(x, weight, 1e-5), torch.ones(9, 8, device=DEVICE).bfloat16()
    with Made() as made:
        _, dweight = torch.autograd.grad(y, (x, weight), dy)
    assert dweight.dtype == torch.bfloat16
    assert not [name for name, *_ in made.found if "minigpt" not in name]


def test_gains_of_two_dtypes_are_left_to_plain_torch():
    """Both sums leave the kernel in one tensor."""
    x, weight = torch.ones(2, 8).bfloat16(), torch.ones(8)
    assert "differ in dtype" in rms_norm.uncovered_layer_norm(x, weight, weight.bfloat16(), 1e-5)
    assert rms_norm.uncovered_layer_norm(x, weight, weight, 1e-5) is None


def test_a_step_of_newton_schulz_adds_nothing_beside_its_products():
    """a·x is on the diagonal of what x is multiplied by: torch would copy x to add it."""
    g = torch.randn(33, 40, device=DEVICE).bfloat16()
    with Made() as made:
        newton_schulz.newton_schulz(g, 2)
    assert [name for name, *_ in made.found if "mm" in name] == ["aten::bmm"] * 2


@pytest.mark.parametrize("M", [5, 33])
def test_the_diagonal_is_added_once(M):
    """Tiles on the diagonal alone have one, and the last of them ends before its side does."""
    torch.manual_seed(0)
    s = torch.randn(2, M, M, device=DEVICE)
    s = s + s.mT  # (n, M, M)
    product = newton_schulz.symmetric_product
    eye = torch.eye(M, device=DEVICE)
    torch.testing.assert_close(product(s, s, 0.5, 2.0, 3.0), product(s, s, 0.5, 2.0) + 3.0 * eye)
