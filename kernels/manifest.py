"""Every launch there is: each op, at the shapes and dtypes that choose another kernel, tile or constant.

`machine_code` compiles these for GPUs that are not there. An entry calls an op's host function with tensors on the
meta device, which have a shape and no numbers; the launches it would make are the entry. So an entry cannot differ
from what runs, and a kernel that no entry reaches is found by a test.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.launch import Launch, on_paper

BF16, FP32 = torch.bfloat16, torch.float32


class Allowance(NamedTuple):
    """How many bytes of a kernel's registers may spill on one architecture, and why."""

    kernel: str
    arch: int
    stack: int
    reason: str


class Entry(NamedTuple):
    """One call of an op, and what its kernels may do that others must not."""

    call: Callable[[], object]
    spills: Allowance | None = None
    narrow: str = ""  # why it may read and write less than 16 bytes at a time
    only: int = 0     # the one architecture it is written for; 0: all

    def stack_allowed(self, kernel: str, arch: int) -> int:
        """Bytes. What is allowed on an A100 is allowed on its smaller siblings, which have the same registers."""
        family = 80 if arch < 90 else arch
        return self.spills.stack if self.spills and (kernel, family) == self.spills[:2] else 0


def _meta(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


# --- attention ------------------------------------------------------------------------------------------


def _attention(
    D: int, *, dtype: torch.dtype = BF16, groups: int = 1, softcap: float = 0.0, document: bool = False, T: int = 4096
) -> Callable[[], object]:
    """Forward and backward, laid out as a model has it: heads are views of (B, T, H · D)."""

    def call() -> None:
        from kernels.gpu.attention_backward import backward
        from kernels.gpu.attention_forward import forward

        B, H = 4, 16
        q = _meta(B, T, H, D, dtype=dtype).transpose(1, 2)
        k = _meta(B, T, H // groups, D, dtype=dtype).transpose(1, 2)
        ids = _meta(B, T, dtype=torch.int64) if document else None
        how = (ids, 0, T, D**-0.5, softcap)
        y, lse = forward(q, k, k, *how)
        backward(y, lse if softcap else None, q, k, k, y, lse, *how)

    return call


def _hopper_attention(
    D: int, *, dtype: torch.dtype = BF16, B: int = 4, H: int = 16, ahead: int = 0
) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.attention_hopper_backward import backward
        from kernels.gpu.attention_hopper_forward import forward

        q = _meta(B, 4096, H, D, dtype=dtype).transpose(1, 2)
        how = (None, ahead, 4096, D**-0.5, 0.0)
        y, lse = forward(q, q, q, *how)
        backward(y, None, q, q, q, y, lse, *how)

    return call


# --- the other ops --------------------------------------------------------------------------------------


def _decode(D: int, *, groups: int = 4, softcap: float = 0.0, dtype: torch.dtype = BF16) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.decode_attention import decode

        pages = _meta(4096, 8, 64, D, dtype=dtype)
        table, lengths = _meta(16, 256, dtype=torch.int32), _meta(16, dtype=torch.int32)
        decode(_meta(16, 8 * groups, D, dtype=dtype), pages, pages, table, lengths, 256 * 64, D**-0.5, softcap)

    return call


def _cross_entropy(V: int, *, softcap: float = 0.0, dtype: torch.dtype = BF16) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.cross_entropy import token_gradients, token_losses, total_loss

        x, weight, targets = _meta(2048, 768, dtype=dtype), _meta(V, 768, dtype=FP32), _meta(2048, dtype=torch.int64)
        how = (-100, softcap, 0.0)
        losses, lse = token_losses(x, weight, targets, *how)
        token_gradients(losses, lse, x, weight, targets, *how, True, True)
        total_loss(x, weight, targets, *how, True, True)

    return call


def _norm(C: int, *, centred: bool = False, added: bool = False, dtype: torch.dtype = BF16) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.rms_norm import backward, forward

        x, weight = _meta(16384, C, dtype=dtype), _meta(C, dtype=FP32)
        y, _, statistics = forward(x, x if added else None, weight, weight if centred else None, 1e-5, centred)
        backward(y, y if added else None, x, weight, statistics, centred)

    return call


def _rotary(D: int, *, T: int = 4096, dtype: torch.dtype = BF16) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.rotary import backward, turn

        x, cos = _meta(4, T, 12, D, dtype=dtype).transpose(1, 2), _meta(T, D // 2, dtype=FP32)
        weight = _meta(D, dtype=FP32)
        turn(x, None, cos, cos, 0.0, False)
        turn(x, None, cos, cos, 0.0, True)
        turn(x, weight, cos, cos, 1e-5, False)
        backward(x, x, weight, cos, cos, 1e-5)

    return call


def _adamw(grad_dtype: torch.dtype, *, copied: bool) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.adamw import step_all

        params = [_meta(n, dtype=FP32) for n in (768, 768 * 3072)]
        grads = [_meta(n, dtype=grad_dtype) for n in (768, 768 * 3072)]
        copies = [_meta(n) for n in (768, 768 * 3072)] if copied else []
        scale = _meta(dtype=FP32) if copied else None
        step_all(params, grads, params, params, copies, scale, 3, 1e-3, 0.9, 0.95, 1e-8, 0.1)

    return call


def _symmetric(M: int, N: int, *, dtype: torch.dtype = BF16) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.newton_schulz import symmetric_product

        s = symmetric_product(_meta(12, M, N, dtype=dtype), None, 0.0, 1.0)
        symmetric_product(s, s, -4.7, 2.0, 3.4)

    return call


def _quantized(bits: int, rows: int, *, dtype: torch.dtype = BF16) -> Callable[[], object]:
    def call() -> None:
        from kernels.gpu.quantized_linear import few_rows

        N, K = 4096, 4096
        weight = _meta(N, K, dtype=torch.int8) if bits == 8 else _meta(N, K // 2, dtype=torch.uint8)
        few_rows(_meta(rows, K, dtype=dtype), weight, _meta(N, *(() if bits == 8 else (K // 128,)), dtype=FP32))

    return call


# --- the list -------------------------------------------------------------------------------------------

WIDE = Allowance("_dkdv_kernel", 90, 104, "gradients of 64 keys of 256 channels are half of all registers; Triton 3.9")
CAPPED = Allowance("_dkdv_kernel", 90, 16, "the softcap's slope; Triton 3.6")
COUNTERS = Allowance("_dkdv_kernel", 90, 24, "which tile it is, read back once per tile; both versions of Triton")
ODD = Allowance("_symmetric_kernel", 80, 16, "addresses of rows that are not aligned; Triton 3.6")

ENTRIES: dict[str, Entry] = {
    "attention 64": Entry(_attention(64)),
    "attention 128": Entry(_attention(128)),
    "attention 256": Entry(_attention(256), WIDE),
    "attention 80": Entry(_attention(80)),
    "attention 16": Entry(_attention(16)),
    "attention 64, odd T": Entry(_attention(64, T=1001)),
    "attention 64, 4 query heads a key head": Entry(_attention(64, groups=4)),
    "attention 64, softcap": Entry(_attention(64, softcap=30.0)),
    "attention 128, softcap": Entry(_attention(128, softcap=30.0), CAPPED),
    "attention 64, documents": Entry(_attention(64, document=True)),
    "attention 128, documents": Entry(_attention(128, document=True)),
    "attention 64, float16": Entry(_attention(64, dtype=torch.float16)),
    "attention 64, float32": Entry(_attention(64, dtype=FP32)),
    "attention 128, float32": Entry(_attention(128, dtype=FP32)),
    "attention 256, float32": Entry(_attention(256, dtype=FP32)),
    "attention 64, Hopper's own": Entry(_hopper_attention(64), only=90),
    "attention 128, Hopper's own": Entry(_hopper_attention(128), COUNTERS, only=90),
    "attention 128, Hopper's own, float16": Entry(_hopper_attention(128, dtype=torch.float16), COUNTERS, only=90),
    "attention 64, Hopper's own, one head": Entry(_hopper_attention(64, B=1, H=1, ahead=1), only=90),
    "decode_attention 64": Entry(_decode(64)),
    "decode_attention 128": Entry(_decode(128)),
    "decode_attention 128, one query head a key head": Entry(_decode(128, groups=1)),
    "decode_attention 256, softcap": Entry(_decode(256, softcap=30.0)),
    "decode_attention 128, float32": Entry(_decode(128, dtype=FP32)),
    "linear_cross_entropy": Entry(_cross_entropy(50304)),
    "linear_cross_entropy, odd vocabulary": Entry(_cross_entropy(50257)),
    "linear_cross_entropy, softcap": Entry(_cross_entropy(50304, softcap=30.0)),
    "linear_cross_entropy, float32": Entry(_cross_entropy(50304, dtype=FP32)),
    "rms_norm 768": Entry(_norm(768)),
    "rms_norm 4096": Entry(_norm(4096)),
    "rms_norm 128": Entry(_norm(128)),
    "rms_norm 16384": Entry(_norm(16384)),
    "rms_norm 768, float32": Entry(_norm(768, dtype=FP32)),
    "add_rms_norm 768": Entry(_norm(768, added=True)),
    "add_rms_norm 8192": Entry(_norm(8192, added=True)),
    "layer_norm 768": Entry(_norm(768, centred=True)),
    "layer_norm 8192": Entry(_norm(8192, centred=True)),
    "rotary 64": Entry(_rotary(64)),
    "rotary 128": Entry(_rotary(128)),
    "rotary 64, float32": Entry(_rotary(64, dtype=FP32)),
    "rotary 128, one token": Entry(_rotary(128, T=1), narrow="a tile is a token of four heads: 1 KB"),
    "adamw_": Entry(_adamw(FP32, copied=False)),
    "adamw_, bfloat16 gradients and copies, clipped": Entry(_adamw(BF16, copied=True)),
    "newton_schulz": Entry(_symmetric(768, 3072)),
    "newton_schulz, odd sides": Entry(_symmetric(767, 3071), ODD, narrow="rows of odd length are not aligned"),
    "newton_schulz, float32": Entry(_symmetric(768, 3072, dtype=FP32)),
    "quantized_linear int8, 1 row": Entry(_quantized(8, 1)),
    "quantized_linear int8, 16 rows": Entry(_quantized(8, 16)),
    "quantized_linear int4, 1 row": Entry(_quantized(4, 1)),
    "quantized_linear int4, 16 rows": Entry(_quantized(4, 16)),
}


def launches_of(entry: str, arch: int) -> list[Launch]:
    """What the entry launches on a GPU of that compute capability."""
    with on_paper(arch) as page:
        if ENTRIES[entry].only in (0, arch):
            ENTRIES[entry].call()
    return page
