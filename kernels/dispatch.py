"""Which implementation runs, and why? The one decision, asked by every public op.

Every op stands in `reference.py` (plain torch, the specification) and in `builtin.py` (the same through
torch's own fused calls). Ops that earn one get a Triton file later; it is named in `TRITON_FILES` and
imported only when chosen, so that a machine without Triton never notices.

`MINIGPT_KERNELS` overrides the choice. It is read when an op first meets a device and dtype, and the answer
is kept: a model asks some forty times per step, and its answer must not change on the way.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import builtin, reference

VARIABLE = "MINIGPT_KERNELS"
WISHES = {
    "auto": "the fastest that fits",
    "reference": "plain torch, the specification",
    "torch": "torch's own fused calls",
    "triton": "Triton kernels on a GPU",
    "interpret": "Triton kernels in its interpreter, for tests on a CPU",
}
OPS = (
    "attention", "rms_norm", "layer_norm", "rotary", "linear_cross_entropy", "swiglu", "gelu", "adamw_",
    "newton_schulz",
)  # fmt: skip
TRITON_FILES: dict[str, str] = {}  # op -> the module that holds its Triton kernel: none yet


class Choice(NamedTuple):
    """One row of `explain()`."""

    op: str
    choice: str  # reference, torch, triton or interpret
    reason: str


def choose(op: str, device: str, dtype: torch.dtype) -> Choice:
    """The decision itself, without memory.

    Raises: ValueError if MINIGPT_KERNELS is none of the choices.
    """
    wish = os.environ.get(VARIABLE, "auto")
    if wish not in WISHES:
        choices = ", ".join(f"{name} ({meaning})" for name, meaning in WISHES.items())
        raise ValueError(f"{VARIABLE}={wish} is not a choice. Choose one of: {choices}")
    asked = f"{VARIABLE}={wish}"
    if wish in ("reference", "torch"):
        return Choice(op, wish, asked)
    problem = _why_not_triton(op, device, dtype, interpreted=wish == "interpret")
    if problem is not None:
        return Choice(op, "torch", problem if wish == "auto" else f"{asked}, but {problem}")
    return Choice(op, "triton", "fits") if wish == "auto" else Choice(op, wish, asked)


def _why_not_triton(op: str, device: str, dtype: torch.dtype, *, interpreted: bool) -> str | None:
    """What keeps the Triton kernel of `op` from running here; None if nothing does."""
    if op not in TRITON_FILES:
        return "this op has no Triton kernel yet"
    if interpreted and dtype != torch.float32:
        return f"Triton's interpreter is right for float32 only, not {dtype}"
    if not interpreted and device != "cuda":
        return f"Triton kernels need a GPU, the tensors are on {device}"
    if dtype == torch.float64:
        return "Triton kernels accumulate in float32, float64 asks for more"
    return None


_chosen: dict[tuple[str, str, torch.dtype], Callable[..., Any]] = {}


def implementation(op: str, x: Tensor) -> Callable[..., Any]:
    """The function that computes `op` for a tensor like `x`. Decided once per op, device and dtype."""
    key = (op, x.device.type, x.dtype)
    if key not in _chosen:
        _chosen[key] = load(choose(*key))
    return _chosen[key]


def load(choice: Choice) -> Callable[..., Any]:
    """The op from the chosen module. A Triton file is imported here and nowhere else."""
    if choice.choice == "reference":
        return getattr(reference, choice.op)
    if choice.choice == "torch":
        return getattr(builtin, choice.op)
    return getattr(importlib.import_module(TRITON_FILES[choice.op]), choice.op)


def forget() -> None:
    """Decide anew from here on: for tests that change MINIGPT_KERNELS."""
    _chosen.clear()


def explain(device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Choice]:
    """One row per op: what would run for tensors of this device and dtype, and why."""
    return [choose(op, device, dtype) for op in OPS]
