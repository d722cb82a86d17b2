"""Weights as small integers: two formats, how to make them, and `quantized_linear` in plain torch.

    int8   weight (N, K) of int8, scale (N,)                       W = weight · scale of the row
    int4   weight (N, K/2) of uint8, scale (N, K/group)            W = (number - 8) · scale of the group

Four bits: byte j of a row holds number 2j in its low half and number 2j + 1 in its high half. A group is a run of
neighbours in a row, a multiple of 32 of them, so that 16 bytes, which a GPU loads at a time, have one scale.
"""

import torch
from torch import Tensor


def quantize_int8(w: Tensor) -> tuple[Tensor, Tensor]:
    """Every row in 255 even steps, its largest number at ±127.

    Shapes: w (N, K); returns weight (N, K) of int8 and scale (N,) of float32.
    """
    w = w.float()
    scale = w.abs().amax(-1) / 127                                           # (N,)
    return (w / _divisor(scale)[:, None]).round().to(torch.int8), scale


def quantize_int4(w: Tensor, group: int = 128) -> tuple[Tensor, Tensor]:
    """Every group of a row in 15 even steps, its largest number at ±7.

    Shapes: w (N, K); returns weight (N, K/2) of uint8 and scale (N, K/group) of float32.
    Raises: ValueError if group is no multiple of 32 that divides K.
    """
    N, K = w.shape
    check_group(K, group)
    groups = w.float().reshape(N, K // group, group)
    scale = groups.abs().amax(-1) / 7                                        # (N, K/group)
    numbers = (groups / _divisor(scale)[..., None]).round().to(torch.int8)   # (N, K/group, group), -7 .. 7
    low, high = (numbers.view(N, K // 2, 2) + 8).to(torch.uint8).unbind(-1)  # (N, K/2) each
    return low | (high << 4), scale


def _divisor(scale: Tensor) -> Tensor:
    """A row of zeros has scale 0, by which nothing can be divided; by 1 it stays 0."""
    return scale.where(scale > 0, 1.0)


def dequantized(weight: Tensor, scale: Tensor) -> Tensor:
    """The numbers the integers stand for: (N, K) in float32 (float64 for a scale of float64)."""
    check_quantized(weight, scale)
    numbers, scales = grouped(weight, scale)
    return (numbers * scales).flatten(1)


def grouped(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The integers (N, K/group, group), and what each group is multiplied by, (N, K/group, 1). int8: one group."""
    scale = scale.to(torch.promote_types(scale.dtype, torch.float32))
    if weight.dtype == torch.int8:
        return weight[:, None], scale[:, None, None]
    numbers = torch.stack((weight & 15, weight >> 4), dim=-1).flatten(1).to(torch.int8) - 8  # (N, K)
    return numbers.unflatten(1, (scale.size(1), -1)), scale[:, :, None]


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """y = x Wᵀ where W is stored as small integers: see above for the two formats.

    Shapes: x (..., K); weight (N, K) of int8 with scale (N,), or (N, K/2) of uint8 with scale (N, K/group);
            returns (..., N).
    Dtypes: W and the matmul in float32 (float64 for float64); the result in x.dtype.
    Raises: ValueError if weight and scale are neither format, or x does not fit them.
    """
    check_quantized_linear(x, weight, scale)
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) @ dequantized(weight, scale).to(wide).T).to(x.dtype)


def check_quantized_linear(x: Tensor, weight: Tensor, scale: Tensor) -> None:
    """What every implementation of quantized_linear refuses."""
    check_quantized(weight, scale)
    if x.shape[-1:] != (columns(weight),):
        raise ValueError(f"x {tuple(x.shape)} does not fit a weight of {columns(weight)} columns")


def columns(weight: Tensor) -> int:
    """K: how many numbers a row of quantized weights stands for."""
    return weight.size(1) * (1 if weight.dtype == torch.int8 else 2)


def check_quantized(weight: Tensor, scale: Tensor) -> None:
    """Refuse what is neither of the two formats."""
    if weight.dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"a quantized weight is int8, or uint8 with two numbers a byte, not {weight.dtype}")
    if weight.dim() != 2:
        raise ValueError(f"a quantized weight is (N, K) of int8 or (N, K/2) of uint8, got {tuple(weight.shape)}")
    N, four = weight.size(0), weight.dtype == torch.uint8
    if scale.dim() != 1 + four or scale.size(0) != N:
        expected, got = f"({N}, K/group)" if four else f"({N},)", tuple(scale.shape)
        raise ValueError(f"a weight {tuple(weight.shape)} of {weight.dtype} needs a scale {expected}, got {got}")
    if four:
        K = columns(weight)
        if scale.size(1) == 0 or K % scale.size(1):
            raise ValueError(f"{scale.size(1)} groups do not divide K={K}")
        check_group(K, K // scale.size(1))


def check_group(K: int, group: int) -> None:
    """A group ends where 32 numbers end, and a row where a group ends."""
    if group < 32 or group % 32 or K % group:
        raise ValueError(f"group={group} must be a multiple of 32 that divides K={K}")
