"""RMSNorm, LayerNorm and RMSNorm after an addition: the Triton kernels against the reference, forward and backward."""

import pytest
import torch
from budget import assert_within_budget
from hypothesis import given, settings
from hypothesis import strategies as st
from near import memory_watched
from torch import Tensor

from kernels import builtin, reference

pytest.importorskip("triton")
from kernels.gpu import rms_norm as ours

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 0.1  # large: a row of tiny numbers would be scaled up, and with it what cancels in its gradient
SHAPES = [(1, 1), (3, 1), (7,), (5, 17), (2, 3, 33), (41, 64), (19, 70), (2, 2, 5, 8), (3, 257)]
LAYOUTS = ["plain", "among NaN", "transposed", "broken"]


def laid_out(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """Random numbers whose memory looks as asked. "among NaN": each row has NaN on both sides."""
    x = (torch.randn(shape) * 2 + 0.5).to(DEVICE, dtype)
    if layout == "among NaN":
        wide = torch.full((*shape[:-1], shape[-1] + 10), torch.nan, device=DEVICE, dtype=dtype)
        wide[..., 3:-7] = x
        x = wide[..., 3:-7]
    if layout == "transposed" and len(shape) > 2:
        x = x.transpose(-2, -3).contiguous().transpose(-2, -3)
    if layout == "broken":
        x = x.mT.contiguous().mT if len(shape) > 1 else x.repeat_interleave(2)[::2]
    return x


def run(module, op: str, tensors: list[Tensor | None], grads: list[Tensor], dtype: torch.dtype | None = None):
    """Outputs, then gradients of the tensors; all computed in `dtype` if one is given."""
    leaves = [x if x is None else x.detach() if dtype is None else x.detach().to(dtype) for x in tensors]
    leaves = [x if x is None else x.requires_grad_() for x in leaves]
    outputs = getattr(module, op)(*leaves, EPS)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    grads = [g.to(y.dtype) for g, y in zip(grads, outputs, strict=True)]
    return [*outputs, *torch.autograd.grad(outputs, [x for x in leaves if x is not None], grads)]


@settings(max_examples=20, deadline=None)
@given(
    op=st.sampled_from(["rms_norm", "layer_norm", "add_rms_norm"]), shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(DTYPES), wide_gain=st.booleans(), biased=st.booleans(),
    layouts=st.lists(st.sampled_from(LAYOUTS), min_size=4, max_size=4), seed=st.integers(0, 99),
)  # fmt: skip
def test_outputs_and_gradients_are_the_references(op, shape, dtype, wide_gain, biased, layouts, seed):
    """Odd widths, every dtype, and memory in any order, NaN beside the rows: whatever is read too far shows."""
    if shape[-1] == 1 and op == "layer_norm":
        return  # a single channel is its own mean: all is cancellation
    torch.manual_seed(seed)
    x, second, *grads = (laid_out(shape, dtype, layout) for layout in layouts)
    weight, bias = (torch.randn(shape[-1]).to(DEVICE, torch.float32 if wide_gain else dtype) for _ in range(2))
    tensors = {
        "rms_norm": [x, weight], "layer_norm": [x, weight, bias if biased else None],
        "add_rms_norm": [x, second, weight],
    }[op]  # fmt: skip
    assert getattr(ours, f"uncovered_{op}")(*tensors, 1e-5) is None
    grads = grads[: 1 + (op == "add_rms_norm")]
    fast, plain = run(ours, op, tensors, grads), run(reference, op, tensors, grads)
    truth = run(reference, op, tensors, grads, torch.float64)
    for ours_, theirs, true in zip(fast, plain, truth, strict=True):
        assert ours_.dtype == theirs.dtype
        unit = torch.finfo(theirs.dtype).eps * max(1.0, true.abs().max().item())
        assert_within_budget(ours_, theirs, true, slack=4 * unit)  # dweight: rows are summed in another order


@pytest.mark.skipif(DEVICE == "cuda", reason="watches the interpreter, which runs without a GPU only")
@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "add_rms_norm"])
def test_nothing_is_read_beyond_the_ends(op):
    """Neither channels nor rows fill a tile, and sums over rows find only what was written."""
    x, second, *grads = (torch.randn(5, 19) for _ in range(4))
    weight, bias = torch.randn(19), torch.randn(19)
    tensors = {"rms_norm": [x, weight], "layer_norm": [x, weight, bias], "add_rms_norm": [x, second, weight]}[op]
    grads = grads[: 1 + (op == "add_rms_norm")]
    with memory_watched():
        found = run(ours, op, tensors, grads)
    torch.testing.assert_close(found, run(reference, op, tensors, grads), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adding_first_changes_no_bit(dtype):
    """total is rounded before it is normed, so that a model may use the fused op in some places only."""
    x, residual = laid_out((9, 40), dtype, "plain"), laid_out((9, 40), dtype, "among NaN")
    weight = torch.randn(40, device=DEVICE)
    y, total = ours.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(total, x + residual)
    assert torch.equal(y, ours.rms_norm(x + residual, weight, 1e-5))


@pytest.mark.parametrize("used", [0, 1])
def test_either_output_of_an_addition_may_go_unused(used):
    """The last block's total is nobody's input: its gradient is absent, not zeros to be read."""
    tensors = [laid_out((6, 12), torch.float32, "plain").requires_grad_() for _ in range(2)]
    weight = torch.randn(12, device=DEVICE, requires_grad=True)
    dy = torch.randn(6, 12, device=DEVICE)
    for module in (ours, reference):
        module.add_rms_norm(*tensors, weight, 1e-5)[used].backward(dy)
        if module is ours:
            found = [x.grad.clone() for x in tensors]
            tensors = [x.detach().requires_grad_() for x in tensors]
    torch.testing.assert_close(found, [x.grad for x in tensors])


def test_gradients_are_the_same_to_the_last_bit_every_time():
    """Parts are summed in a fixed order: a run can be repeated exactly."""
    weight, bias = torch.randn(2, 48, device=DEVICE)
    tensors = [laid_out((67, 48), torch.float32, "plain"), weight, bias]
    grads = [torch.randn(67, 48, device=DEVICE)]
    once, again = (run(ours, "layer_norm", tensors, grads) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_heads_behind_a_transpose_keep_their_layout():
    """QK-norm meets (B, T, H, D) as (B, H, T, D): a result in another order would cost attention a copy."""
    x = laid_out((2, 3, 5, 8), torch.float32, "transposed").requires_grad_()
    y = ours.rms_norm(x, torch.ones(8, device=DEVICE), 1e-5)
    assert y.stride() == x.stride()
    assert torch.autograd.grad(y.sum(), x)[0].stride() == x.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_autograd_and_the_compiler_may_trust_the_ops(layout):
    """opcheck: shapes, strides and gradients promised to torch.compile are those that come."""
    x, residual = (laid_out((2, 3, 6), torch.float32, layout).requires_grad_() for _ in range(2))
    weight, bias = (torch.randn(6, device=DEVICE, requires_grad=True) for _ in range(2))
    torch.library.opcheck(ours._forward, (x, residual, weight, None, 1e-5, False))
    torch.library.opcheck(ours._forward, (x, None, weight, bias, 1e-5, True))
    y, total, statistics = (t.detach() for t in ours._forward(x, residual, weight, None, 1e-5, False))
    torch.library.opcheck(ours._backward, (y, total, total, weight.detach(), statistics, False))


def test_what_is_left_to_plain_torch_has_a_reason():
    """A fallback says why."""
    x, weight = torch.ones(2, 8), torch.ones(8)
    assert "float64" in ours.uncovered_rms_norm(x.double(), weight, 1e-5)
    assert "20000" in ours.uncovered_rms_norm(torch.ones(1, 20000), torch.ones(20000), 1e-5)
    assert "bfloat16" in ours.uncovered_layer_norm(x, weight, weight.bfloat16(), 1e-5)


@pytest.mark.parametrize("module", [reference, builtin, ours])
def test_what_does_not_fit_is_refused_alike(module):
    """Broadcasting would make an answer of some of these, and not the one that was meant."""
    x, weight = torch.ones(2, 8), torch.ones(8)
    for call, message in [
        (lambda: module.rms_norm(x[:0], weight, 1e-5), r"got \(0, 8\)"),
        (lambda: module.rms_norm(x, weight[:1], 1e-5), r"gains of shape \(8,\), got \(1,\)"),
        (lambda: module.layer_norm(x, weight, torch.ones(2, 8), 1e-5), r"got \(2, 8\)"),
        (lambda: module.add_rms_norm(x, x[:1], weight, 1e-5), r"\(2, 8\) of torch.float32 and \(1, 8\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_fused_calls_of_torch_add_and_norm_alike():
    """builtin's pair is what runs on a CPU."""
    x, residual, weight = torch.randn(4, 16), torch.randn(4, 16), torch.randn(16)
    found, expected = (module.add_rms_norm(x, residual, weight, 1e-5) for module in (builtin, reference))
    torch.testing.assert_close(found, expected)
