"""Every op in plain torch: the specification. Short and obviously right; speed is nobody's concern here.

A faster implementation of an op is right if it strays from the float64 result of this file no further than
this file itself does at the tensors' own dtype, plus a stated slack (tests/kernels).

Letters: B batch, T queries, S keys, H query heads, G key/value heads, D head_dim, C channels, F MLP width,
V vocabulary, N = B·T.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.checks import (
    check_adamw,
    check_attention,
    check_decode_attention,
    check_linear_cross_entropy,
    check_matrices,
    check_norm,
    check_rotary,
)
from kernels.quantization import quantized_linear as quantized_linear  # its twin lies with the formats of its weights

# Muon's quintic: coefficients of a·x + b·x³ + c·x⁵, chosen for a steep slope at 0 (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)


def wide(x: Tensor) -> Tensor:
    """In the dtype in which sums are taken: float32, or float64 where the caller already has it."""
    return x if x.dtype == torch.float64 else x.float()


# --- attention ------------------------------------------------------------------------------------------


def distances(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """How far key s lies in the past of query t, negative in its future: (T, S).

    Query t stands at position S - T + t: the keys before the first query are its past, cached or not.
    """
    return torch.arange(S - T, S, device=device)[:, None] - torch.arange(S, device=device)


def visible_keys(
    T: int,
    S: int,
    *,
    causal: bool,
    window: int | None,
    document: Tensor | None,
    device: torch.device | None = None,
) -> Tensor:
    """Which query may see which key.

    A window counts the query itself, so window=1 sees only itself. Documents see only themselves.

    Shapes: document (B, S) holds any integer per document; returns bool (T, S), with documents (B, 1, T, S).
    """
    distance = distances(T, S, device)                             # (T, S)
    visible = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window is not None:
        visible = visible & (distance.abs() < window)
    if document is not None:
        same = document[:, S - T :, None] == document[:, None, :]  # (B, T, S)
        visible = (visible & same)[:, None]                        # (B, 1, T, S)
    return visible


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
    """Every query takes a weighted mean of the values whose keys it may see and finds similar.

        scores = scale · q kᵀ                       scale is 1/sqrt(D) unless given
        scores = softcap · tanh(scores / softcap)   if softcap is given
        scores = scores - alibi · distance          if alibi slopes are given
        y = dropout(softmax(scores, over visible keys)) v

    Shapes: q (B, H, T, D); k, v (B, G, S, D) with S >= T; returns (B, H, T, D); with `return_lse` also
            logsumexp(scores) (B, H, T) in float32. Key head g serves query heads g·H/G .. (g+1)·H/G - 1.
            document (B, S) and window: see `visible_keys`. alibi (H,).
    Dtypes: scores and softmax in float32 (float64 for float64); the result in q.dtype.
    Raises: ValueError for shapes, dtypes or strides that do not fit together, G that does not divide H, S < T,
            no query, no key, window < 1, or a softcap that is not positive.
    Note:   `deterministic` asks for a backward pass that sums in a fixed order; plain torch always does.
    Source: Vaswani et al. 2017; grouped heads Ainslie et al. 2023; ALiBi Press et al. 2022; softcap Gemma 2.
    """
    check_attention(q, k, v, window=window, softcap=softcap, document=document, alibi=alibi)
    H, T, D = q.shape[1:]
    S = k.size(2)
    k, v = (wide(x).repeat_interleave(H // x.size(1), dim=1) for x in (k, v))  # (B, H, S, D)
    scores = wide(q) @ k.mT * (D**-0.5 if scale is None else scale)            # (B, H, T, S)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if alibi is not None:
        slopes = alibi.to(scores.dtype)[:, None, None]                         # (H, 1, 1)
        scores = scores - slopes * distances(T, S, q.device).abs()
    visible = visible_keys(T, S, causal=causal, window=window, document=document, device=q.device)
    scores = scores.masked_fill(~visible, -math.inf)
    weights = torch.dropout(scores.softmax(-1), dropout, train=True)           # (B, H, T, S)
    y = (weights @ v).to(q.dtype)                                              # (B, H, T, D)
    return (y, scores.logsumexp(-1)) if return_lse else y


def decode_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    *,
    window: int | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Any:
    """`attention` of one query per sequence, at its last position, to keys and values that lie in pages.

    Token t of sequence b lies in page page_table[b, t // page] at place t % page. Entries and places from
    lengths[b] on are never read, whatever they hold. A sequence of length 0 gets y = 0, lse = -inf.

    Shapes: q (B, H, D); k_pages, v_pages (P, G, page, D); page_table (B, max_pages); lengths (B,) of at most
            max_pages · page; returns (B, H, D), with `return_lse` also (B, H) in float32.
    Dtypes: scores and softmax in float32 (float64 for float64); the result in q.dtype.
    Raises: ValueError if G does not divide H, or sizes differ, or window < 1.
    Source: Kwon et al. 2023, "PagedAttention".
    """
    check_decode_attention(q, k_pages, v_pages, page_table, lengths, window=window, softcap=softcap)
    (H, D), (G, page), S = q.shape[1:], k_pages.shape[1:3], page_table.size(1) * k_pages.size(2)
    distance = lengths[:, None] - 1 - torch.arange(S, device=q.device)                    # (B, S)
    visible = (distance >= 0) & (distance < (S if window is None else window))
    read = page_table.long().where(visible.unflatten(1, (-1, page)).any(-1), 0)           # (B, max_pages)
    k, v = (wide(x)[read].transpose(1, 2).flatten(2, 3) for x in (k_pages, v_pages))             # (B, G, S, D)
    k, v = (x.where(visible[:, None, :, None], 0.0).repeat_interleave(H // G, 1) for x in (k, v))
    scores = (k @ wide(q)[..., None])[..., 0] * (D**-0.5 if scale is None else scale)        # (B, H, S)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible[:, None], -math.inf)
    weights = scores.softmax(-1).where(visible[:, None], 0.0)                             # no key: NaN -> 0
    y = (weights[:, :, None] @ v)[:, :, 0].to(q.dtype)                                    # (B, H, D)
    return (y, scores.logsumexp(-1)) if return_lse else y


# --- norms and rotary -----------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale each vector to length sqrt(C), then by a learned gain per channel.

        y = x / sqrt(mean(x²) + eps) · weight

    Shapes: x (..., C); weight (C,); returns (..., C).
    Dtypes: computed in float32 (float64 for float64); the result in x.dtype.
    Source: Zhang & Sennrich 2019.
    """
    check_norm(x, weight)
    h = wide(x)
    return (h * (h.square().mean(-1, keepdim=True) + eps).rsqrt() * wide(weight)).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """A block's addition to the residual stream, and the next block's norm: (rms_norm(total), total).

    Shapes: x, residual (..., C); weight (C,). total is rounded to its dtype before it is normed.
    """
    check_norm(x, weight, residual=residual)
    total = x + residual  # (..., C)
    return rms_norm(total, weight, eps), total


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Shift each vector to mean 0, scale it to variance 1, then a learned gain and shift per channel.

        y = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias

    Shapes: x (..., C); weight, bias (C,); returns (..., C).
    Dtypes: as rms_norm.
    Source: Ba et al. 2016.
    """
    check_norm(x, weight, bias)
    h = wide(x)
    h = h - h.mean(-1, keepdim=True)
    y = h * (h.square().mean(-1, keepdim=True) + eps).rsqrt() * wide(weight)
    return (y if bias is None else y + wide(bias)).to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel i and channel i + D/2, as one vector of the plane, by the angle of its position.

        (a, b) -> (a cos - b sin, b cos + a sin)    a, b: first and second half of the channels

    The product of a turned query and a turned key depends on the difference of their positions alone.

    Shapes: x (B, H, T, D); cos, sin (T, D/2), or what broadcasts to (B, H, T, D/2); returns (B, H, T, D).
    Dtypes: computed in float32 (float64 for float64); the result in x.dtype.
    Source: Su et al. 2021; halves, not neighbours, as in GPT-NeoX and every Hugging Face model.
    """
    check_rotary(x, cos, sin)
    a, b = wide(x).chunk(2, dim=-1)  # (B, H, T, D/2) each
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def rms_norm_rotary(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """What queries and keys go through with QK-norm: every head's channels normed, then turned.

    Shapes: as `rotary`; weight (D,), the same for every head.
    """
    return rotary(rms_norm(x, weight, eps), cos, sin)


# --- loss -----------------------------------------------------------------------------------------------


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
    """The head's matmul and the loss in one op, so that a fast twin need never hold the (N, V) logits.

        logits = x weightᵀ
        logits = softcap · tanh(logits / softcap)   if softcap is given
        loss = logsumexp(logits) - logits[target] + z_loss · logsumexp(logits)²

    A target equal to ignore_index costs 0 and does not count in the mean; a mean over no target is NaN.

    Shapes: x (..., C); weight (V, C); targets (...) of int64; returns (...) for "none", else ().
    Dtypes: the matmul in x.dtype; losses in float32 (float64 for float64).
    Raises: ValueError for shapes that do not fit, no token, an unknown reduction, a softcap that is not positive,
            targets of another dtype; for a target outside the vocabulary where the CPU can see it (`check_targets`).
    Source: z-loss de Brébisson & Vincent 2016, PaLM 2022; softcap Gemma 2.
    """
    check_linear_cross_entropy(x, weight, targets, ignore_index, reduction, softcap)
    logits = wide(x @ weight.to(x.dtype).T)                    # (..., V)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    lse = logits.logsumexp(-1)                                 # (...)
    counted = targets != ignore_index
    safe = targets * counted                                   # (...): an ignored target looks at token 0
    picked = logits.gather(-1, safe[..., None])[..., 0]        # (...)
    losses = (lse - picked + z_loss * lse.square()).where(counted, 0.0)
    return reduce(losses, counted, reduction)


def reduce(losses: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """losses (...) -> the same, their sum, or their mean over the counted ones."""
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / counted.sum()


# --- MLP ------------------------------------------------------------------------------------------------


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """A gated unit whose gate is smooth.

        y = gate · sigmoid(gate) · up

    Shapes: gate, up (..., F); returns (..., F).
    Dtypes: computed in float32 (float64 for float64); the result in gate.dtype.
    Source: Shazeer 2020.
    """
    g = wide(gate)
    return (g * torch.sigmoid(g) * wide(up)).to(gate.dtype)


def gelu(x: Tensor) -> Tensor:
    """A gate that opens with its own input: x times roughly the chance that a standard normal is below x.

        y = x/2 · (1 + tanh(sqrt(2/π) · (x + 0.044715 x³)))

    The tanh form, with which GPT-2 was trained (Hugging Face: gelu_new); the exact one differs by up to 5e-4.

    Shapes: any; returns the same.
    Dtypes: computed in float32 (float64 for float64); the result in x.dtype.
    Source: Hendrycks & Gimpel 2016.
    """
    h = wide(x)
    return (0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))).to(x.dtype)


# --- optimizers -----------------------------------------------------------------------------------------


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
    grad_scale: Tensor | None = None,
    copies: Sequence[Tensor] | None = None,
) -> None:
    """One AdamW step, tensor after tensor, in place.

        g = grad_scale · g                       if given, as for clipping
        p = p · (1 - lr · weight_decay)          decay beside the gradient, not through it
        m = beta1 · m + (1 - beta1) · g          m: exp_avg
        v = beta2 · v + (1 - beta2) · g²         v: exp_avg_sq
        p = p - lr · m̂ / (sqrt(v̂) + eps)         m̂ = m / (1 - beta1^step), v̂ = v / (1 - beta2^step)
        copy = p                                 if given, rounded to the copy's dtype

    Shapes: the sequences run in parallel, equal shapes at equal places. `step` counts from 1; grad_scale ().
    Dtypes: computed in the moments' dtype; gradients and copies may be narrower.
    Raises: ValueError if lengths or shapes differ, step < 1, or grad_scale is not a single number.
    Source: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.
    """
    check_adamw(params, grads, exp_avgs, exp_avg_sqs, step=step, grad_scale=grad_scale, copies=copies)
    for p, g, m, v in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        g = g.to(m.dtype) if grad_scale is None else g.to(m.dtype) * grad_scale
        p.mul_(1 - lr * weight_decay)
        m.copy_(beta1 * m + (1 - beta1) * g)
        v.copy_(beta2 * v + (1 - beta2) * g.square())
        m_hat = m / (1 - beta1**step)
        v_hat = v / (1 - beta2**step)
        p.sub_(lr * m_hat / (v_hat.sqrt() + eps))
    if copies is not None:
        for p, copy in zip(params, copies, strict=True):
            copy.copy_(p)


def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """Push every singular value of g towards 1, keeping the singular vectors: roughly U Vᵀ of g = U Σ Vᵀ.

        x = g / ‖g‖;  repeat: x = a·x + (b·(x xᵀ) + c·(x xᵀ)²) x

    The polynomial acts on each singular value alone. Its coefficients give up converging to exactly 1 for
    speed at 0: the values end between about 0.7 and 1.2, which Muon does not mind.

    Shapes: g (..., M, N), each matrix of the batch alone; returns (..., M, N).
    Dtypes: computed in g.dtype.
    Source: Jordan et al. 2024, "Muon".
    """
    check_matrices(g)
    a, b, c = QUINTIC
    tall = g.size(-2) > g.size(-1)
    x = g.mT if tall else g                              # M <= N, so that x xᵀ is the small product
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT                                     # (..., M, M)
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if tall else x
