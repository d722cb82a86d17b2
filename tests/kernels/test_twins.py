"""Every op against its twin: the fused one may stray from float64 as far as plain torch, plus a slack."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from budget import assert_within_budget
from torch import Tensor

import kernels
from kernels import builtin, dispatch, quantization, reference

SEEDS = range(12)


class Case(NamedTuple):
    """One call of an op: the tensors that carry gradients, and the rest."""

    tensors: tuple[Tensor, ...]  # float64
    call: Callable[..., Any]     # call(op, *tensors) -> a tensor or several
    graded: bool = True


def attention_case(pick: random.Random) -> Case:
    B, G, T = pick.choice([1, 2]), pick.choice([1, 2, 3]), pick.choice([1, 2, 5, 8, 17])
    S, H, D = T + pick.choice([0, 0, 1, 6]), G * pick.choice([1, 2, 3]), pick.choice([2, 8, 12])
    document = torch.randint(3, (B, S)).sort(dim=1).values if pick.random() < 0.4 else None
    how = {
        "causal": pick.random() < 0.8,
        "window": pick.choice([None, 1, 3, 7, 40]),
        "softcap": pick.choice([None, None, 5.0]),
        "scale": pick.choice([None, 0.3]),
        "document": document,
        "alibi": torch.rand(H, dtype=torch.float64) if pick.random() < 0.4 else None,
        "return_lse": pick.random() < 0.3,
    }
    if not how["causal"]:
        how["document"] = None if document is None else torch.zeros_like(document)
    q, k, v = randn(B, H, T, D), randn(B, G, S, D), randn(B, G, S, D)
    return Case((q, k, v), lambda op, *qkv: op(*qkv, **how))


def decode_attention_case(pick: random.Random) -> Case:
    B, G, D, page = pick.choice([1, 3]), pick.choice([1, 2]), pick.choice([2, 8]), pick.choice([1, 4])
    pages, H = torch.randperm(12)[: 4 * B].view(B, 4).int(), G * pick.choice([1, 3])
    how = {
        "window": pick.choice([None, 1, 6]),
        "softcap": pick.choice([None, 5.0]),
        "return_lse": pick.random() < 0.5,
    }
    lengths = torch.randint(1, 4 * page + 1, (B,))
    stored = randn(12, G, page, D), randn(12, G, page, D)
    return Case((randn(B, H, D), *stored), lambda op, q, k, v: op(q, k, v, pages, lengths, **how), graded=False)


def quantized_linear_case(pick: random.Random) -> Case:
    quantize = pick.choice([quantization.quantize_int8, lambda w: quantization.quantize_int4(w, 32)])
    weight, scale = quantize(randn(pick.choice([1, 5]), 64))
    return Case((randn(*pick.choice([(), (3,)]), 64),), lambda op, x: op(x, weight, scale), graded=False)


def add_rms_norm_case(pick: random.Random) -> Case:
    shape = (*pick.choice([(1,), (3,), (2, 5)]), pick.choice([2, 7, 64]))
    tensors = (randn(*shape) * 3, randn(*shape), randn(shape[-1]))
    return Case(tensors, lambda op, x, residual, w: op(x, residual, w, 1e-5))


def rms_norm_rotary_case(pick: random.Random) -> Case:
    T, D = pick.choice([1, 2, 9]), pick.choice([6, 16])
    angle = torch.arange(T)[:, None] * 0.5 ** torch.arange(D // 2)  # (T, D/2)

    def call(op: Callable[..., Tensor], x: Tensor, w: Tensor) -> Tensor:
        return op(x, w, 1e-5, angle.cos().to(wide(x)), angle.sin().to(wide(x)))

    return Case((randn(2, 3, T, D), randn(D)), call)


def rms_norm_case(pick: random.Random) -> Case:
    shape = (*pick.choice([(), (1,), (3,), (2, 5)]), pick.choice([1, 2, 7, 64]))
    eps = pick.choice([1e-6, 1e-2])
    return Case((randn(*shape) * 3, randn(shape[-1])), lambda op, x, w: op(x, w, eps))


def layer_norm_case(pick: random.Random) -> Case:
    shape = (*pick.choice([(1,), (3,), (2, 5)]), pick.choice([5, 7, 64]))  # of 2, all is cancellation
    x, weight, bias = randn(*shape) + 1, randn(shape[-1]), randn(shape[-1])
    if pick.random() < 0.5:
        return Case((x, weight), lambda op, x, w: op(x, w, None, 1e-5))
    return Case((x, weight, bias), lambda op, x, w, b: op(x, w, b, 1e-5))


def rotary_case(pick: random.Random) -> Case:
    T, D = pick.choice([1, 2, 9]), pick.choice([2, 6, 16])
    angle = torch.arange(T)[:, None] * 0.5 ** torch.arange(D // 2)  # (T, D/2)
    x = randn(2, T, 3, D).transpose(1, 2) if pick.random() < 0.5 else randn(2, 3, T, D)
    return Case((x,), lambda op, x: op(x, angle.cos().to(wide(x)), angle.sin().to(wide(x))))


def linear_cross_entropy_case(pick: random.Random) -> Case:
    shape, C, V = pick.choice([(1,), (9,), (2, 5), (300,)]), pick.choice([1, 4, 16]), pick.choice([2, 5, 33])
    targets = torch.randint(V, shape)
    targets[torch.rand(shape) < pick.choice([0.0, 0.3])] = -100
    targets.view(-1)[0] = V - 1  # never all ignored: a mean over nothing is NaN
    how = {
        "reduction": pick.choice(["none", "mean", "sum"]),
        "softcap": pick.choice([None, None, 3.0]),
        "z_loss": pick.choice([0.0, 0.0, 0.01]),
    }
    return Case((randn(*shape, C), randn(V, C)), lambda op, x, w: op(x, w, targets, **how))


def swiglu_case(pick: random.Random) -> Case:
    shape = pick.choice([(1,), (3, 7), (2, 3, 8)])
    return Case((randn(*shape) * 3, randn(*shape)), lambda op, gate, up: op(gate, up))


def gelu_case(pick: random.Random) -> Case:
    return Case((randn(*pick.choice([(1,), (3, 7), (2, 3, 8)])) * 3,), lambda op, x: op(x))


def newton_schulz_case(pick: random.Random) -> Case:
    shape = pick.choice([(1, 1), (4, 4), (3, 8), (8, 3), (2, 5, 3)])
    return Case((randn(*shape),), lambda op, g: op(g, pick.choice([5])), graded=False)


def adamw_case(pick: random.Random) -> Case:
    step = pick.choice([1, 2, 100])
    shapes = [(3,), (2, 4), ()][: pick.choice([1, 2, 3])]

    def call(op: Callable[..., None], *tensors: Tensor) -> tuple[Tensor, ...]:
        copies = [tensor.clone() for tensor in tensors]
        p, g, m, v = (copies[i::4] for i in range(4))
        op(p, g, m, v, step=step, lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
        return (*p, *m, *v)

    groups = [t for s in shapes for t in (randn(*s), randn(*s), randn(*s) * 0.1, randn(*s).square())]
    return Case(tuple(groups), call, graded=False)


CASES = {
    "attention": attention_case,
    "decode_attention": decode_attention_case,
    "rms_norm": rms_norm_case,
    "add_rms_norm": add_rms_norm_case,
    "layer_norm": layer_norm_case,
    "rotary": rotary_case,
    "rms_norm_rotary": rms_norm_rotary_case,
    "linear_cross_entropy": linear_cross_entropy_case,
    "swiglu": swiglu_case,
    "gelu": gelu_case,
    "newton_schulz": newton_schulz_case,
    "adamw_": adamw_case,
    "quantized_linear": quantized_linear_case,
}


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def results(op: Callable[..., Any], case: Case, dtype: torch.dtype) -> list[Tensor]:
    """The op's outputs and, for a fixed random upstream gradient, the gradients of its tensors."""
    tensors = [t.to(dtype).requires_grad_(case.graded) for t in case.tensors]
    outputs = case.call(op, *tensors)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    if not case.graded:
        return outputs
    torch.manual_seed(0)
    upstream = [randn(*output.shape).to(output.dtype) for output in outputs]
    return outputs + list(torch.autograd.grad(outputs, tensors, upstream))


def slack(dtype: torch.dtype, truth: Tensor) -> float:
    """A few roundings of the largest number: the two sum in different orders, and either may be lucky."""
    return 32 * torch.finfo(dtype).eps * max(1.0, float(truth.abs().max()))


def make(name: str, seed: int) -> Case:
    torch.manual_seed(seed)
    return CASES[name](random.Random(seed))


def test_every_public_op_has_a_twin_and_cases():
    """A new op cannot come in without its specification and without being compared with it."""
    ops = set(kernels.__all__) - {"explain"}
    assert ops == set(CASES) == set(dispatch.OPS)
    for name in ops:
        assert callable(getattr(reference, name)) and callable(getattr(builtin, name))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_fused_op_is_as_right_as_plain_torch(name, dtype, seed):
    """Values and gradients, at every dtype, for odd shapes and every combination of options."""
    case = make(name, seed)
    # Both begin from the same rounded tensors: the truth is about the arithmetic, not about the input's
    # rounding.
    case = case._replace(tensors=tuple(t.to(dtype).double() for t in case.tensors))
    truth = results(getattr(reference, name), case, torch.float64)
    plain = results(getattr(reference, name), case, dtype)
    fast = results(getattr(builtin, name), case, dtype)
    for one, two, true in zip(fast, plain, (t.detach() for t in truth), strict=True):
        assert one.dtype == two.dtype
        assert_within_budget(one, two, true, slack=slack(dtype, true))


@pytest.mark.parametrize("name", [name for name in CASES if make(name, 0).graded])
def test_gradients_by_hand_are_derivatives(name):
    """Finite differences in float64 know nothing of the formulas in our backward passes."""
    for seed in (1, 2, 3):
        case = make(name, seed)
        tensors = [t.requires_grad_() for t in case.tensors]
        for module in (reference, builtin):
            op = partial(case.call, getattr(module, name))
            assert torch.autograd.gradcheck(op, tensors, fast_mode=True)
