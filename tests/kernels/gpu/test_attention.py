"""Flash attention in Triton against the specification: who sees whom, the running softmax, the gradients."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from near import DTYPES, assert_near, guarded, memory_watched
from torch import Tensor

from kernels import reference
from kernels.gpu import arithmetic, attention_backward, attention_forward, attention_tiles
from kernels.gpu import attention as flash
from kernels.gpu.attention import attention
from kernels.launch import launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@st.composite
def cases(draw: Any) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    """Shapes with an odd everything, tensors in three memory layouts, every kind of mask."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    B, G, group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    T, D = draw(st.integers(1, 70)), draw(st.sampled_from([8, 16, 20, 32, 48]))
    S = T + draw(st.sampled_from([0, 0, 1, 37]))
    dtype, layout = draw(DTYPES), draw(st.sampled_from(["heads first", "time first", "packed"]))

    def heads(H: int, length: int) -> Tensor:
        if layout == "heads first":
            return guarded(torch.randn(B, H, length, D).to(dtype))
        x = guarded(torch.randn(B, length, H * (3 if layout == "packed" else 1), D).to(dtype))
        return x[:, :, :H].transpose(1, 2)

    how: dict[str, Any] = {
        "causal": draw(st.booleans()),
        "window": draw(st.sampled_from([None, None, 1, 5, 33, 1000])),
        "softcap": draw(st.sampled_from([None, None, 2.0])),
        "scale": draw(st.sampled_from([None, 0.3])),
    }
    kind = draw(st.sampled_from(["none", "none", "rising", "any"]))
    if kind != "none":
        document = torch.randint(-3, 4, (B, S))
        how["document"] = document.sort(1).values if kind == "rising" else document
    q, k, v = heads(G * group, T), heads(G, S), heads(G, S)
    return tuple(x.detach().to(DEVICE).requires_grad_() for x in (q, k, v)), {
        name: x.to(DEVICE) if isinstance(x, Tensor) else x for name, x in how.items()
    }


def results(op: Any, tensors: tuple[Tensor, ...], how: dict[str, Any]) -> list[Tensor]:
    """y, lse, and the gradients of a sum that weighs them all differently."""
    y, lse = op(*tensors, **how, return_lse=True)
    weigh = torch.linspace(-1, 1, y.numel(), dtype=torch.float64, device=y.device).view(y.shape)
    loss = (y * weigh.to(y.dtype)).sum() + (lse * weigh[..., 0].to(lse.dtype)).sum()
    return [y, lse, *torch.autograd.grad(loss, tensors)]

def assert_like_the_reference(tensors: tuple[Tensor, ...], how: dict[str, Any]) -> None:
    """Values, lse and all three gradients."""
    truth = results(reference.attention, tuple(x.detach().double().requires_grad_() for x in tensors), how)
    plain = results(reference.attention, tensors, how)
    for got, expected, exact in zip(results(attention, tensors, how), plain, truth, strict=True):
        assert_near(got, expected, exact, roundings=8)


@settings(max_examples=20, phases=[Phase.generate])
@given(cases())
def test_it_is_the_specification(case):
    """Values, lse and all three gradients, in float32 to the last digits, in half precision to its rounding."""
    assert_like_the_reference(*case)


def tensors_of(B: int, H: int, G: int, T: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return tuple(torch.randn(B, heads, T, D, device=DEVICE, requires_grad=True) for heads in (H, G, G))


@pytest.mark.skipif(DEVICE == "cuda", reason="watches the interpreter")
@pytest.mark.parametrize(
    "H, D, how",
    [
        (2, 16, {"softcap": 2.0, "document": torch.arange(65) // torch.tensor([[32], [40]])}),
        (4, 20, {"window": 9}),
    ],
    ids=["documents", "window"],
)
def test_nothing_is_read_beyond_the_ends(H, D, how):
    """Two sequences with documents of their own, a cached prefix, tiles of which one row is there."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, heads, length, D) for heads, length in ((H, 33), (2, 65), (2, 65)))
    with memory_watched():
        assert_like_the_reference(tuple(x.requires_grad_() for x in (q, k, v)), how)


def test_gradients_may_arrive_in_any_layout():
    """A sum's gradient has stride 0; whoever saves tensors elsewhere, as offloading does, loses lse's padding."""
    q, k, v = tensors_of(2, 2, 1, 33, 16)
    found = []
    for op in (attention, reference.attention):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x):
            y, lse = op(q, k, v, return_lse=True, window=5)
        found.append(torch.autograd.grad(y.mT.sum() + 2 * lse.sum(), (q, k, v)))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_results_lie_in_memory_as_their_inputs_do():
    """So say the fake tensors, by which torch.compile plans; and projections need no copy."""
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors_of(2, 4, 2, 5, 16))
    y = attention(q, k, v)
    gradients = torch.autograd.grad(y.square().sum(), (q, k, v))
    assert y.stride() == q.stride()
    assert [x.stride() for x in gradients] == [x.stride() for x in (q, k, v)]


def test_gradients_are_the_same_to_the_last_bit():
    """No sum depends on which program comes first: what `deterministic=True` promises, always."""
    q, k, v = tensors_of(1, 4, 2, 75, 16)
    first, second = (results(attention, (q, k, v), {"window": 40}) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_past_does_not_depend_on_the_future():
    """Not even in the last bit: tiles beyond the diagonal are not visited, and within it masked."""
    q, k, v = (x.detach() for x in tensors_of(1, 2, 2, 70, 16))
    before = attention(q, k, v)[:, :, :50]
    k[:, :, 50:], v[:, :, 50:] = 1e30, 1e30
    assert torch.equal(attention(q, k, v)[:, :, :50], before)


def test_documents_are_separate_sequences():
    """Packing three documents into one row changes nothing: neither their outputs nor their gradients."""
    q, k, v = tensors_of(1, 2, 1, 90, 16)
    lengths = (40, 1, 49)
    document = torch.repeat_interleave(torch.tensor([5, 2, 9]), torch.tensor(lengths))[None].to(DEVICE)
    packed = attention(q, k, v, document=document)
    alone = torch.cat([attention(*parts) for parts in zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True)], 2)
    torch.testing.assert_close(packed, alone)
    g = torch.randn_like(packed)
    for together, apart in zip(
        torch.autograd.grad(packed, (q, k, v), g), torch.autograd.grad(alone, (q, k, v), g), strict=True
    ):
        torch.testing.assert_close(together, apart)


@triton.jit
def _span_kernel(first, last, ahead, behind, count, spans, CASES: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, CASES)
    cases = (tl.load(first + i), tl.load(last + i), tl.load(ahead + i), tl.load(behind + i), tl.load(count + i))
    lo, full_lo, full_hi, hi = attention_tiles.span(*cases, None, 0, BLOCK)
    tl.store(spans + i, lo)
    tl.store(spans + CASES + i, full_lo)
    tl.store(spans + 2 * CASES + i, full_hi)
    tl.store(spans + 3 * CASES + i, hi)


def test_a_span_is_right_to_the_position():
    """Against every pair, for 4096 spans: off by one, it would lose a key at one window and length of sixteen."""
    torch.manual_seed(0)
    first, ahead, behind, further, beyond = (
        torch.randint(low, 20, (4096,), device=DEVICE) for low in (-20, 0, 0, 0, 0)
    )
    last = first + further
    count = last.clamp_min(0) + 1 + beyond  # no position stands behind the last key
    spans = torch.empty(4, 4096, dtype=torch.int64, device=DEVICE)
    launch(_span_kernel, (1,), first, last, ahead, behind, count, spans, CASES=4096, BLOCK=8)
    lo, full_lo, full_hi, hi = spans[..., None]                                     # (cases, 1) each
    start = torch.arange(0, 64, 8, device=DEVICE)                                   # (tiles,)
    key = torch.arange(64, device=DEVICE).view(-1, 8)                               # (tiles, 8)
    first, last, ahead, behind, count = (x[:, None, None] for x in (first, last, ahead, behind, count))
    somebody = (key < count) & (key >= first - behind) & (key <= last + ahead)      # (cases, tiles, 8)
    everybody = (key < count) & (key >= last - behind) & (key <= first + ahead)     # (cases, tiles, 8)
    visited = (start >= lo) & (start < hi)                                          # (cases, tiles)
    assert torch.equal(visited, somebody.any(2))
    assert torch.equal(visited & (start >= full_lo) & (start < full_hi), everybody.all(2))


def test_document_tiles_reach_as_far_as_intervals_meet():
    """Each sequence by its own ids, over more keys than the kernel compares at a time."""
    torch.manual_seed(0)
    document = torch.stack([torch.arange(2100) // 300, torch.randint(0, 9, (2100,)).sort().values]).to(DEVICE)
    reach = attention_tiles.document_tiles(document, (1500, 300), (0, 2100), (32, 16))
    for b, ids in enumerate(document.tolist()):
        for i, found in enumerate(reach[b].tolist()):
            own = ids[1500 + 32 * i : min(1532 + 32 * i, 1800)]
            meet = [s for s in range(0, 2100, 16) if min(ids[s : s + 16]) <= own[-1] and max(ids[s : s + 16]) >= own[0]]
            assert found == [meet[0], meet[-1] + 16]


@pytest.mark.parametrize("arch", [0, 80, 86, 90, 100, 120])
def test_rows_are_padded_to_whole_tiles(arch):
    """lse and delta are read without a mask: LARGEST and the 64 of `_delta_kernel` must do for every GPU."""
    for chosen in (attention_forward.tiles, attention_backward.dkdv_tiles, attention_backward.dq_tiles):
        for width in (16, 32, 64, 128, 256):
            for itemsize, extra in ((2, False), (2, True), (4, False), (4, True)):
                assert attention_tiles.LARGEST % max(64, chosen(arch, width, itemsize, extra).t) == 0


def test_float32_is_multiplied_as_torch_is_told_to(monkeypatch):
    """The interpreter is exact either way; on a GPU "tf32" would keep 10 bits of a number."""
    for precision, expected in (("highest", "ieee"), ("high", "tf32"), ("medium", "tf32")):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda precision=precision: precision)
        assert arithmetic.dot_precision(torch.ones(1)) == expected


def products(op: Any) -> int:
    """How many products of tiles the interpreter computes."""
    from triton.runtime.interpreter import InterpreterBuilder

    count, dot = [0], InterpreterBuilder.create_dot

    def counting(*args: Any) -> Any:
        count[0] += 1
        return dot(*args)

    InterpreterBuilder.create_dot = counting
    try:
        op()
    finally:
        InterpreterBuilder.create_dot = dot
    return count[0]


@pytest.mark.skipif(DEVICE == "cuda", reason="counts in the interpreter")
@pytest.mark.parametrize(
    "how, tiles",
    [
        ({"causal": False}, 4 * 8),  # 128 queries in tiles of 32, 128 keys in tiles of 16
        ({}, 2 + 4 + 6 + 8),
        ({"window": 17}, 2 + 3 + 3 + 3),
        ({"document": torch.arange(128)[None] // 32}, 4 * 2),
        ({"document": torch.arange(128)[None] // 32, "causal": False}, 4 * 2),
    ],
    ids=["full", "causal", "window", "documents", "documents both ways"],
)
def test_tiles_that_nobody_sees_are_not_visited(how, tiles):
    """Skipped, not masked: otherwise a window would cost as much as everything. Two products per tile."""
    q, k, v = (x.detach() for x in tensors_of(1, 1, 1, 128, 16))
    assert products(lambda: attention(q, k, v, **how)) == 2 * tiles


@pytest.mark.skipif(DEVICE == "cuda", reason="counts in the interpreter")
def test_a_window_spares_the_backward_pass_as_well():
    """Both of its walks: four products a tile for dk and dv, three for dq; tiles of 32 by 32."""
    q, k, v = tensors_of(1, 1, 1, 128, 16)

    def backward(how: dict[str, Any]) -> Any:
        y = attention(q, k, v, **how)
        return lambda: torch.autograd.grad(y.sum(), (q, k, v))

    assert products(backward({})) == (4 + 3) * 10
    assert products(backward({"window": 17})) == (4 + 3) * 7


@pytest.mark.parametrize(
    "how, reason",
    [
        ({"alibi": torch.ones(2)}, "alibi"),
        ({"dropout": 0.1}, "dropout"),
        ({"scale": -1.0}, "scale=-1.0"),
        ({"scale": 0.0}, "scale=0.0"),
    ],
)
def test_what_it_does_not_cover_it_says(how, reason):
    """Plain torch computes these; `explain` repeats the reason."""
    q, k, v = tensors_of(1, 2, 2, 3, 16)
    assert reason in flash.uncovered_attention(q, k, v, **how)
    assert flash.uncovered_attention(q, k, v) is None
    wide = torch.zeros(1, 1, 2, 264)
    assert "264 channels" in flash.uncovered_attention(wide, wide, wide)
    assert flash.uncovered_attention(*(wide[..., :256],) * 3) is None


def test_torch_knows_the_ops():
    """Schema, fake tensors, autograd and dynamic shapes: what torch.compile relies on."""
    q, k, v = tensors_of(1, 2, 1, 5, 16)
    how = (None, 0, 5, 0.25, 0.0)
    torch.library.opcheck(flash._forward, (q, k, v, *how))
    y, lse = (x.detach() for x in flash._forward(q, k, v, *how))
    torch.library.opcheck(flash._backward, (y, lse, *(x.detach() for x in (q, k, v)), y, lse, *how))
