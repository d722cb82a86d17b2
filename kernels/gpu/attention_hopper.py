"""Flash attention as an op, for Hopper alone. Read it in this order:

    hopper.py                     parts that run at the same time, rings, barriers
    attention_hopper_forward.py   the running softmax
    attention_hopper_backward.py  the scores made again
"""

from typing import Any

from torch import Tensor

from kernels.gpu.attention import attention_by, backward_op, forward_op
from kernels.gpu.attention import uncovered_attention as uncovered_by_the_portable
from kernels.gpu.attention_hopper_backward import backward
from kernels.gpu.attention_hopper_forward import forward
from kernels.gpu.hopper import DTYPES, can_be_copied

WIDTHS = (64, 128)  # of heads
_backward = backward_op("minigpt::attention_hopper_backward", backward)
_forward = forward_op("minigpt::attention_hopper_forward", forward, _backward)
attention = attention_by(_forward)


def uncovered_attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> str | None:
    """Why another must do it; None if this kernel can, or nobody can."""
    if not q.dim() == k.dim() == v.dim() == 4:
        return None
    if (reason := uncovered_by_the_portable(q, k, v, **how)) is not None:
        return reason
    for name in ("document", "softcap"):
        if how.get(name) is not None:
            return f"{name} is left to the portable kernel"
    if q.dtype not in DTYPES or q.size(-1) not in WIDTHS:
        return f"heads of {q.size(-1)} channels in {q.dtype}: Hopper's kernel takes {WIDTHS} in half precision"
    if not all(can_be_copied(x) for x in (q, k, v)):
        return "rows that do not begin at multiples of 16 bytes are beyond the copying unit"
    return None
