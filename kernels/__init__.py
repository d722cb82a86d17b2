"""The cellar: tensors in, tensors out. The few operations that decide how fast a GPT learns and speaks.

This package stands on torch alone and never imports minigpt. Read it in this order:

    reference.py     every op in plain torch: the specification, with its equation (`quantization.py`: integer weights)
    checks.py        what every implementation refuses
    builtin.py       the same ops through torch's own fused calls: what runs where no Triton kernel does
    dispatch.py      the one decision between them, and `explain()`; `selftest.py`: may this GPU be trusted?
    launch.py        how a Triton kernel is started: on a GPU, in the `interpreter.py` on a CPU, or on paper
    gpu/             the Triton kernels, a file per op
    manifest.py      every launch there is
    machine_code.py  compile them for a GPU that is not there, and read what the compiler made of them

In:  tensors of any float dtype (float64 too: it serves as the truth in tests) on any device.
Out: tensors. Each op below asks `dispatch` for its implementation; equations, shapes and errors stand at its
     twin of the same name in `reference.py`. `MINIGPT_KERNELS=reference` runs the specification itself.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from kernels.dispatch import explain, implementation

__all__ = [
    "adamw_", "add_rms_norm", "attention", "decode_attention", "explain", "gelu", "layer_norm",
    "linear_cross_entropy", "newton_schulz", "quantized_linear", "rms_norm", "rms_norm_rotary", "rotary", "swiglu",
]  # fmt: skip


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

    Shapes: q (B, H, T, D); k, v (B, G, S, D); returns (B, H, T, D), with `return_lse` also (B, H, T).
    """
    return implementation("attention", q)(
        q, k, v, causal=causal, window=window, softcap=softcap, scale=scale, document=document, alibi=alibi,
        dropout=dropout, deterministic=deterministic, return_lse=return_lse,
    )  # fmt: skip


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
    """Attention of one new query per sequence to its stored keys and values, which lie in pages.

    Shapes: q (B, H, D); k_pages, v_pages (P, G, page, D); page_table (B, max_pages) and lengths (B,) of int32;
            returns (B, H, D), with `return_lse` also (B, H).
    """
    return implementation("decode_attention", q)(
        q, k_pages, v_pages, page_table, lengths,
        window=window, softcap=softcap, scale=scale, return_lse=return_lse,
    )  # fmt: skip


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale each vector to length sqrt(C). Shapes: x (..., C); weight (C,); returns (..., C)."""
    return implementation("rms_norm", x)(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual). Shapes: x, residual (..., C); weight (C,); returns (..., C) twice."""
    return implementation("add_rms_norm", x)(x, residual, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Shift each vector to mean 0, scale it to variance 1. Shapes: x (..., C); weight, bias (C,)."""
    return implementation("layer_norm", x)(x, weight, bias, eps)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels by an angle. Shapes: x (B, H, T, D); cos, sin (T, D/2); returns (B, H, T, D)."""
    return implementation("rotary", x)(x, cos, sin)


def rms_norm_rotary(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """rotary(rms_norm(x)): QK-norm and positions in one. Shapes: as `rotary`; weight (D,)."""
    return implementation("rms_norm_rotary", x)(x, weight, eps, cos, sin)


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    reduction: Literal["none", "mean", "sum"] = "mean",
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    """The head's matmul and the loss in one, so that (N, V) logits need not exist.

    Shapes: x (..., C); weight (V, C); targets (...); returns (...) for "none", else ().
    """
    return implementation("linear_cross_entropy", x)(
        x, weight, targets, ignore_index=ignore_index, reduction=reduction, softcap=softcap, z_loss=z_loss
    )


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up. Shapes: gate, up (..., F); returns (..., F)."""
    return implementation("swiglu", gate)(gate, up)


def gelu(x: Tensor) -> Tensor:
    """x/2 · (1 + tanh(sqrt(2/π) (x + 0.044715 x³))). Shapes: any; returns the same."""
    return implementation("gelu", x)(x)


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
    """One AdamW step on many tensors, in place. `step` counts from 1.

    grad_scale () multiplies every gradient: what clipping asks for. copies receive the new values, rounded.
    """
    if params:
        implementation("adamw_", params[0])(
            params, grads, exp_avgs, exp_avg_sqs, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, grad_scale=grad_scale, copies=copies,
        )  # fmt: skip


def newton_schulz(g: Tensor, steps: int = 5) -> Tensor:
    """Push every singular value of g towards 1, keeping the singular vectors. Shapes: g (..., M, N)."""
    return implementation("newton_schulz", g)(g, steps)


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x Wᵀ, W stored as small integers. Shapes: x (..., K); weight and scale: `quantization.py`; returns (..., N)."""
    return implementation("quantized_linear", x)(x, weight, scale)
