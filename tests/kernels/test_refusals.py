"""Bad input is a ValueError with the numbers, the same from every implementation, through the door as well."""

from collections.abc import Callable

import pytest
import torch

import kernels
from kernels import dispatch

pytest.importorskip("triton")


@pytest.fixture(params=["reference", "torch", "interpret"], autouse=True)
def implementation(request, monkeypatch):
    """Through the door, which asks first whether the kernel covers the arguments: that must not raise in its place."""
    monkeypatch.setenv("MINIGPT_KERNELS", request.param)
    dispatch.forget()
    yield
    dispatch.forget()


def decode(q=(2, 4, 16), pages=(3, 2, 16, 16), table=torch.int32, lengths=torch.int32, **how) -> Callable[[], object]:
    k = torch.zeros(pages)
    table, lengths = torch.zeros(2, 3, dtype=table), torch.ones(2, dtype=lengths)
    return lambda: kernels.decode_attention(torch.zeros(q), k, k, table, lengths, **how)


def attend(*shape: int, **how) -> Callable[[], object]:
    x = torch.zeros(shape)
    return lambda: kernels.attention(x, x, x, **how)


REFUSALS = {
    "decode: q without heads": (decode(q=(2, 16)), r"q \(B, H, D\).*q \(2, 16\)"),
    "decode: q as in training": (decode(q=(2, 4, 1, 16)), r"q \(B, H, D\).*q \(2, 4, 1, 16\)"),
    "decode: pages without heads": (decode(pages=(3, 16, 16)), r"\(P, G, page, D\).*\(3, 16, 16\)"),
    "decode: no key head": (decode(pages=(3, 0, 16, 16)), r"\(3, 0, 16, 16\)"),
    "decode: pages of no token": (decode(pages=(3, 2, 0, 16)), r"\(3, 2, 0, 16\)"),
    "decode: a table of floats": (decode(table=torch.float32), r"torch.float32 and torch.int32.*int\(\)"),
    "decode: lengths of floats": (decode(lengths=torch.float64), r"torch.int32 and torch.float64.*int\(\)"),
    "decode: softcap 0": (decode(softcap=0.0), r"softcap=0.0 must be positive; None for no cap"),
    "decode: softcap below 0": (decode(softcap=-3.0), r"softcap=-3.0 must be positive"),
    "attention: a number": (attend(), r"got q \(\), k \(\), v \(\)"),
    "attention: softcap 0": (attend(1, 2, 3, 16, softcap=0.0), r"softcap=0.0 must be positive; None for no cap"),
    "attention: softcap below 0": (attend(1, 2, 3, 16, softcap=-1.0), r"softcap=-1.0 must be positive"),
    "rms_norm: a number": (lambda: kernels.rms_norm(torch.tensor(1.0), torch.ones(1), 1e-5), r"got \(\)"),
    "rms_norm: a number as gain": (
        lambda: kernels.rms_norm(torch.ones(2, 3), torch.tensor(1.0), 1e-5), r"\(3,\), got \(\)"),
    "add_rms_norm: numbers": (
        lambda: kernels.add_rms_norm(torch.tensor(1.0), torch.tensor(1.0), torch.ones(1), 1e-5), r"got \(\)"),
    "layer_norm: a number": (lambda: kernels.layer_norm(torch.tensor(1.0), torch.ones(1), None, 1e-5), r"got \(\)"),
    "rotary: a number": (lambda: kernels.rotary(torch.tensor(1.0), torch.ones(1), torch.ones(1)), r"got \(\)"),
    "rotary: an angle": (
        lambda: kernels.rotary(torch.ones(1, 1, 1, 2), torch.tensor(1.0), torch.tensor(1.0)), r"\(1, 1\), got \(\)"),
    "quantized_linear: a row of weights": (
        lambda: kernels.quantized_linear(torch.ones(1, 4), torch.ones(4, dtype=torch.int8), torch.ones(4)),
        r"\(N, K\).*got \(4,\)"),
    "quantized_linear: a scale of nothing": (
        lambda: kernels.quantized_linear(torch.ones(1, 4), torch.ones(1, 4, dtype=torch.int8), torch.tensor(1.0)),
        r"needs a scale \(1,\), got \(\)"),
    "quantized_linear: x a number": (
        lambda: kernels.quantized_linear(torch.tensor(1.0), torch.ones(1, 4, dtype=torch.int8), torch.ones(1)),
        r"x \(\) does not fit a weight of 4 columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_meant_is_refused_alike(name):
    """An IndexError from within, or NaN, would say nothing of what to change; and a model moves between machines."""
    call, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        call()
