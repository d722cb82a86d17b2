"""Decoding: one query against a long cache, and a linear layer whose weights are small integers."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

import kernels
from benchmarks.cases_attention import BACKENDS
from benchmarks.kernel_case import Case, Trial, compiled, forward_run
from benchmarks.kernel_costs import decode_cost, quantized_cost
from kernels import reference
from kernels.quantization import dequantized, quantize_int4, quantize_int8

GROUP = 128  # numbers that share a scale in four bits


def build_decode(*, B: int, H: int, G: int, S: int, D: int, page: int, dtype: torch.dtype, device: str) -> Trial:
    """Ours reads pages in random order, its peers the same cache as one tensor per sequence, already in order."""
    q = torch.randn(B, H, D, dtype=dtype, device=device)
    k, v = (torch.randn(B, G, S, D, dtype=dtype, device=device) for _ in range(2))
    table = torch.randperm(B * S // page, device=device).view(B, S // page).int()  # (B, S/page)
    lengths = torch.full((B,), S, dtype=torch.int32, device=device)
    ours = functools.partial(
        kernels.decode_attention, q, paged(k, table, page), paged(v, table, page), table, lengths
    )

    def sdpa(backend: Any) -> Tensor:
        with sdpa_kernel([backend]):
            return F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=H != G)[:, :, 0]

    def truth() -> tuple[Tensor, ...]:
        """Of the last sequence: every one in float64 would not fit."""
        one = (x[-1:].double() for x in (q[:, :, None], k, v))
        return (reference.attention(*one)[:, :, 0],)

    return Trial(
        ours=forward_run(ours), truth=truth, part=lambda outputs: tuple(x[-1:] for x in outputs),
        peers={name: forward_run(functools.partial(sdpa, backend)) for name, backend in BACKENDS.items()},
    )  # fmt: skip


def paged(x: Tensor, table: Tensor, page: int) -> Tensor:
    """(B, G, S, D) -> pages (P, G, page, D), of which table (B, S/page) names each sequence's."""
    B, G, S, D = x.shape
    pages = x.new_empty(B * S // page, G, page, D)
    pages[table.long().view(-1)] = x.view(B, G, S // page, page, D).transpose(1, 2).reshape(-1, G, page, D)
    return pages


def decode_cases() -> Iterator[Case]:
    """Caches of 128 MB and more; smaller ones would be read from the L2 cache in earnest, too."""
    toy = {"B": 2, "H": 4, "G": 2, "S": 64, "D": 16, "page": 16, "dtype": torch.float32}
    for B, H, G, S in ((1, 32, 8, 65536), (32, 32, 8, 4096), (32, 32, 8, 65536), (1, 64, 64, 4096)):
        yield Case(
            key=f"decode/B{B}/S{S}", op="decode_attention", build=build_decode, toy=toy,
            size={"B": B, "H": H, "G": G, "S": S, "D": 128, "page": 128, "dtype": torch.bfloat16},
            cost=lambda size: decode_cost(**{name: size[name] for name in "BSGD"}, itemsize=size["dtype"].itemsize),
        )  # fmt: skip


def build_quantized(*, B: int, C: int, F_: int, bits: int, dtype: torch.dtype, device: str, compiles: bool) -> Trial:
    x = torch.randn(B, C, dtype=dtype, device=device)
    w = torch.randn(F_, C, device=device) / C**0.5
    weight, scale = quantize_int8(w) if bits == 8 else quantize_int4(w, GROUP)
    plain = dequantized(weight, scale).to(dtype)  # (F, C): what a bfloat16 model would multiply by
    peers = {"bf16": forward_run(lambda: F.linear(x, plain))}
    if compiles:
        linear = compiled(lambda x, w: F.linear(x, w), device)  # F.linear itself has no bytecode to read
        peers["compile"] = forward_run(lambda: linear(x, plain))
    return Trial(
        ours=forward_run(lambda: kernels.quantized_linear(x, weight, scale)), peers=peers,
        truth=lambda: (x.double() @ dequantized(weight, scale.double()).T,),
    )  # fmt: skip


def quantized_cases() -> Iterator[Case]:
    """C inputs, F outputs: an attention projection and an MLP of an 8B model, a single sequence or eight."""
    for bits in (8, 4):
        for B in (1, 8):
            for width in (4096, 14336):
                compiles = B == 1 and bits == 8
                yield Case(
                    key=f"quantized/int{bits}/B{B}/4096x{width}", op="quantized_linear", build=build_quantized,
                    compiled=compiles,
                    size={"B": B, "C": 4096, "F_": width, "bits": bits, "dtype": torch.bfloat16, "compiles": compiles},
                    toy={"C": 128, "F_": 32, "dtype": torch.float32}, tolerance=1e-2,
                    cost=lambda size: quantized_cost(
                        B=size["B"], C=size["C"], F=size["F_"], bits=size["bits"],
                        group=size["C"] if size["bits"] == 8 else GROUP,
                    ),
                )  # fmt: skip
