"""A kernel's self-test says something about the kernel, not about where it was first called."""

import pytest
import torch

import kernels
from kernels import dispatch, reference

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def fresh_decisions():
    """Decisions are kept for the life of a process; tests must not inherit or leave any."""
    dispatch.forget()
    yield
    dispatch.forget()


@pytest.fixture
def trying(monkeypatch):
    """Kernels are interpreted, and tried before they are chosen, as on a GPU."""
    dispatch._import_triton_files(interpreted=True)
    monkeypatch.setattr(dispatch, "choose", lambda op, *where: dispatch.Choice(op, "triton", "fits"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op", ["rms_norm", "attention", "linear_cross_entropy"])
@pytest.mark.parametrize(
    "around",
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["inference_mode", "no_grad", "autocast"],
)
def test_a_first_call_while_sampling_does_not_cost_the_kernel(trying, op, around):
    """The self-test needs gradients and its own dtypes; a failure would be kept for the life of the process."""
    with around():
        assert dispatch.decide(op, torch.device("cpu"), torch.float32) == "triton"


def test_a_first_call_under_capture_is_decided_later(trying, monkeypatch):
    """A CUDA graph that is being captured forbids waiting: plain torch for that call, and nothing is remembered."""
    x, weight, capturing = torch.randn(3, 8), torch.ones(8), [True]
    monkeypatch.setattr(dispatch, "_being_captured", lambda device: capturing[0])
    torch.testing.assert_close(kernels.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))
    assert not dispatch._chosen
    assert "captured" in next(row for row in kernels.explain("cpu") if row.op == "rms_norm").reason
    capturing[0] = False
    assert dispatch.decide("rms_norm", x.device, x.dtype) == "triton"


def test_only_a_gpu_is_asked_whether_it_captures(monkeypatch):
    """Builds of torch without CUDA raise at the question."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert dispatch._being_captured(torch.device("cuda", 0))
    assert not dispatch._being_captured(torch.device("cpu"))
