"""Attention: ours beside torch's own kernels, forward and backward, and the public grid."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import kernels
from benchmarks.kernel_case import Case, Trial, compiled, run_of
from benchmarks.kernel_costs import Cost, attention_cost, packed_lengths
from benchmarks.kernel_timing import Run
from kernels import reference

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
EXACT = 4096  # keys up to which the truth is taken in float64: 16k squared scores would not fit
TOY = {"B": 1, "H": 2, "G": 1, "T": 11, "D": 16, "dtype": torch.float32, "mean": 8, "window": 5}


def draw(B: int, H: int, T: int, D: int, dtype: torch.dtype, device: str) -> Tensor:
    """(B, H, T, D) as a model has it: a view of (B, T, H, D)."""
    return torch.randn(B, T, H, D, dtype=dtype, device=device).transpose(1, 2).requires_grad_()


def documents(T: int, mean: int, B: int, device: str) -> Tensor:
    """(B, T): documents of random lengths, packed."""
    lengths = torch.tensor(packed_lengths(T, mean), device=device)
    return torch.arange(len(lengths), device=device).repeat_interleave(lengths).expand(B, T).contiguous()


def build_attention(
    *, way: str, B: int, H: int, G: int, T: int, D: int, dtype: torch.dtype, device: str,
    window: int | None = None, mean: int | None = None, flex: bool = False, hopper: bool = False,
) -> Trial:  # fmt: skip
    q, k, v = (draw(B, heads, T, D, dtype, device) for heads in (H, G, G))
    dy = torch.randn_like(q)
    document = None if mean is None else documents(T, mean, B, device)

    @functools.cache
    def mask() -> Tensor | None:
        """(T, T) or (B, 1, T, T): all that SDPA has for windows and documents. Made once, outside of its time."""
        if window is None and document is None:
            return None
        return reference.visible_keys(T, T, causal=True, window=window, document=document, device=q.device)

    def run(attend: Callable[[], Tensor]) -> Run:
        return run_of(way, attend, (q, k, v), (dy,))

    peers = {name: run(functools.partial(sdpa, backend, q, k, v, mask)) for name, backend in BACKENDS.items()}
    if flex:
        peers["flex"] = run(flex_peer(q, k, v, window, document, device))
    ours = functools.partial(kernels.attention, q, k, v, causal=True, window=window, document=document)
    if hopper:
        peers["portable"], ours = run(ours), functools.partial(hopper_attention, q, k, v, window=window)
    served, last = slice(-(H // G), None), slice(-1, None)  # the last key head, and the query heads it serves

    def truth() -> tuple[Tensor, ...]:
        """Of the last sequence and the last key head: where offsets are largest."""
        exact = torch.float64 if T <= EXACT else torch.float32
        parts = (q[last, served], k[last, last], v[last, last])
        one = tuple(x.detach().to(exact).requires_grad_() for x in parts)
        ids = None if document is None else document[last]
        attend = functools.partial(reference.attention, *one, causal=True, window=window, document=ids)
        return run_of(way, attend, one, (dy[last, served].to(exact),))()

    def part(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        of_queries = 2 if way == "both" else 1  # y, dq; the others are dk, dv
        return tuple(x[last, served if i < of_queries else last] for i, x in enumerate(outputs))

    return Trial(ours=run(ours), peers=peers, truth=truth, part=part)


def hopper_attention(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
    """By force, as the others: an uncovered shape raises, and the row says why."""
    from kernels.gpu import attention_hopper

    if (reason := attention_hopper.uncovered_attention(q, k, v, **how)) is not None:
        raise ValueError(reason)
    return attention_hopper.attention(q, k, v, **how)


def sdpa(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Callable[[], Tensor | None]) -> Tensor:
    """One backend, by force: an uncovered shape raises, and the row says why."""
    visible = mask()
    with sdpa_kernel([backend]):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, is_causal=visible is None, enable_gqa=q.size(1) != k.size(1)
        )


def flex_peer(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, document: Tensor | None, device: str
) -> Callable[[], Tensor]:
    """flex_attention under torch.compile with a block mask made beforehand."""
    T, (B, H, G) = q.size(2), (q.size(0), q.size(1), k.size(1))

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = i >= j
        if window is not None:
            seen = seen & (i - j < window)
        return seen if document is None else seen & (document[b, i] == document[b, j])

    @functools.cache
    def ready() -> tuple[Any, Callable[..., Any]]:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        block_mask = create_block_mask(visible, None if document is None else B, None, T, T, device=device)
        return block_mask, compiled(flex_attention, device) if device == "cuda" else flex_attention

    def attend() -> Tensor:
        block_mask, attention = ready()
        return attention(q, k, v, None, block_mask, None, H != G)

    return attend


def cost_of(size: Mapping[str, Any]) -> Cost:
    lengths = packed_lengths(size["T"], size["mean"]) if size.get("mean") else ()
    shape = {name: size[name] for name in "BHTD"}
    times = {"forward": (False,), "backward": (True,), "both": (False, True)}[size["way"]]
    parts = [attention_cost(**shape, backward=b, window=size.get("window"), lengths=lengths) for b in times]
    return parts[0]._replace(flops=sum(part.flops for part in parts))


def attention_case(key: str, way: str, turns: int = 20, **size: Any) -> Case:
    size = {"way": way, **size, "G": size.get("G", size["H"]), "dtype": torch.bfloat16}
    toy = {name: value for name, value in TOY.items() if name in size}
    toy["G"] = 2 if size["G"] == size["H"] else 1
    return Case(
        key=key, op="attention", size=size, toy=toy, build=build_attention, cost=cost_of, turns=turns,
        compiled=size.get("flex", False),
    )  # fmt: skip


def attention_cases() -> Iterator[Case]:
    """B·T = 16k and H·D = 2048 as in the published charts, GPT-2's shape, and what else a GPT asks for."""
    shapes = {
        f"{D}/T{T}": {"B": 16384 // T, "H": 2048 // D, "T": T, "D": D} for D in (64, 128) for T in (4096, 16384, 1024)
    }
    shapes["64/gpt2"] = {"B": 16, "H": 12, "T": 1024, "D": 64}
    shapes["128/groups"] = {"B": 4, "H": 16, "G": 4, "T": 4096, "D": 128}
    shapes["64/odd"] = {"B": 4, "H": 32, "T": 4093, "D": 64}
    shapes |= {f"{D}/T4096": {"B": 4, "H": 2048 // D, "T": 4096, "D": D} for D in (80, 96, 256)}
    shapes["64/window"] = {"B": 1, "H": 32, "T": 16384, "D": 64, "window": 1024, "flex": True}
    shapes["64/documents"] = {"B": 1, "H": 32, "T": 16384, "D": 64, "mean": 1024, "flex": True}
    shapes["64/flex"] = {"B": 4, "H": 32, "T": 4096, "D": 64, "flex": True}
    for name, size in shapes.items():
        for way in ("forward", "backward"):
            yield attention_case(f"attention/{way}/{name}", way, **size)


def grid_cases() -> Iterator[Case]:
    """The public grid: forward and backward together, a small batch, every width with every kind of mask."""
    kinds: dict[str, dict[str, Any]] = {
        "even": {"T": 1024}, "odd": {"T": 1021}, "short-odd": {"T": 333, "B": 12}, "odd-groups": {"T": 1021, "G": 4},
        "odd-window": {"T": 1021, "window": 200}, "odd-documents": {"T": 1021, "mean": 200},
        "groups-window": {"T": 1024, "G": 4, "window": 256}, "groups-documents": {"T": 1024, "G": 4, "mean": 256},
    }  # fmt: skip
    for D in (64, 128, 96, 80, 32, 256, 16, 192):
        for kind, size in kinds.items():
            yield attention_case(f"grid/{D}/{kind}", "both", turns=7, **({"B": 4, "H": 16, "D": D} | size))


def hopper_cases() -> Iterator[Case]:
    """Hopper's own kernels, where they run, with the portable ones as a peer.

    Rows of their own, the last: nobody has seen these kernels run, and one that hangs costs its row.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        return
    shapes: dict[str, dict[str, Any]] = {
        "64/T4096": {"H": 32, "D": 64}, "128/T4096": {"H": 16, "D": 128}, "128/groups": {"H": 16, "G": 4, "D": 128},
        "64/odd": {"H": 32, "D": 64, "T": 4093}, "64/window": {"H": 32, "D": 64, "window": 1024},
    }  # fmt: skip
    for name, size in shapes.items():
        for way in ("forward", "backward"):
            yield attention_case(f"hopper/{way}/{name}", way, **({"B": 4, "T": 4096} | size), hopper=True)
