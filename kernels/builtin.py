"""The same ops through torch's own fused calls: what runs where no Triton kernel does.

Only what differs from `reference.py` is said here; shapes, dtypes and errors are the reference's. Where a
line looks roundabout, a CPU asked for it: times were measured on one core, forward and backward together.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import checks, reference
from kernels.reference import decode_attention, quantized_linear, wide

__all__ = [
    "adamw_", "add_rms_norm", "attention", "decode_attention", "gelu", "layer_norm", "linear_cross_entropy",
    "newton_schulz", "quantized_linear", "rms_norm", "rms_norm_rotary", "rotary", "swiglu",
]  # fmt: skip


def _own_backward_pays(x: Tensor) -> bool:
    """On a CPU torch lacks some fused kernels, and a backward pass by hand beats the one it assembles.

    Not in half precision, where every intermediate result would be rounded; not without gradients.
    """
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and torch.is_grad_enabled()


# --- attention ------------------------------------------------------------------------------------------


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
    if softcap is not None or return_lse or (deterministic and q.device.type != "cpu"):
        return reference.attention(  # torch's fused attention offers none of the three
            q, k, v, causal=causal, window=window, softcap=softcap, scale=scale, document=document,
            alibi=alibi, dropout=dropout, return_lse=return_lse,
        )  # fmt: skip
    checks.check_attention(q, k, v, window=window, softcap=softcap, document=document, alibi=alibi)
    T, S = q.size(2), k.size(2)
    if causal and window is not None and window + T - 1 < S:
        S = window + T - 1  # earlier keys lie outside every query's window: do not even look
        k, v, document = k[:, :, -S:], v[:, :, -S:], None if document is None else document[:, -S:]
    if window is not None and window >= S:
        window = None
    mask = None
    if window is not None or document is not None or alibi is not None or (causal and 1 < T < S):
        mask = _mask(q, S, causal=causal, window=window, document=document, alibi=alibi)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=q.size(1) != k.size(1),
        is_causal=causal and mask is None and T == S,  # one query at the end of S keys sees them all
    )  # fmt: skip


def _mask(
    q: Tensor, S: int, *, causal: bool, window: int | None, document: Tensor | None, alibi: Tensor | None
) -> Tensor:
    """What may be seen, bool (T, S) or (B, 1, T, S); with ALiBi a bias on the scores (1 or B, H, T, S)."""
    T, device = q.size(2), q.device
    visible = reference.visible_keys(T, S, causal=causal, window=window, document=document, device=device)
    if alibi is None:
        return visible
    bias = -wide(alibi)[:, None, None] * reference.distances(T, S, device).abs()  # (H, T, S)
    return bias.masked_fill(~visible, -math.inf).to(q.dtype)                      # (H, T, S) or (B, H, T, S)


# --- norms and rotary -----------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    checks.check_norm(x, weight)
    h, gain = wide(x), wide(weight)  # gains stay float32 beside activations in half precision
    y = _RMSNorm.apply(h, gain, eps) if _own_backward_pays(h) else F.rms_norm(h, gain.shape, gain, eps)
    return y.to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """Backward through LayerNorm's fused kernel, which at mean 0 lacks a single term of ours.

        y  = x r w,  r = 1 / sqrt(mean(x²) + eps)
        dx = r (g w - x r · mean(g w x r))
           = layer_norm_backward(mean = 0) + r · mean(g w)

    16 x 256 x 256: 1.7 ms; F.rms_norm 6.3 ms.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
        r = r.square_().div_(x.size(-1)).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, r = ctx.saved_tensors
        C, grad = x.size(-1), grad.contiguous()
        dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [C], torch.zeros_like(r), r, weight, None, [True, True, False]
        )
        return dx.add_((grad @ weight)[..., None].mul_(r).div_(C)), dweight, None


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    checks.check_norm(x, weight, residual=residual)
    total = x + residual  # (..., C)
    return rms_norm(total, weight, eps), total


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    checks.check_norm(x, weight, bias)
    gain, shift = wide(weight), None if bias is None else wide(bias)
    return F.layer_norm(wide(x), gain.shape, gain, shift, eps).to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Both halves in one go: x · (cos, cos) + (x with its halves swapped) · (-sin, sin).

    16 x 4 x 256 x 64: 2.6 ms; four products of halves 5.1 ms.
    """
    checks.check_rotary(x, cos, sin)
    h = wide(x)
    swapped = h.roll(x.size(-1) // 2, -1)
    return torch.addcmul(h * torch.cat((cos, cos), -1), swapped, torch.cat((-sin, sin), -1)).to(x.dtype)


def rms_norm_rotary(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    return rotary(rms_norm(x, weight, eps), cos, sin)


# --- loss -----------------------------------------------------------------------------------------------

DIRECT = 2**19  # logits of up to so many elements fit a CPU's caches: F.cross_entropy on all of them wins
KEPT = 2**25    # up to so many (128 MB in float32) are kept for the backward pass, which else repeats them
CHUNK = 2**20   # elements made at a time: 4 MB stay in a cache while they are exponentiated and summed
ROWS = 256      # but at least so many rows, or the matmuls become thin


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
    """Few logits all at once, many chunk by chunk. N = V = 4096, C = 256: 0.39 s; all at once 0.50 s."""
    checks.check_linear_cross_entropy(x, weight, targets, ignore_index, reduction, softcap)
    rows, wanted = x.reshape(-1, x.size(-1)), targets.reshape(-1)  # (N, C), (N,)
    if rows.size(0) * weight.size(0) <= DIRECT and softcap is None and not z_loss:
        logits = wide(F.linear(rows, weight.to(x.dtype)))          # (N, V)
        losses = F.cross_entropy(logits, wanted, ignore_index=ignore_index, reduction="none")
    else:
        losses = _ChunkedCrossEntropy.apply(rows, weight, wanted, ignore_index, softcap, z_loss)
    return reference.reduce(losses.view(targets.shape), targets != ignore_index, reduction)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Never more than a chunk of fresh logits at a time.

        p = exps / sum(exps),  exps = exp(logits - max)
        d loss / d logits = p · (1 + 2 z_loss · lse) - onehot(target)
        with a softcap, all of it times 1 - (logits / softcap)²

    exps are kept for the backward pass where they fit. The gradient cannot be finished in the forward pass
    already: how much each token's loss will count is known only in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        ignore_index: int,
        softcap: float | None,
        z_loss: float,
    ) -> Tensor:
        N, V = x.size(0), weight.size(0)
        ctx.rows, ctx.softcap, ctx.z_loss = max(ROWS, CHUNK // V), softcap, z_loss
        keeps = any(ctx.needs_input_grad) and softcap is None and N * V <= KEPT
        counted = (targets != ignore_index)[:, None]                      # (N, 1)
        safe = targets[:, None] * counted                                 # (N, 1): if ignored, token 0
        losses, lses, tops, kept = [], [], [], []
        for x_n, target in zip(x.split(ctx.rows), safe.split(ctx.rows), strict=True):
            logits = _logits(x_n, weight, softcap)                        # (n, V)
            picked = logits.gather(-1, target)                            # (n, 1)
            top = logits.amax(-1, keepdim=True)                           # (n, 1)
            exps = logits.sub_(top).exp_()                                # (n, V)
            lse = exps.sum(-1, keepdim=True).log_().add_(top)             # (n, 1)
            losses.append(lse - picked + z_loss * lse.square())
            lses.append(lse)
            tops.append(top)
            if keeps:
                kept.append(exps)
        ctx.save_for_backward(x, weight, safe, counted, torch.cat(lses), torch.cat(tops), *kept)
        return torch.cat(losses).where(counted, 0.0)[:, 0]                # (N,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets, counted, lses, tops, *kept = ctx.saved_tensors
        loss_grad = grad[:, None] * counted                               # (N, 1)
        exps_grad = loss_grad * (1 + 2 * ctx.z_loss * lses) * (tops - lses).exp()
        dx = torch.empty_like(x)
        dweight = torch.zeros_like(weight, dtype=wide(x).dtype)           # half precision: summed in float32
        per_token = (x, dx, targets, loss_grad, exps_grad, tops)
        for i, chunk in enumerate(zip(*(tensor.split(ctx.rows) for tensor in per_token), strict=True)):
            x_n, dx_n, target, loss_grad_n, exps_grad_n, top = chunk
            logits = None if kept else _logits(x_n, weight, ctx.softcap)  # (n, V)
            exps = kept[i] if logits is None else (logits - top).exp_()
            d = (exps * exps_grad_n).scatter_add_(-1, target, -loss_grad_n)
            if ctx.softcap is not None and logits is not None:
                d.mul_(1 - (logits / ctx.softcap).square_())
            d = d.to(x.dtype)                                             # (n, V): d loss / d logits
            if ctx.needs_input_grad[0]:
                torch.mm(d, weight.to(x.dtype), out=dx_n)
            if ctx.needs_input_grad[1]:
                _add_product(dweight, d.T, x_n)
        return dx, dweight.to(weight.dtype), None, None, None, None


def _logits(x: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    logits = wide(F.linear(x, weight.to(x.dtype)))  # (n, V)
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, in one call where the dtypes agree."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


# --- MLP ------------------------------------------------------------------------------------------------


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def gelu(x: Tensor) -> Tensor:
    if _own_backward_pays(x):
        return _Gelu.apply(x)
    return F.gelu(x, approximate="tanh")


class _Gelu(torch.autograd.Function):
    """The tanh form written with a sigmoid, which torch computes four times as fast as tanh on a CPU.

        (1 + tanh u) / 2 = sigmoid(2u)
        y  = x · s,  s = sigmoid(x · (a + b x²)),  a = 2 sqrt(2/π), b = 0.044715 a
        y' = s + y · (1 - s) · (a + 3 b x²)

    y' is computed at once, while its pieces are in the cache, and it alone is kept.
    12 x 64 x 512: 1.0 ms; F.gelu 3.0 ms (without approximation 0.9 ms).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b = x.new_tensor(2 * math.sqrt(2 / math.pi)), 2 * math.sqrt(2 / math.pi) * 0.044715
        s = torch.addcmul(a, x, x, value=b).mul_(x).sigmoid_()
        y = x * s
        slope = s.addcmul_(torch.addcmul(y, y, s, value=-1), torch.addcmul(a, x, x, value=3 * b))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


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
    """The reference's equations in seven passes in place, over pieces that stay in a CPU's cache from pass to pass.

        p ← p − (lr · s / c) · m / (sqrt(v) + eps · s),   c = 1 − beta1ᵗ, s = sqrt(1 − beta2ᵗ)

    is the reference's update with both corrections moved out of the tensors.
    """
    checks.check_adamw(params, grads, exp_avgs, exp_avg_sqs, step=step, grad_scale=grad_scale, copies=copies)
    grads = [g.to(m.dtype) for g, m in zip(grads, exp_avgs, strict=True)]
    if grad_scale is not None:
        grads = [g * grad_scale for g in grads]
    s = math.sqrt(1 - beta2**step)
    for tensors in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        for p, g, m, v in _pieces(tensors):
            p.mul_(1 - lr * weight_decay)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            p.addcdiv_(m, v.sqrt().add_(eps * s), value=-lr * s / (1 - beta1**step))
    if copies is not None:
        for p, copy in zip(params, copies, strict=True):
            copy.copy_(p)


PIECE = 2**16  # numbers: four tensors of them and a temporary take 1.25 MB


def _pieces(tensors: tuple[Tensor, ...]) -> Iterable[tuple[Tensor, ...]]:
    """Views of equally shaped tensors, a piece of each at a time where that pays."""
    first = tensors[0]
    if first.device.type != "cpu" or first.numel() <= PIECE or not all(t.is_contiguous() for t in tensors):
        return (tensors,)
    return zip(*(tensor.view(-1).split(PIECE) for tensor in tensors), strict=True)


def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """Sums and products in one call each: `baddbmm` adds while it multiplies. A fifth less time."""
    checks.check_matrices(g)
    a, b, c = reference.QUINTIC
    tall = g.size(-2) > g.size(-1)
    x = (g.mT if tall else g).reshape(-1, min(g.shape[-2:]), max(g.shape[-2:]))  # (n, M, N), M <= N
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT                                                             # (n, M, M)
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    x = x.view(*g.shape[:-2], *x.shape[-2:])
    return x.mT if tall else x
