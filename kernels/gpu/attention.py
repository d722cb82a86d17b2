"""Flash attention as an op that autograd and torch.compile know. Read it in this order:

    attention_tiles.py     which tiles to visit, which scores to mask
    attention_forward.py   the running softmax
    attention_backward.py  the scores made again
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from kernels.checks import check_attention
from kernels.gpu.attention_backward import backward
from kernels.gpu.attention_forward import forward
from kernels.gpu.attention_tiles import per_query

WIDEST = 256  # channels of a head: wider ones would not fit the registers

_forward = custom_op("minigpt::attention_forward", forward, mutates_args=())
_backward = custom_op("minigpt::attention_backward", backward, mutates_args=())


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, document: Any, *how: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), per_query(q)


@_backward.register_fake
def _(dy: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, *how: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, document, *ctx.how = inputs
    ctx.save_for_backward(q, k, v, *output, document)


def _gradients(ctx: Any, dy: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv = _backward(dy, dlse, *ctx.saved_tensors, *ctx.how)
    return dq, dk, dv, None, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    document: Tensor | None = None,
    alibi: Tensor | None = None,
    dropout: float = 0.0,
    deterministic: bool = False,
    return_lse: bool = False,
) -> Any:
    """Equation, shapes and errors: `reference.attention`. alibi and dropout: see `uncovered_attention`.

    Any strides with a contiguous last dimension. The backward pass is deterministic, asked or not.
    """
    check_attention(q, k, v, window=window, document=document, alibi=alibi)
    S = k.size(2)
    behind = S if window is None else min(window - 1, S)
    ahead = 0 if causal else behind
    scale = q.size(-1) ** -0.5 if scale is None else scale
    y, lse = _forward(q, k, v, document, ahead, behind, scale, softcap or 0.0)
    return (y, lse) if return_lse else y


def uncovered_attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> str | None:
    """Why plain torch must do it; None if these kernels can."""
    if how.get("alibi") is not None:
        return "alibi is left to plain torch"
    if how.get("dropout"):
        return "dropout is left to plain torch"
    if q.size(-1) > WIDEST:
        return f"heads of {q.size(-1)} channels are wider than {WIDEST}"
    if how.get("scale") is not None and how["scale"] <= 0:
        return f"scale={how['scale']} is not positive"
    return None
