"""The loss in chunks: the same numbers, and never more than a chunk at a time."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import builtin, reference


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def example(N: int, C: int, V: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    targets = torch.randint(V, (N,))
    targets[::3] = -100
    x, weight = torch.randn(N, C, dtype=torch.float64), torch.randn(V, C, dtype=torch.float64)
    return x.requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("kept", [0, 2**20], ids=["computed again", "kept"])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_chunks_change_nothing(monkeypatch, softcap, z_loss, kept):
    """Many small chunks, the last one shorter, against all logits at once: values and gradients."""
    for name, value in {"DIRECT": 0, "CHUNK": 1, "ROWS": 4, "KEPT": kept}.items():
        monkeypatch.setattr(builtin, name, value)
    x, weight, targets = example(N=11, C=3, V=5)
    upstream = torch.randn(11, dtype=torch.float64)
    results = []
    for op in (reference, builtin):
        losses = op.linear_cross_entropy(
            x, weight, targets, reduction="none", softcap=softcap, z_loss=z_loss
        )
        results.append([losses, *torch.autograd.grad(losses, (x, weight), upstream)])
    torch.testing.assert_close(*results)


def test_many_logits_are_never_held_whole():
    """A vocabulary of 50,000 for 2,000 tokens of text would be 400 MB; a chunk is an eighth of that."""
    N, C, V = 2000, 2, 50_000
    x, weight = torch.randn(N, C, requires_grad=True), torch.randn(V, C, requires_grad=True)
    with Largest() as largest:
        builtin.linear_cross_entropy(x, weight, torch.randint(V, (N,))).backward()
    assert largest.elements <= builtin.ROWS * V < N * V / 5


@pytest.mark.parametrize("V", [7, 5000])
def test_uniform_logits_cost_the_logarithm_of_the_vocabulary(V):
    """A model that knows nothing pays log V: the first number to check in any training run."""
    losses = builtin.linear_cross_entropy(torch.zeros(300, 4), torch.randn(V, 4), torch.arange(300) % V)
    torch.testing.assert_close(losses, torch.tensor(math.log(V)))


@pytest.mark.parametrize("op", [reference, builtin], ids=["reference", "builtin"])
def test_a_mean_over_nothing_is_nan(op):
    """A batch without a single target has no loss; a silent 0 would look like a perfect one."""
    x, weight = torch.randn(3, 2), torch.randn(4, 2)
    nothing = torch.full((3,), -100)
    assert op.linear_cross_entropy(x, weight, nothing).isnan()
    assert torch.equal(op.linear_cross_entropy(x, weight, nothing, reduction="none"), torch.zeros(3))


@pytest.mark.parametrize("op", [reference, builtin], ids=["reference", "builtin"])
def test_a_reduction_nobody_knows_is_refused(op):
    """With the choices, as every refusal."""
    with pytest.raises(ValueError, match="none, mean, sum"):
        op.linear_cross_entropy(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(1).long(), reduction="max")


def test_a_frozen_head_gets_no_gradient():
    """Fine-tuning adapters under a frozen head must not pay for a (V, C) gradient that nobody wants."""
    x, weight, targets = example(N=11, C=3, V=5)
    builtin.linear_cross_entropy(x, weight.detach(), targets, z_loss=0.1).backward()
    assert x.grad is not None
