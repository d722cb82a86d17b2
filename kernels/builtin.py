"""The same ops through torch's own fused calls: what runs where no Triton kernel does.

Only what differs from `reference.py` is said here. Shapes, dtypes and errors are the reference's.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import reference

# Logits of at most this many elements (128 MB in float32) are held whole: the direct path multiplies once less.
# Beyond it they are made chunk by chunk, twice: in the forward pass and again in the backward pass.
WHOLE_LOGITS = 2**25


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
    """scaled_dot_product_attention, with a mask only where its own causal form does not say enough."""
    T, S = q.shape[2], k.shape[2]
    if softcap is not None or return_lse or (deterministic and q.device.type != "cpu"):
        return reference.attention(  # torch's fused attention has none of the three
            q, k, v, causal=causal, window=window, softcap=softcap, scale=scale, document=document, alibi=alibi,
            dropout=dropout, return_lse=return_lse,
        )  # fmt: skip
    reference.check_attention(q, k, window)
    if causal and window is not None and S > window + T - 1:
        first = S - (window + T - 1)  # what no query's window reaches need not be looked at
        k, v, S = k[:, :, first:], v[:, :, first:], S - first
        document = None if document is None else document[:, first:]
    if window is not None and window >= S:
        window = None
    one_query = causal and T == 1  # and everything stored is its past
    mask = None
    if document is not None or alibi is not None or window is not None or (causal and S > T > 1):
        mask = _mask(q, S, causal=causal, window=window, document=document, alibi=alibi)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal and mask is None and not one_query, scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip


def _mask(
    q: Tensor, S: int, *, causal: bool, window: int | None, document: Tensor | None, alibi: Tensor | None
) -> Tensor:
    """What may be seen, as bool (T, S) or (B, 1, T, S); with ALiBi as a bias to the scores, (1 or B, H, T, S)."""
    T, device = q.shape[2], q.device
    visible = reference.visible_keys(T, S, causal=causal, window=window, document=document, device=device)
    visible = visible if visible.dim() == 2 else visible[:, 0]
    if alibi is None:
        return visible
    distance = (torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)).abs()  # (T, S)
    bias = -reference.wide(alibi).view(1, -1, 1, 1) * distance                                          # (1, H, T, S)
    return bias.masked_fill(~visible, float("-inf")).to(q.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return reference.rotary(x, cos, sin)


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    """The direct path while the logits are small; else one chunk of them at a time."""
    if softcap is not None or z_loss:
        return reference.linear_cross_entropy(
            x, weight, targets, ignore_index=ignore_index, reduction=reduction, softcap=softcap, z_loss=z_loss
        )
    logits = reference.wide(F.linear(x.flatten(0, -2), weight.to(x.dtype)))  # (N, V)
    losses = F.cross_entropy(logits, targets.flatten(), ignore_index=ignore_index, reduction=reduction)
    return losses.view_as(targets) if reduction == "none" else losses


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


@torch.no_grad()
def adamw_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """All tensors in one call per line: on a small model the calls cost more than the numbers."""
    params, grads, exp_avgs, exp_avg_sqs = list(params), list(grads), list(exp_avgs), list(exp_avg_sqs)
    torch._foreach_mul_(params, 1 - lr * weight_decay)
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)
    denominator = torch._foreach_sqrt(exp_avg_sqs)
    torch._foreach_div_(denominator, (1 - beta2**step) ** 0.5)
    torch._foreach_add_(denominator, eps)
    torch._foreach_addcdiv_(params, exp_avgs, denominator, -lr / (1 - beta1**step))


def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    return reference.newton_schulz(g, steps)
