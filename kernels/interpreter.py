"""Triton's interpreter on CPU tensors: slow, and right. The proof of a kernel on a machine without a GPU.

Triton decides for the whole process, and when it is imported, whether kernels are compiled or interpreted.
`MINIGPT_KERNELS=interpret` decides it through `choose_interpreter`; `TRITON_INTERPRET=1` does the same.

What the interpreter does not show: reads out of bounds (tests surround buffers with NaN), races between
programs (it runs one after another), and anything about speed.
"""

import functools
import os
import sys
from typing import Any

VARIABLE = "TRITON_INTERPRET"


def why_not_interpreter() -> str | None:
    """What keeps this process from interpreting; None if nothing does."""
    if os.environ.get(VARIABLE) != "1" and "triton" in sys.modules:
        return f"Triton was imported before, and compiles: start Python with {VARIABLE}=1"
    return None


def choose_interpreter() -> None:
    """From here on Triton interprets. To be called before it is imported."""
    os.environ[VARIABLE] = "1"


@functools.cache
def teach_bfloat16() -> None:
    """Make the interpreter multiply and round bfloat16, of which it keeps the bits in uint16, numpy having no such.

    Our kernels use bfloat16 in two places only: as operands of a dot, and to round results that are stored.
    Those two are made right; any other arithmetic on bfloat16 stays wrong.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, _convert_float

    def widened(x: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16:
            return x
        return TensorHandle(_convert_float(x.data, tl.bfloat16, tl.float32, None).view(np.float32), tl.float32)

    def rounded(x: np.ndarray) -> np.ndarray:
        """The upper half of float32's bits, rounded to nearest, ties to even."""
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        to_even = ((bits >> 16) & 1) + np.uint32(0x7FFF)
        return np.where(np.isnan(x), np.uint16(0x7FC0), ((bits + to_even) >> 16).astype(np.uint16))

    builder_dot, builder_trunc = InterpreterBuilder.create_dot, InterpreterBuilder.create_fp_trunc

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return builder_dot(self, widened(a), widened(b), *rest)

    def create_fp_trunc(self: Any, x: Any, dtype: Any) -> Any:
        if x.dtype.scalar == tl.float32 and dtype.scalar == tl.bfloat16:
            return TensorHandle(rounded(x.data), tl.bfloat16)
        return builder_trunc(self, x, dtype)

    InterpreterBuilder.create_dot, InterpreterBuilder.create_fp_trunc = create_dot, create_fp_trunc
