"""Flash attention as an op that autograd and torch.compile know. Read it in this order:

    attention_tiles.py     which tiles to visit, which scores to mask
    attention_forward.py   the running softmax
    attention_backward.py  the scores made again
    attention_hopper.py    both once more, for one kind of GPU, in the order of its hardware
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef, custom_op

from kernels.checks import check_attention
from kernels.gpu.attention_backward import backward
from kernels.gpu.attention_forward import forward
from kernels.gpu.attention_tiles import per_query

WIDEST = 256       # channels of a head: wider ones would not fit the registers
FEW_QUERIES = 16   # half a tile and less of them, the smallest there is, and
MANY_KEYS = 256    # several tiles of keys: a program walks over them alone, while most of the GPU has nothing to do


def forward_op(name: str, forward: Callable[..., tuple[Tensor, Tensor]], gradients: CustomOpDef) -> CustomOpDef:
    """A way to compute y and lse, with its `backward_op`, as autograd and torch.compile know it."""
    op = custom_op(name, forward, mutates_args=())

    @op.register_fake
    def _(q: Tensor, k: Tensor, v: Tensor, document: Any, *how: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(q), per_query(q)

    def differentiated(ctx: Any, dy: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            dy = torch.zeros_like(ctx.saved_tensors[0])
        dq, dk, dv = gradients(dy, dlse, *ctx.saved_tensors, *ctx.how)
        return dq, dk, dv, None, None, None, None, None

    op.register_autograd(differentiated, setup_context=_keep)
    return op


def backward_op(name: str, backward: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> CustomOpDef:
    """A way to compute dq, dk and dv."""
    op = custom_op(name, backward, mutates_args=())

    @op.register_fake
    def _(dy: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *how: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)

    return op


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, document, *ctx.how = inputs
    ctx.save_for_backward(q, k, v, *output, document)
    ctx.set_materialize_grads(False)  # hardly anybody uses lse: no zeros to fill and to read


def attention_by(op: CustomOpDef) -> Callable[..., Any]:
    """The public function around it."""

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
        check_attention(q, k, v, window=window, softcap=softcap, document=document, alibi=alibi)
        T, S = q.size(2), k.size(2)
        behind = S if window is None else min(window - 1, S)
        ahead = 0 if causal else behind
        scale = q.size(-1) ** -0.5 if scale is None else scale
        if document is not None and document.stride(1) != 1:
            document = document.contiguous()
        y, lse = op(q, k, v, document, ahead, behind, scale, softcap or 0.0)
        return (y, lse[..., :T]) if return_lse else y

    return attention


_backward = backward_op("minigpt::attention_backward", backward)
_forward = forward_op("minigpt::attention_forward", forward, _backward)
attention = attention_by(_forward)


def uncovered_attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> str | None:
    """Why plain torch must do it; None if these kernels can, or nobody can."""
    if not q.dim() == k.dim() == 4:
        return None
    if how.get("alibi") is not None:
        return "alibi is left to plain torch"
    if how.get("dropout"):
        return "dropout is left to plain torch"
    if q.size(-1) > WIDEST:
        return f"heads of {q.size(-1)} channels are wider than {WIDEST}"
    if how.get("scale") is not None and how["scale"] <= 0:
        return f"scale={how['scale']} is not positive"
    T, S = q.size(2), k.size(2)
    if T < FEW_QUERIES and S >= MANY_KEYS and _torch_splits_keys(q, T, S, **how):
        return f"few queries, many keys: {T} and {S}, and torch's flash attention splits the keys among programs"
    return None


def _torch_splits_keys(
    q: Tensor,
    T: int,
    S: int,
    *,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
    document: Tensor | None = None,
    return_lse: bool = False,
    **how: Any,
) -> bool:
    """Only where it needs no mask: one query sees all that its window leaves, several only without causality."""
    if q.element_size() != 2 or softcap is not None or document is not None or return_lse:
        return False
    seen = S if window is None else min(window, S)
    return seen >= MANY_KEYS and (T == 1 if causal else seen == S)
