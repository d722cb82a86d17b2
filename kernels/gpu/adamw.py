"""AdamW for all tensors of a group in one launch, with the gradients' scale and the low-precision copy folded in.

    g ← grad_scale · g        if given: clipping, and the inverse of the loss scale
    m ← beta1 · m + (1 − beta1) · g
    v ← beta2 · v + (1 − beta2) · g²
    p ← (1 − lr · weight_decay) · p − (lr · s / c) · m / (sqrt(v) + eps · s),   c = 1 − beta1ᵗ, s = sqrt(1 − beta2ᵗ)
    copy ← p, rounded         if given: the weights that the model multiplies with

which is the reference's update with both corrections moved out of the tensors. Every number is read once and
written once, and that is all the time a GPU takes for it: on their own, the scale would cost another pass over the
gradients and the copy another over the weights.

One launch serves tensors of any sizes: they are cut into chunks, and tables say where the tensors lie and which
chunk of which tensor a program takes. The tables follow from addresses and sizes, so the host makes them without a
look at the data, and keeps them while nothing moves. Gradients often move: their addresses are a table of their own.
"""

import functools
import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from kernels.checks import check_adamw
from kernels.launch import arch_of, cdiv, launch

TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
WARPS = 16
CHUNK = 4 * 32 * WARPS  # four numbers a thread: with more, Triton would pass half precision through shared memory
KEPT = 64  # tables of each kind: gradients' come and go, while those in use at every step stay


@triton.jit
def _adamw_kernel(
    chunks, addresses, grads, grad_scale, count, decay, beta1, rest1, beta2, rest2, rate, eps,
    GRAD: tl.constexpr, COPY: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """chunks: (programs, 2) tensor and chunk; addresses: (5, count) of p, m, v, copy, and the size; grads: (count)."""
    tensor, chunk = tl.load(chunks + 2 * tl.program_id(0)), tl.load(chunks + 2 * tl.program_id(0) + 1)
    addresses += tensor
    p, m, v = tl.load(addresses), tl.load(addresses + count), tl.load(addresses + 2 * count)
    copy, size, g = tl.load(addresses + 3 * count), tl.load(addresses + 4 * count), tl.load(grads + tensor)
    start = chunk.to(tl.int64) * CHUNK
    scale = 1.0
    if grad_scale is not None:
        scale = tl.load(grad_scale)
    # Only where all lie on 16 bytes and nothing is masked do loads and stores move 16 bytes at a time.
    if ((p | m | v | copy | g) % 16 == 0) & (start + CHUNK <= size):
        _step(
            p, g, m, v, copy, start, size, scale, decay, beta1, rest1, beta2, rest2, rate, eps, GRAD, COPY, CHUNK, False
        )
    else:
        _step(
            p, g, m, v, copy, start, size, scale, decay, beta1, rest1, beta2, rest2, rate, eps, GRAD, COPY, CHUNK, True
        )


@triton.jit
def _step(
    p, g, m, v, copy, start, size, scale, decay, beta1, rest1, beta2, rest2, rate, eps,
    GRAD: tl.constexpr, COPY: tl.constexpr, CHUNK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Numbers start.. of one tensor; p, g, m, v, copy are addresses."""
    inside = None
    if MASKED:
        inside = tl.arange(0, CHUNK) < size - start
    p, m = _numbers(p, start, tl.float32, CHUNK, MASKED), _numbers(m, start, tl.float32, CHUNK, MASKED)
    v, g = _numbers(v, start, tl.float32, CHUNK, MASKED), _numbers(g, start, GRAD, CHUNK, MASKED)
    gradient = tl.load(g, mask=inside).to(tl.float32) * scale
    mean = beta1 * tl.load(m, mask=inside) + rest1 * gradient
    square = beta2 * tl.load(v, mask=inside) + rest2 * (gradient * gradient)
    value = decay * tl.load(p, mask=inside) - rate * (mean / (tl.sqrt(square) + eps))
    tl.store(m, mean, mask=inside)
    tl.store(v, square, mask=inside)
    tl.store(p, value, mask=inside)
    if COPY is not None:
        tl.store(_numbers(copy, start, COPY, CHUNK, MASKED), value.to(COPY), mask=inside)


@triton.jit
def _numbers(address, start, TYPE: tl.constexpr, CHUNK: tl.constexpr, MASKED: tl.constexpr):
    """Where the numbers start.. lie; unless MASKED, the compiler may rely on multiples of 16 bytes."""
    pointer = address.to(tl.pointer_type(TYPE))
    if not MASKED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer + start + tl.arange(0, CHUNK)


def _stream(device: torch.device) -> int:
    """Whose table is it? Another stream might read it before it is there, and nobody would make it wait."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


@functools.lru_cache(maxsize=KEPT)
def _addresses(numbers: tuple[int, ...], device: torch.device, stream: int) -> Tensor:
    """These numbers on the device. It follows from them alone: one that is kept cannot be out of date."""
    return _upload(torch.tensor(numbers, dtype=torch.int64), device)


@functools.lru_cache(maxsize=KEPT)
def _chunks(sizes: tuple[int, ...], chunk: int, device: torch.device, stream: int) -> Tensor:
    """Which tensor and which of its chunks each program takes: (programs, 2). An empty tensor has none."""
    counts = torch.tensor([cdiv(size, chunk) for size in sizes])                               # (n,)
    tensor = torch.repeat_interleave(torch.arange(len(sizes)), counts)                         # (programs,)
    first = (counts.cumsum(0) - counts)[tensor]                                                # (programs,)
    return _upload(torch.stack((tensor, torch.arange(len(tensor)) - first), 1).int(), device)  # (programs, 2)


def _upload(table: Tensor, device: torch.device) -> Tensor:
    """From pinned memory, or the host would wait for everything that the device has still to do."""
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table.to(device)


def step_all(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    copies: list[Tensor],
    grad_scale: Tensor | None,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One launch for all tensors. No copies: an empty list."""
    device, chunk = params[0].device, 64 if arch_of(params[0]) == 0 else CHUNK
    sizes = tuple([p.numel() for p in params])
    roles = (params, exp_avgs, exp_avg_sqs, copies or params)
    stream = _stream(device)
    table = _addresses((*[x.data_ptr() for role in roles for x in role], *sizes), device, stream)
    moving = _addresses(tuple([x.data_ptr() for x in grads]), device, stream)
    chunks = _chunks(sizes, chunk, device, stream)
    s = math.sqrt(1 - beta2**step)
    if chunks.size(0):
        launch(
            _adamw_kernel, (chunks.size(0),), chunks, table, moving, grad_scale, len(params),
            1 - lr * weight_decay, beta1, 1 - beta1, beta2, 1 - beta2, lr * s / (1 - beta1**step), eps * s,
            GRAD=TYPES[grads[0].dtype], COPY=TYPES[copies[0].dtype] if copies else None, CHUNK=chunk,
            num_warps=WARPS,
        )  # fmt: skip


_step_all = custom_op("minigpt::adamw", step_all, mutates_args=("params", "exp_avgs", "exp_avg_sqs", "copies"))


@_step_all.register_fake
def _(*inputs: object) -> None:
    return None


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
    """Equation, shapes and errors: `reference.adamw_`. What it does not take: `uncovered_adamw_`."""
    check_adamw(params, grads, exp_avgs, exp_avg_sqs, step=step, grad_scale=grad_scale, copies=copies)
    if not params:
        return
    roles = list(params), list(grads), list(exp_avgs), list(exp_avg_sqs), list(copies or ())
    how = grad_scale, step, lr, beta1, beta2, eps, weight_decay
    if torch.compiler.is_compiling():
        _step_all(*roles, *how)
        return
    step_all(*roles, *how)  # beside the op, which takes each of the hundreds of tensors through the dispatcher
    written = [x for i, role in enumerate(roles) if i != 1 for x in role]
    torch.autograd.graph.increment_version(written)  # else a graph that kept an old weight would not notice


def uncovered_adamw_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    grad_scale: Tensor | None = None,
    copies: Sequence[Tensor] | None = None,
    **how: float,
) -> str | None:
    """Why plain torch must do it; None if this kernel can."""
    roles = {"params": params, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs, "grads": grads, "copies": copies or ()}
    devices = [] if grad_scale is None else [grad_scale.device]
    for name, tensors in roles.items():  # hundreds at every step: lists are compared, for a set would hash each
        allowed = list(TYPES) if name in ("grads", "copies") else [torch.float32]
        dtypes = [x.dtype for x in tensors]
        if dtypes.count(dtypes[0] if dtypes else None) < len(dtypes):
            return f"{name} differ in dtype: {', '.join(sorted({str(dtype) for dtype in dtypes}))}"
        if dtypes and dtypes[0] not in allowed:
            return f"{name} are {dtypes[0]}, not {' or '.join(map(str, allowed))}"
        if not all([x.is_contiguous() for x in tensors]):
            return f"some of the {name} are not contiguous"
        devices += [x.device for x in tensors]
    if devices.count(devices[0] if devices else None) < len(devices):
        return "the tensors lie on several devices"
    if grad_scale is not None and grad_scale.dtype != torch.float32:
        return f"grad_scale is {grad_scale.dtype}, not torch.float32"
    return None
