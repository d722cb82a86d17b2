"""What the Triton kernels fall back to, beside the specification: the ops of kernels/ that a CPU can time.

    pytest benchmarks/test_kernels.py --benchmark-only --benchmark-group-by=group

On a quiet machine; read the ratios. On a GPU it is bench_kernels.py that counts. Plain causal attention, the loss at
4,096 words and whole AdamW steps stand in test_small.py. Results must agree before anything is timed.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import builtin, reference

BOTH = pytest.mark.parametrize("which", ["builtin", "reference"])
MODULES = {"builtin": builtin, "reference": reference}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def forward_and_backward(op: Callable[..., Tensor], *args: object, **how: object) -> tuple[Tensor, ...]:
    """The result, and the gradients of its sum."""
    y = op(*args, **how)
    inputs = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
    return y.detach(), *torch.autograd.grad(y.sum(), inputs)


def compare(benchmark, which: str, name: str, *args: object, **how: object) -> None:
    """Equal to the specification, gradients too; then timed."""
    expected = forward_and_backward(getattr(reference, name), *args, **how)
    op = getattr(MODULES[which], name)
    torch.testing.assert_close(forward_and_backward(op, *args, **how), expected, atol=1e-3, rtol=1e-3)
    benchmark(lambda: forward_and_backward(op, *args, **how))


@pytest.mark.benchmark(group="attention, window 128, groups of 4, forward and backward, (2, 8, 1024, 64)")
@BOTH
def test_windowed_grouped_attention(benchmark, which):
    q, k, v = normal(2, 8, 1024, 64), normal(2, 2, 1024, 64), normal(2, 2, 1024, 64)
    compare(benchmark, which, "attention", q, k, v, window=128)


@pytest.mark.benchmark(group="attention, packed documents of 128, forward and backward, (2, 4, 1024, 64)")
@BOTH
def test_attention_within_documents(benchmark, which):
    document = (torch.arange(1024) // 128).expand(2, -1)
    compare(benchmark, which, "attention", *(normal(2, 4, 1024, 64) for _ in range(3)), document=document)


@pytest.mark.benchmark(group="linear + cross-entropy with softcap and z-loss, 1024 tokens, 8192 words, 256 wide")
@BOTH
def test_capped_cross_entropy(benchmark, which):
    x, weight, targets = normal(1024, 256), normal(8192, 256), torch.randint(8192, (1024,))
    compare(benchmark, which, "linear_cross_entropy", x, weight, targets, softcap=30.0, z_loss=1e-4)


@pytest.mark.benchmark(group="RMSNorm, forward and backward, 4096 x 768")
@BOTH
def test_rms_norm(benchmark, which):
    compare(benchmark, which, "rms_norm", normal(4096, 768), normal(768), 1e-6)


@pytest.mark.benchmark(group="LayerNorm, forward and backward, 4096 x 768")
@BOTH
def test_layer_norm(benchmark, which):
    compare(benchmark, which, "layer_norm", normal(4096, 768), normal(768), normal(768), 1e-6)


@pytest.mark.benchmark(group="rotary, forward and backward, (8, 12, 512, 64)")
@BOTH
def test_rotary(benchmark, which):
    angle = torch.rand(512, 32)
    compare(benchmark, which, "rotary", normal(8, 12, 512, 64), angle.cos(), angle.sin())


@pytest.mark.benchmark(group="AdamW, the update alone, one layer of GPT-2 (7 M numbers)")
@BOTH
def test_adamw(benchmark, which):
    """`expected` makes one step first; then the moments go on from there, which costs the same every time."""
    shapes = [(2304, 768), (768, 768), (3072, 768), (768, 3072), (768,), (768,)]
    tensors = [[torch.rand(shape) for shape in shapes] for _ in range(4)]
    expected = [[x.clone() for x in role] for role in tensors]
    how = {"step": 3, "lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    reference.adamw_(*expected, **how)
    MODULES[which].adamw_(*tensors, **how)
    torch.testing.assert_close(tensors, expected)
    benchmark(lambda: MODULES[which].adamw_(*tensors, **how))


@pytest.mark.benchmark(group="Newton-Schulz, 4 x 256 x 1024")
@BOTH
def test_newton_schulz(benchmark, which):
    g = torch.randn(4, 256, 1024)
    op = MODULES[which].newton_schulz
    torch.testing.assert_close(op(g), reference.newton_schulz(g), atol=1e-4, rtol=1e-3)
    benchmark(lambda: op(g))
