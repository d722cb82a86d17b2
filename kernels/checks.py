"""What every implementation of an op refuses: a ValueError with the numbers and what would work.

The letters are those of `reference.py`. `check_quantized_linear` stands with its formats in `quantization.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def check_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None,
    softcap: float | None,
    document: Tensor | None,
    alibi: Tensor | None,
) -> None:
    """What every implementation of attention refuses."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim == 4 or k.shape != v.shape or q.size(0) != k.size(0) or q.size(3) != k.size(3):
        raise ValueError(f"attention takes q (B, H, T, D) and k, v (B, G, S, D), got {shapes}")
    (B, H, T, _), (G, S) = q.shape, k.shape[1:3]
    if q.numel() == 0 or k.numel() == 0:
        raise ValueError(f"attention over nothing: {shapes} must have no side of length 0")
    if H % G or S < T:
        raise ValueError(f"attention needs G | H and S >= T, got H={H}, G={G}, T={T}, S={S}")
    if not q.dtype == k.dtype == v.dtype or not q.is_floating_point():
        raise ValueError(f"attention takes q, k and v of one float dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    if any(x.stride(-1) != 1 and x.size(-1) > 1 for x in (q, k, v)):
        raise ValueError(
            f"the channels of q, k and v must lie side by side, got strides {q.stride()}, {k.stride()}, {v.stride()}: "
            "call .contiguous()"
        )
    _check_window_and_softcap(window, softcap)
    if document is not None and (document.shape != (B, S) or document.is_floating_point()):
        raise ValueError(
            f"document holds an integer per key, {(B, S)}, got {tuple(document.shape)} of {document.dtype}"
        )
    if alibi is not None and alibi.shape != (H,):
        raise ValueError(f"alibi holds a slope per query head, ({H},), got {tuple(alibi.shape)}")


def check_decode_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    *,
    window: int | None,
    softcap: float | None,
) -> None:
    """What every implementation of decode_attention refuses."""
    pages = f"{tuple(k_pages.shape)} and {tuple(v_pages.shape)}"
    if q.ndim != 3 or k_pages.ndim != 4:
        raise ValueError(f"decoding takes q (B, H, D) and pages (P, G, page, D), got q {tuple(q.shape)}, pages {pages}")
    (B, H, D), (P, G, page) = q.shape, k_pages.shape[:3]
    if G == 0 or page == 0 or H % G or k_pages.shape != v_pages.shape or k_pages.size(3) != D:
        raise ValueError(f"q {tuple(q.shape)} needs pages ({P}, G, {page}, {D}) with G | {H}, got {pages}")
    if page_table.dim() != 2 or page_table.size(0) != B or lengths.shape != (B,):
        got = f"{tuple(page_table.shape)} and {tuple(lengths.shape)}"
        raise ValueError(f"{B} queries need a page table ({B}, max_pages) and lengths ({B},), got {got}")
    if not {page_table.dtype, lengths.dtype} <= INTEGERS:
        got = f"{page_table.dtype} and {lengths.dtype}"
        raise ValueError(f"a page table and lengths count pages and tokens, got {got}: call .int()")
    _check_window_and_softcap(window, softcap)


def _check_window_and_softcap(window: int | None, softcap: float | None) -> None:
    if window is not None and window < 1:
        raise ValueError(f"window={window}: a window counts the query itself, so it is at least 1")
    check_softcap(softcap)


def check_softcap(softcap: float | None) -> None:
    """0 would divide by 0 in one implementation and mean none in another."""
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap={softcap} must be positive; None for no cap")


def check_norm(x: Tensor, *vectors: Tensor | None, residual: Tensor | None = None) -> None:
    """What every norm refuses. vectors: gains and shifts, one number per channel."""
    if x.ndim < 1 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(f"a norm takes x (..., C) of a float dtype with C >= 1, got {tuple(x.shape)} of {x.dtype}")
    for vector in vectors:
        if vector is not None and vector.shape != x.shape[-1:]:
            raise ValueError(f"x {tuple(x.shape)} needs gains of shape ({x.size(-1)},), got {tuple(vector.shape)}")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"x and residual are added: {tuple(x.shape)} of {x.dtype} and {tuple(residual.shape)} of {residual.dtype}"
        )


def check_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """What every implementation of rotary refuses."""
    if x.ndim != 4 or x.numel() == 0 or x.size(3) % 2:
        raise ValueError(f"rotary turns pairs of channels of x (B, H, T, D), got {tuple(x.shape)}")
    pairs = (*x.shape[:3], x.size(3) // 2)
    fits = all(a in (1, b) for a, b in zip(reversed(cos.shape), reversed(pairs), strict=False)) and cos.ndim <= 4
    if cos.shape != sin.shape or not fits or cos.shape[-1:] != pairs[3:]:
        raise ValueError(
            f"x {tuple(x.shape)} needs cos and sin ({pairs[2]}, {pairs[3]}), got {tuple(cos.shape)} and "
            f"{tuple(sin.shape)}"
        )


def check_linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, reduction: str, softcap: float | None
) -> None:
    """What every implementation of linear_cross_entropy refuses."""
    if weight.dim() != 2 or x.dim() < 1 or x.size(-1) != weight.size(1):
        raise ValueError(f"need x (..., C) and weight (V, C), got x {tuple(x.shape)} and weight {tuple(weight.shape)}")
    if targets.shape != x.shape[:-1]:
        raise ValueError(
            f"need a target for each vector of x, targets {tuple(x.shape[:-1])}, got {tuple(targets.shape)}"
        )
    if x.numel() == 0 or weight.numel() == 0:
        raise ValueError(
            f"nothing to predict: x {tuple(x.shape)} and weight {tuple(weight.shape)} need an element at least"
        )
    if targets.dtype != torch.int64:
        raise ValueError(f"targets are {targets.dtype}, need token ids in torch.int64: targets.long()")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction={reduction!r} is not one of: none, mean, sum")
    check_softcap(softcap)
    check_targets(targets, weight.size(0), ignore_index)


def check_targets(targets: Tensor, vocab_size: int, ignore_index: int) -> None:
    """Refuse a target without a logit, where looking costs no wait: on a CPU, and not while being compiled."""
    if targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    strange = targets[(targets != ignore_index) & ((targets < 0) | (targets >= vocab_size))]
    if strange.numel():
        raise ValueError(
            f"target {strange[0].item()} is outside a vocabulary of {vocab_size}: need 0..{vocab_size - 1}, "
            f"or ignore_index={ignore_index} for a token that does not count"
        )


def check_adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int,
    grad_scale: Tensor | None,
    copies: Sequence[Tensor] | None,
) -> None:
    """What every implementation of AdamW refuses."""
    roles = {"grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    if copies is not None:
        roles["copies"] = copies
    wanted = [p.shape for p in params]
    for name, tensors in roles.items():
        if len(tensors) != len(params):
            raise ValueError(f"{len(tensors)} {name} for {len(params)} params: give one to each")
        shapes = [x.shape for x in tensors]
        if shapes != wanted:  # one comparison for hundreds of tensors at every step
            i = next(i for i, shape in enumerate(shapes) if shape != wanted[i])
            raise ValueError(f"{name}[{i}] is {tuple(shapes[i])}, its parameter {tuple(wanted[i])}: both must agree")
    if step < 1:
        raise ValueError(f"step={step}: steps count from 1, or the moments' correction would divide by 0")
    if grad_scale is not None and grad_scale.shape != ():
        raise ValueError(f"grad_scale is {tuple(grad_scale.shape)}: one number for all gradients, of shape ()")


def check_matrices(g: Tensor) -> None:
    """What every implementation of newton_schulz refuses."""
    if g.ndim < 2 or g.numel() == 0 or not g.is_floating_point():
        raise ValueError(f"newton_schulz takes matrices (..., M, N) of floats, got {tuple(g.shape)} of {g.dtype}")
