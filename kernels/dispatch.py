"""Which implementation runs, and why? The one decision, asked by every public op.

Every op stands in `reference.py` (plain torch, the specification) and in `builtin.py` (the same through torch's
own fused calls). Those named in `TRITON_FILES` also stand in a Triton file. These are imported only when one is
chosen, so that a machine without Triton never notices.

Two questions are asked. Does the Triton kernel run on this device with this dtype? That is decided when an op first
meets them, and the answer is kept: a model asks some forty times per step, and its answer must not change on the
way. `MINIGPT_KERNELS` overrides it. Then, at every call: does the kernel cover this shape? If not, plain torch
computes it. `explain()` tells both answers with their reasons.

On a GPU it has not met before, a kernel first computes one small example and must agree with the specification
(`selftest.py`); otherwise a warning is given, once, and plain torch runs.
"""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import builtin, interpreter, reference

VARIABLE = "MINIGPT_KERNELS"
WISHES = {
    "auto": "the fastest that fits",
    "reference": "plain torch, the specification",
    "torch": "torch's own fused calls",
    "triton": "Triton kernels on a GPU",
    "hopper": "the same, and Hopper's own where there are any",
    "interpret": "Triton kernels in its interpreter, for tests on a CPU",
}
TRITON_FILES = {
    "attention": "attention", "decode_attention": "decode_attention",
    "linear_cross_entropy": "cross_entropy",
    "rms_norm": "rms_norm", "layer_norm": "rms_norm", "add_rms_norm": "rms_norm",
    "rotary": "rotary", "rms_norm_rotary": "rotary",
    "adamw_": "adamw", "newton_schulz": "newton_schulz", "quantized_linear": "quantized_linear",
}  # fmt: skip
HOPPER_FILES = {"attention": "attention_hopper"}  # never timed so far, so that nobody gets them unasked
OPS = (*TRITON_FILES, "swiglu", "gelu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KERNELS = ("triton", "hopper", "interpret")  # choices that run kernels of ours
OLDEST = (8, 0)  # compute capability from which on a GPU multiplies bfloat16 and copies to shared memory by itself


class Choice(NamedTuple):
    """One row of `explain()`."""

    op: str
    choice: str  # reference, torch, triton, hopper or interpret
    reason: str


# --- the decision ---------------------------------------------------------------------------------------


def choose(op: str, device: torch.device, dtype: torch.dtype) -> Choice:
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
    interpreted = wish == "interpret"
    problem = _why_not_triton(op, dtype) or (_why_not_interpreted if interpreted else _why_not_compiled)(device)
    if problem is not None:
        return Choice(op, "torch", problem if wish == "auto" else f"{asked}, but {problem}")
    if wish == "hopper" and (problem := _why_not_hopper(op, device, dtype)) is not None:
        return Choice(op, "triton", f"{asked}, but {problem}")
    return Choice(op, "triton", "fits") if wish == "auto" else Choice(op, wish, asked)


def _why_not_triton(op: str, dtype: torch.dtype) -> str | None:
    """What keeps the Triton kernel of `op` from running anywhere; None if nothing does."""
    if op not in TRITON_FILES:
        return "this op has no Triton kernel: torch.compile fuses it as well as one could"
    if dtype not in DTYPES:
        return f"Triton kernels compute in float32, and {dtype} asks for something else"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None


def _why_not_interpreted(device: torch.device) -> str | None:
    if device.type != "cpu":
        return f"Triton's interpreter takes tensors on the CPU, these are on {device.type}"
    return interpreter.why_not_interpreter()


def _why_not_compiled(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"Triton kernels need a GPU, the tensors are on {device.type}"
    if torch.version.cuda is None:
        return "these kernels have been tried on NVIDIA's GPUs only"
    if (capability := torch.cuda.get_device_capability(device)) < OLDEST:
        return f"compute capability {capability} is below {OLDEST}"
    return None


def _why_not_hopper(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps a GPU that runs Triton kernels from running Hopper's own."""
    if op not in HOPPER_FILES:
        return "this op has no kernel of its own for Hopper"
    if (capability := torch.cuda.get_device_capability(device)) != (9, 0):
        return f"compute capability {capability} is not Hopper's (9, 0)"
    return None if dtype.itemsize == 2 else f"its kernels take half precision, not {dtype}"


# --- and its memory -------------------------------------------------------------------------------------

_chosen: dict[tuple[str, torch.device, torch.dtype], Choice] = {}
_triton: dict[str, Callable[..., Any]] = {}  # every op of TRITON_FILES, or none yet
_hopper: dict[str, Callable[..., Any]] = {}  # the same of HOPPER_FILES
_uncovered: dict[str, str] = {}  # op -> why plain torch computed it although a kernel was chosen, at its last such call


def implementation(op: str, x: Tensor) -> Callable[..., Any]:
    """The function that computes `op` for a tensor like `x`."""
    choice = decide(op, x.device, x.dtype)
    if choice in ("triton", "interpret"):
        return _triton[op]
    if choice == "hopper":
        return _hopper[op]
    return getattr(reference if choice == "reference" else builtin, op)


def decide(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """`choose`, once per op, device and dtype. A Triton kernel must be right on this device to be chosen.

    While a CUDA graph is captured it cannot show that: plain torch for this call, and the decision later.
    """
    key = (op, device, dtype)
    if key not in _chosen:
        choice = choose(op, device, dtype)
        if choice.choice in KERNELS:
            _import_triton_files(interpreted=choice.choice == "interpret")
        if choice.choice == "hopper":
            _import_hopper_files()
        if choice.choice in ("triton", "hopper"):
            if _being_captured(device):
                _uncovered[op] = "a CUDA graph was captured before the kernel's first call: it compiles and is checked"
                return "torch"
            choice = _tried(choice, device, dtype)
        _chosen[key] = choice
    return _chosen[key].choice


# torch.compile takes the answer for a constant instead of tracing imports. This is all that
# torch.compiler.assume_constant_result does, but for importing the whole compiler, which takes a second.
decide._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _import_triton_files(*, interpreted: bool) -> None:
    """All of them, here and nowhere else: torch.compile looks into `_triton` once, and must find it complete."""
    if interpreted:
        interpreter.choose_interpreter()
    for op, file in TRITON_FILES.items():
        if op not in _triton:
            module = importlib.import_module(f"kernels.gpu.{file}")
            _triton[op] = _where_covered(op, module, getattr(builtin, op))


def _import_hopper_files() -> None:
    """What they do not cover is for the portable kernels, or for torch."""
    for op, file in HOPPER_FILES.items():
        if op not in _hopper:
            _hopper[op] = _where_covered(op, importlib.import_module(f"kernels.gpu.{file}"), _triton[op])


def _where_covered(op: str, module: Any, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """The module's kernel where it covers the arguments, else another."""
    kernel, uncovered = getattr(module, op), getattr(module, f"uncovered_{op}")

    def run(*args: Any, **kwargs: Any) -> Any:
        reason = uncovered(*args, **kwargs)
        if reason is None:
            return kernel(*args, **kwargs)
        _uncovered[op] = reason
        return otherwise(*args, **kwargs)

    return run


def _being_captured(device: torch.device) -> bool:
    """A self-test waits for the GPU, which a capture forbids: its failure would say nothing about the kernel."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _tried(choice: Choice, device: torch.device, dtype: torch.dtype) -> Choice:
    """The choice, or the next best and a warning if the kernel computes an example wrongly on this device."""
    from kernels.selftest import EXAMPLES, HOPPER_EXAMPLES, problem_with

    op = choice.op
    while choice.choice != "torch":
        hopper = choice.choice == "hopper"
        kernel, examples = (_hopper[op], HOPPER_EXAMPLES[op]) if hopper else (_triton[op], (EXAMPLES[op],))
        problem = next(filter(None, (problem_with(op, kernel, device, dtype, each) for each in examples)), None)
        if problem is None:
            break
        other, instead = ("triton", "the portable kernel") if hopper else ("torch", "plain torch")
        warnings.warn(f"{op}: {problem}; {instead} takes its place", RuntimeWarning, stacklevel=4)
        choice = Choice(op, other, problem)
    return choice


def forget() -> None:
    """Decide anew from here on: for tests that change MINIGPT_KERNELS."""
    _chosen.clear()
    _uncovered.clear()


def explain(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> list[Choice]:
    """One row per op: what runs for tensors of this device (a GPU if there is one) and dtype, and why."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())  # tensors name their GPU, too
    rows = []
    for op in OPS:
        row = _chosen.get((op, device, dtype)) or choose(op, device, dtype)
        if op in _uncovered and row.choice in KERNELS:
            other = "another" if row.choice == "hopper" else "torch"
            row = row._replace(reason=f"{row.reason}; {other} where {_uncovered[op]}")
        rows.append(row)
    return rows
