"""The loss on the GPU: as right as plain torch, in one reused buffer, and nothing of one chunk left in the next."""

import math

import pytest
import torch
from budget import assert_within_budget
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import builtin, checks, reference
from kernels.gpu import cross_entropy
from kernels.gpu.cross_entropy import _chunk_rows, linear_cross_entropy, uncovered_linear_cross_entropy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True, scope="module")
def chunks_of_four():
    """On a GPU too, so that a few tokens make several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "_chunk_rows", lambda *_: 4)
        yield


def example(N: int, V: int, C: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(N + V)
    x, weight = torch.randn(N, C).to(DEVICE, dtype), torch.randn(V, C).to(DEVICE, dtype)
    return x.requires_grad_(), weight.requires_grad_(), torch.randint(V, (N,)).to(DEVICE)


def results(op, x: Tensor, weight: Tensor, targets: Tensor, **how) -> list[Tensor]:
    """Losses and, for a fixed upstream gradient, the gradients."""
    loss = op(x, weight, targets, **how)
    upstream = torch.randn(loss.shape, generator=torch.Generator().manual_seed(0)).to(loss)
    return [loss.detach(), *torch.autograd.grad(loss, (x, weight), upstream)]


def compare(x: Tensor, weight: Tensor, targets: Tensor, **how) -> None:
    """With float64, and with plain torch's own distance from it."""
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    truth = results(reference.linear_cross_entropy, *exact, targets, **how)
    plain = results(reference.linear_cross_entropy, x, weight, targets, **how)
    fast = results(linear_cross_entropy, x, weight, targets, **how)
    for one, two, true in zip(fast, plain, truth, strict=True):
        assert one.dtype == two.dtype
        slack = 16 * torch.finfo(one.dtype).eps * max(1.0, float(true.abs().max()))
        assert_within_budget(one, two, true, slack)


@settings(max_examples=25)
@given(
    N=st.sampled_from([1, 3, 4, 9]), V=st.sampled_from([1, 2, 16, 33, 50]), C=st.sampled_from([1, 5, 16]),
    dtype=st.sampled_from(DTYPES), reduction=st.sampled_from(["none", "sum", "mean"]),
    softcap=st.sampled_from([None, 3.0]), z_loss=st.sampled_from([0.0, 0.01]), ignored=st.sampled_from([0, 1]),
)  # fmt: skip
def test_losses_and_gradients_are_as_right_as_plain_torch(N, V, C, dtype, reduction, softcap, z_loss, ignored):
    """Odd shapes, a last chunk that is shorter, and every combination of the options."""
    x, weight, targets = example(N, V, C, dtype)
    targets[1::2] = -100 if ignored else targets[1::2]
    compare(x, weight, targets, reduction=reduction, softcap=softcap, z_loss=z_loss)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_token_that_exists_may_be_the_ignored_one(reduction):
    """Padding often has an id of its own, which the vocabulary contains: here 0."""
    x, weight, targets = example(9, 5)
    targets[::2] = 0
    compare(x, weight, targets, reduction=reduction, ignore_index=0)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_master_weight_in_float32_gets_its_gradient_in_float32(reduction):
    """Training in bfloat16 keeps the head in float32: its gradient must not be rounded to half precision."""
    x, weight, targets = example(9, 33, dtype=torch.bfloat16)
    weight = weight.detach().float().requires_grad_()
    compare(x, weight, targets, reduction=reduction)
    (dweight,) = torch.autograd.grad(linear_cross_entropy(x, weight, targets).mean(), weight)
    assert not torch.equal(dweight, dweight.bfloat16().float())


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_strides_do_not_matter(reduction):
    """Transposed and sliced inputs, batches of two dimensions, and an upstream gradient that is one number repeated."""
    x, weight, targets = example(24, 33)
    x = x.detach().view(6, 4, 8)[:, :3].transpose(0, 1).requires_grad_()       # (3, 6, 8)
    weight = weight.detach().T.contiguous().T[::2].requires_grad_()            # (17, 8)
    targets = targets.view(6, 4)[:, :3].T % 17                                 # (3, 6)
    compare(x, weight, targets, reduction=reduction)
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction)
    assert loss.shape == (targets.shape if reduction == "none" else ())
    dx, _ = torch.autograd.grad(loss.sum(), (x, weight))
    plain = reference.linear_cross_entropy(x, weight, targets, reduction=reduction)
    torch.testing.assert_close(dx, torch.autograd.grad(plain.sum(), x)[0])


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_large_logits_do_not_overflow(reduction):
    """exp(89) is infinite in float32; the running maximum keeps every exponent at or below 0, in any order."""
    targets = torch.tensor([0, 1, 39, 20], device=DEVICE)
    ramp = torch.linspace(-300, 300, 40, device=DEVICE)[:, None].requires_grad_()
    x = torch.tensor([[1.0], [-1.0], [1.0], [0.01]], device=DEVICE).requires_grad_()
    compare(x, ramp, targets, reduction=reduction)


def test_a_mean_over_nothing_is_nan_and_teaches_nothing():
    """As in the reference: no loss, and gradients of 0 rather than NaN in every weight."""
    x, weight, targets = example(5, 7)
    targets.fill_(-100)
    for op in (linear_cross_entropy, reference.linear_cross_entropy):
        loss, dx, dweight = results(op, x, weight, targets)
        assert loss.isnan() and not dx.any() and not dweight.any()
    assert not linear_cross_entropy(x, weight, targets, reduction="none").any()


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_an_ignored_token_gets_no_gradient_whatever_it_is_weighed_by(reduction):
    """0 times an infinite weight is NaN: the row must be 0 because it is ignored, not because of a product."""
    x, weight, targets = example(6, 7)
    targets[2] = -100
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction)
    upstream = torch.ones_like(loss)
    if reduction == "none":
        upstream[2] = math.inf
    dx, dweight = torch.autograd.grad(loss, (x, weight), upstream)
    assert not dx[2].any() and dx.isfinite().all() and dweight.isfinite().all()


def test_the_factor_of_a_mean_is_not_rounded_to_half_precision():
    """1/N in bfloat16 is off by up to 0.4%, which would tilt the whole gradient: it is multiplied in float32."""
    x, weight, targets = example(5, 7, dtype=torch.bfloat16)
    loss = linear_cross_entropy(x, weight, targets, reduction="sum")
    once, scaled = (torch.autograd.grad(loss * by, x, retain_graph=True)[0] for by in (1.0, 1.003))
    assert torch.equal(scaled, (once.float() * 1.003).bfloat16())
    assert not torch.equal(scaled, once * torch.tensor(1.003).bfloat16().to(DEVICE))


@pytest.mark.parametrize("V", [33, 48])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_what_lay_in_the_buffer_before_never_leaks(monkeypatch, reduction, V):
    """Rows are padded to multiples of 16 and the buffer is reused; here all memory is NaN until written."""
    plain = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda *args, **how: _poisoned(plain(*args, **how)))
    x, weight, targets = example(9, V)
    fast = results(linear_cross_entropy, x, weight, targets, reduction=reduction)
    torch.testing.assert_close(fast, results(reference.linear_cross_entropy, x, weight, targets, reduction=reduction))


def _poisoned(x: Tensor) -> Tensor:
    return x.fill_(math.nan) if x.is_floating_point() else x


def test_nothing_beyond_the_inputs_is_read():
    """The interpreter and the GPU read past an end without a word: NaN stands there."""
    x, weight, targets = example(9, 33)
    walled = [torch.full((each.size(0) + 40, 8), math.nan, device=DEVICE) for each in (x, weight)]
    views = [wall[20:-20] for wall in walled]
    for view, each in zip(views, (x, weight), strict=True):
        view.copy_(each.detach())
    ids = torch.full((49,), 10**12, device=DEVICE)
    ids[20:29] = targets
    views = [view.requires_grad_() for view in views]
    assert all(each.isfinite().all() for each in results(linear_cross_entropy, *views, ids[20:29], reduction="none"))


def test_the_logits_are_never_held_whole():
    """That is what the op is for: nothing of N·V bytes, forward or backward, and one buffer for all chunks."""
    N, V, how = 24, 64, (-100, 0.0, 0.0)  # chunks of 4 tokens
    x, weight, targets = (each.detach() for each in example(N, V, C=2))
    for graded in (True, False):
        with Largest() as largest:  # looks into the functions themselves: of an op it would see the results alone
            if graded:
                cross_entropy.total_loss(x, weight, targets, *how, True, True)
            else:
                losses, lse = cross_entropy.token_losses(x, weight, targets, *how)
                cross_entropy.token_gradients(losses, lse, x, weight, targets, *how, True, True)
        assert largest.size == 4 * V * 4 < N * V
        assert largest.buffers == (1 if graded else 2)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation makes, and how many are made for a chunk's logits."""

    size = buffers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.numel() * result.element_size())
            self.buffers += "empty" in func.name() and result.dtype == torch.float32 and result.shape == (4, 64)
        return result


@pytest.mark.parametrize("row_bytes", [2 * 256, 2 * 50304, 4 * 131072, 8 * 10**6])
def test_a_chunk_is_about_200_megabytes(row_bytes):
    """Or 512 tokens: fewer would leave most of a GPU idle in the matmuls."""
    rows = _chunk_rows(90, row_bytes)
    assert rows % 128 == 0
    assert rows == 512 or 180e6 < rows * row_bytes < 220e6


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("frozen", ["x", "weight", "both"])
def test_what_is_frozen_gets_no_gradient(monkeypatch, reduction, frozen):
    """Adapters under a frozen head must not pay for a (V, C) gradient, nor an evaluation for any."""
    x, weight, targets = example(5, 7)
    leaves = {"x": x, "weight": weight}
    wanted = {name: leaf for name, leaf in leaves.items() if frozen not in (name, "both")}
    given_x, given_weight = (leaf if name in wanted else leaf.detach() for name, leaf in leaves.items())
    products = []
    monkeypatch.setattr(cross_entropy, "_add_product", lambda total, a, b: products.append(a) or total.addmm_(a, b))
    loss = linear_cross_entropy(given_x, given_weight, targets, reduction=reduction).sum()
    if wanted:
        plain = reference.linear_cross_entropy(given_x, given_weight, targets, reduction=reduction).sum()
        leaf = next(iter(wanted.values()))
        torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(plain, leaf))
    assert loss.requires_grad == bool(wanted)
    assert bool(products) == ("weight" in wanted)
    with torch.no_grad():
        products.clear()
        linear_cross_entropy(x, weight, targets, reduction=reduction)
        assert not products


def test_gradients_are_the_same_to_the_last_bit_every_time():
    """A run that is resumed must equal one that was never interrupted."""
    x, weight, targets = example(9, 33, dtype=torch.bfloat16)
    for reduction in ("none", "mean"):
        once, again = (results(linear_cross_entropy, x, weight, targets, reduction=reduction) for _ in range(2))
        assert all(torch.equal(one, two) for one, two in zip(once, again, strict=True))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_second_backward_pass_through_a_kept_graph_finds_the_same(reduction):
    """The buffer is overwritten in place, what is kept for the backward pass must not be."""
    x, weight, targets = example(5, 7)
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction).sum()
    once, again = (torch.autograd.grad(loss, (x, weight), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(once, again, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_second_derivative_is_refused(reduction):
    """The gradient is made by hand, and its own derivative is not: better an error than a wrong number."""
    x, weight, targets = example(5, 7)
    loss = linear_cross_entropy(x, weight, targets, reduction=reduction).sum() ** 2
    (dx,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|no autograd formula"):
        dx.sum().backward()


OPS = [linear_cross_entropy, builtin.linear_cross_entropy, reference.linear_cross_entropy]


@pytest.mark.parametrize("op", OPS, ids=["gpu", "builtin", "reference"])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(3, 5)}, r"weight \(V, C\), got x \(3, 5\) and weight \(7, 8\)"),
        ({"weight": torch.zeros(8)}, r"weight \(V, C\)"),
        ({"targets": torch.zeros(4).long()}, r"targets \(3,\), got \(4,\)"),
        ({"targets": torch.zeros(3).int()}, r"int32.*\.long\(\)"),
        ({"x": torch.zeros(0, 8), "targets": torch.zeros(0).long()}, r"nothing to predict: x \(0, 8\)"),
        ({"weight": torch.zeros(0, 8)}, "nothing to predict"),
        ({"reduction": "max"}, "'max' is not one of: none, mean, sum"),
        ({"softcap": 0.0}, "softcap=0.0 must be positive"),
    ],
)
def test_every_implementation_refuses_the_same(op, change, message):
    """With the numbers and what would work, before any kernel reads past an end."""
    good = {"x": torch.zeros(3, 8), "weight": torch.zeros(7, 8), "targets": torch.zeros(3).long()}
    tensors = {name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in (good | change).items()}
    with pytest.raises(ValueError, match=message):
        op(**tensors)


@pytest.mark.parametrize("op", OPS, ids=["gpu", "builtin", "reference"])
@pytest.mark.parametrize("strange", [7, -1, -100, 2**40])
def test_a_target_outside_the_vocabulary_is_refused_on_a_cpu(op, strange):
    """It would be a read out of bounds, or with -1 the last token, silently."""
    targets = torch.tensor([0, strange, 6])
    with pytest.raises(ValueError, match=rf"target {strange} is outside a vocabulary of 7: .* 0\.\.6.*ignore_index=-7"):
        op(torch.zeros(3, 8), torch.zeros(7, 8), targets, ignore_index=-7)


@pytest.mark.parametrize("strange", [7, -1, 2**40])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_target_outside_the_vocabulary_makes_nan_on_a_gpu(monkeypatch, reduction, strange):
    """Nothing is read for it, and nobody can overlook it."""
    monkeypatch.setattr(checks, "check_targets", lambda *args: None)
    x, weight, targets = example(6, 7)
    targets[4] = strange
    loss, dx, dweight = results(linear_cross_entropy, x, weight, targets, reduction=reduction)
    assert dx[4].isnan().all() and dx[:4].isfinite().all() and dweight.isnan().all()
    assert loss.isnan().sum() == 1


def test_float64_is_left_to_plain_torch():
    """The sums are taken in float32."""
    x, weight, targets = example(2, 3)
    assert uncovered_linear_cross_entropy(x, weight, targets, softcap=3.0) is None
    assert "float64" in uncovered_linear_cross_entropy(x.double(), weight, targets)


@pytest.mark.parametrize("name", ["token_losses", "token_gradients", "total_loss"])
def test_torch_knows_the_op(name):
    """Schema, fake tensors and gradients, as torch.compile will rely on them."""
    x, weight, targets = example(5, 3, C=2)
    how = (-100, 2.0, 0.1)
    if name == "token_losses":
        arguments = (x, weight, targets, *how)
    elif name == "total_loss":
        arguments = (x, weight, targets, *how, True, True)
    else:
        once = torch.ones(5, device=DEVICE)
        arguments = (once, once, x.detach(), weight.detach(), targets, *how, True, False)
    torch.library.opcheck(getattr(torch.ops.minigpt, name).default, arguments)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_torch_compile_sees_one_graph(reduction):
    """A break at the loss would cost the model its last layer's fusions."""
    x, weight, targets = example(5, 7)

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return linear_cross_entropy(x * 2, weight, targets, reduction=reduction).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    both = [torch.autograd.grad(f(x, weight), (x, weight)) for f in (compiled, loss)]
    torch.testing.assert_close(*both)
