"""Hopper's own attention on a multiprocessor made of Python: right in whatever order its parts run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hopper
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from near import assert_near
from torch import Tensor
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from kernels import dispatch, reference
from kernels.gpu import attention as flash
from kernels.gpu import attention_hopper, attention_hopper_backward, attention_hopper_forward
from kernels.gpu.hopper import can_be_copied
from kernels.launch import Launch, on_paper

GPU = Path(reference.__file__).parent / "gpu"
SHARED = (GPU / "attention_tiles.py", GPU / "hopper.py")
SOURCES = {way: hopper.kernel_source(*SHARED, GPU / f"attention_hopper_{way}.py") for way in ("forward", "backward")}


def numbers(
    q: Tensor, k: Tensor, *, causal: bool = True, window: int | None = None, scale: float | None = None
) -> tuple[Any, ...]:
    """What the op passes on: no documents, ahead, behind, the scale, no softcap."""
    behind = k.size(2) if window is None else min(window - 1, k.size(2))
    return None, 0 if causal else behind, behind, q.size(3) ** -0.5 if scale is None else scale, 0.0


def carry_out(page: list[Launch], source: str, seed: int) -> list[dict[str, Any]]:
    """On the multiprocessor made of Python, what was written down. The kernel of delta is another test's."""
    return [hopper.run(launch, source, seed) for launch in page if launch.kernel.fn.__name__ in source]


def forward(
    q: Tensor, k: Tensor, v: Tensor, *, seed: int, source: str, **how: Any
) -> tuple[tuple[Tensor, Tensor], list[dict[str, Any]]]:
    """y, NaN where nothing was written, and lse with its padding; what the kernel saw."""
    with on_paper(90) as page:
        results = attention_hopper_forward.forward(q, k, v, *numbers(q, k, **how))
    for x in results:
        x.fill_(torch.nan)
    return results, carry_out(page, source, seed)


def backward(
    dy: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, *, seed: int, source: str, **how: Any
) -> tuple[tuple[Tensor, Tensor, Tensor], list[dict[str, Any]]]:
    """dq, dk, dv after an exact forward pass; what the kernels saw."""
    y, exact = reference.attention(*(x.double() for x in (q, k, v)), **how, return_lse=True)
    beyond = -q.size(2) % 128
    lse = torch.nn.functional.pad(exact.float(), (0, beyond), value=torch.inf)
    with on_paper(90) as page:
        results = attention_hopper_backward.backward(dy, dlse, q, k, v, y.to(q.dtype), lse, *numbers(q, k, **how))
    for x in results:
        x.fill_(torch.nan)
    page[0].arguments["delta"].copy_(torch.nn.functional.pad((y * dy).sum(-1) - dlse, (0, beyond)))
    return results, carry_out(page, source, seed)


@st.composite
def cases(draw: Any) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any], int]:
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    (B, G, group), D = [draw(st.integers(1, most)) for most in (2, 2, 3)], draw(st.sampled_from([64, 64, 128]))
    T = draw(st.sampled_from([1, 63, 64, 65, 128, 129, 300]))
    S = T + draw(st.sampled_from([0, 0, 1, 127, 400]))
    dtype = draw(st.sampled_from([torch.bfloat16, torch.float16]))
    q, k, v = (torch.randn(B, heads, length, D).to(dtype) for heads, length in ((G * group, T), (G, S), (G, S)))
    how = {"causal": draw(st.booleans()), "window": draw(st.sampled_from([None, None, 1, 5, 128, 200]))}
    how["scale"] = draw(st.sampled_from([None, 0.3]))
    return (q, k, v), how, seed


@settings(max_examples=40, phases=[Phase.generate])
@given(cases())
def test_forward_is_the_specification_in_any_order(case):
    """Odd lengths, windows, cached prefixes; every element of y and of lse's padding is written."""
    tensors, how, seed = case
    (y, lse), _ = forward(*tensors, **how, seed=seed, source=SOURCES["forward"])
    plain, _ = reference.attention(*tensors, **how, return_lse=True)
    truth, exact = reference.attention(*(x.double() for x in tensors), **how, return_lse=True)
    assert_near(y, plain, truth, roundings=8)
    T = y.size(2)
    torch.testing.assert_close(lse[..., :T].double(), exact, rtol=1e-4, atol=1e-4)
    assert (lse[..., T:] == torch.inf).all()


def gradients(tensors: tuple[Tensor, ...], how: dict[str, Any], dy: Tensor, dlse: Tensor) -> tuple[Tensor, ...]:
    tensors = tuple(x.detach().requires_grad_() for x in tensors)
    y, lse = reference.attention(*tensors, **how, return_lse=True)
    return torch.autograd.grad((y, lse), tensors, (dy.to(y.dtype), dlse.to(lse.dtype)))


@settings(max_examples=30, phases=[Phase.generate])
@given(cases())
def test_backward_is_the_specification_in_any_order(case):
    """All three gradients, of keys that nobody sees as well; lse has a gradient, too."""
    tensors, how, seed = case
    dy, dlse = torch.randn_like(tensors[0]), torch.randn(tensors[0].shape[:3])
    got, _ = backward(dy, dlse, *tensors, **how, seed=seed, source=SOURCES["backward"])
    plain = gradients(tensors, how, dy, dlse)
    truth = gradients(tuple(x.double() for x in tensors), how, dy, dlse)
    for ours, torchs, exact in zip(got, plain, truth, strict=True):
        assert_near(ours, torchs, exact, roundings=8)


@pytest.mark.parametrize("shift", [126, 127, 128])
@pytest.mark.parametrize("window, causal", [(None, True), (1, True), (127, True), (128, True), (2, False)])
def test_the_first_query_sees_no_key_too_many_and_none_too_few(shift, window, causal):
    """At the edges of tiles, where a mask may be left out. One key of a hundred is less than what rounding may cost."""
    torch.manual_seed(shift)
    how = {"window": window, "causal": causal}
    q, k, v, dy = (torch.randn(1, 1, length, 64).half() for length in (3, shift + 3, shift + 3, 3))
    seen = reference.visible_keys(3, shift + 3, **how, document=None)[0]  # (S,)
    v[:, :, ~seen] = 1000
    dy[:, :, 1:] = 0
    (_, lse), _ = forward(q, k, v, **how, seed=1, source=SOURCES["forward"])
    exact = reference.attention(*(x.double() for x in (q, k, v)), **how, return_lse=True)[1]
    torch.testing.assert_close(lse[..., :3].double(), exact, rtol=1e-5, atol=1e-5)
    (dq, dk, dv), _ = backward(dy, torch.zeros(1, 1, 3), q, k, v, **how, seed=1, source=SOURCES["backward"])
    truth = gradients(tuple(x.double() for x in (q, k, v)), how, dy, torch.zeros(1, 1, 3))
    assert (dq[0, 0, 0] - truth[0][0, 0, 0]).abs().max() < 0.1
    assert dv[0, 0].ne(0).any(-1).equal(seen) and not dk[0, 0, ~seen].any()


@pytest.mark.parametrize("sign", [-1, 1])
def test_scores_may_lie_far_from_zero(sign):
    """Weights are relative to the largest score seen, not to 0: exp(-800) is nothing, and exp(800) is infinite."""
    torch.manual_seed(1)
    means = ((70, 10), (300, 10 * sign), (300, 0))
    q, k, v = (torch.randn(1, 1, length, 64).bfloat16() + mean for length, mean in means)
    (y, lse), _ = forward(q, k, v, seed=1, source=SOURCES["forward"])
    truth, exact = reference.attention(*(x.double() for x in (q, k, v)), return_lse=True)
    assert_near(y, reference.attention(q, k, v), truth, roundings=8)
    torch.testing.assert_close(lse[..., :70].double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("D", attention_hopper.WIDTHS)
@pytest.mark.parametrize("how", [{}, {"window": 100}, {"window": 60, "causal": False}, {"causal": False}], ids=str)
def test_no_tile_is_copied_that_nobody_sees(D, how):
    """Results would not show it, only the time: of the side that is walked over, what somebody's own tile sees."""
    tensors = [torch.randn(1, heads, length, D).half() for heads, length in ((2, 200), (1, 584), (1, 584))]
    _, (ahead,) = forward(*tensors, **how, seed=1, source=SOURCES["forward"])
    dy, dlse = torch.randn_like(tensors[0]), torch.zeros(1, 2, 200)
    _, (keys, queries) = backward(dy, dlse, *tensors, **how, seed=1, source=SOURCES["backward"])
    seen = reference.visible_keys(200, 584, **({"causal": True, "window": None} | how), document=None)  # (T, S)
    for arguments, walked, mask in ((ahead, "kv", seen), (queries, "kv", seen), (keys, ("q", "dy"), seen.T)):
        for name in walked:
            tiles = arguments[name]
            own, other = mask.split(128), tiles.block_type.shape[2]
            assert tiles.copies == 2 * sum(bool(part.any()) for rows in own for part in rows.split(other, 1))


def test_what_it_does_not_cover_has_a_reason():
    """Each for the portable kernel, which `explain()` then says."""
    uncovered = attention_hopper.uncovered_attention

    def heads(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    x = heads(1, 2, 8, 64)
    assert uncovered(x, x, x, causal=True, window=3, softcap=None, document=None, dropout=0.0) is None
    assert uncovered(x[0], x, x) is None  # the door refuses it, in words of its own
    assert uncovered(x, x, x, softcap=30.0) == "softcap is left to the portable kernel"
    assert uncovered(x, x, x, document=torch.zeros(1, 8)) == "document is left to the portable kernel"
    assert "80 channels" in uncovered(*[heads(1, 2, 8, 80)] * 3)
    assert "float32" in uncovered(*[heads(1, 2, 8, 64, dtype=torch.float32)] * 3)
    packed = heads(1, 8, 2, 65)[..., :64].transpose(1, 2)
    assert "16 bytes" in uncovered(packed, x, x) and "16 bytes" in uncovered(x, x.expand(2, 2, 8, 64), x)
    assert uncovered(*[heads(1, 8, 3, 2, 64)[:, :, 0].transpose(1, 2)] * 3) is None


def test_what_the_portable_kernel_leaves_to_torch_is_not_for_hoppers_own():
    """Above all one query of many keys: a tile of 128 queries would walk over all of them for its sake."""
    x, one = (torch.zeros(1, 2, length, 64, dtype=torch.bfloat16) for length in (512, 1))
    for q, how in ((one, {}), (x, {"dropout": 0.1}), (x, {"alibi": torch.ones(2)}), (x, {"scale": -1.0})):
        reason = attention_hopper.uncovered_attention(q, x, x, **how)
        assert reason is not None and reason == flash.uncovered_attention(q, x, x, **how)


ODD = {  # (2, 2, 8, 64) mostly, as a gradient may come from what follows: an expanded sum, a stack, a transpose, a cat
    "one number for all": lambda: torch.randn(()).bfloat16().expand(2, 2, 8, 64),
    "every second number": lambda: torch.randn(2, 2, 8, 64, 2).bfloat16()[..., 0],
    "channels far apart": lambda: torch.randn(2, 2, 64, 8).bfloat16().mT,
    "one number into a page": lambda: torch.randn(2 * 2 * 8 * 64 + 1).bfloat16()[1:].view(2, 2, 8, 64),
    "sides of length 1": lambda: torch.randn(8, 64).bfloat16().as_strided((1, 1, 8, 64), (1, 3, 64, 1)),
    "as a model has it": lambda: torch.randn(2, 8, 2, 64).bfloat16().transpose(1, 2),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("lonely", [False, True])
def test_the_copying_unit_is_told_where_the_rows_are(odd, lonely):
    """Of dy, and of q, k and v: it takes their channels to lie side by side, and rows to begin at whole 16 bytes."""
    x = ODD[odd]()[: 1 if lonely else None, : 1 if lonely else None, : 1 if lonely else None]
    q = x if can_be_copied(x) else x.contiguous()
    with on_paper(90) as page:
        y, lse = attention_hopper_forward.forward(q, q, q, None, 0, 8, 0.125, 0.0)
        attention_hopper_backward.backward(x, None, q, q, q, y, lse, None, 0, 8, 0.125, 0.0)
    for launch in page:
        for name, tiles in launch.arguments.items():
            if isinstance(tiles, TensorDescriptor):
                steps = [told for told, size in zip(tiles.strides, x.shape, strict=True) if size > 1]
                real = [step for step, size in zip(tiles.base.stride(), x.shape, strict=True) if size > 1]
                assert steps == real and tiles.base.data_ptr() % 16 == 0
                assert name in ("y", "dq", "dk", "dv") or tiles.base.equal(x)


def test_torch_compile_sees_one_graph():
    """Whether a shape is covered is asked while it reads; what it cannot know must not be asked there."""

    def loss(q: Tensor, k: Tensor) -> Tensor:
        y, lse = attend(q, k, k, return_lse=True)
        return y.float().square().sum() + lse.sum()

    attend = dispatch._where_covered("attention", attention_hopper, reference.attention)
    tensors = [torch.empty(1, 2, length, 64, dtype=torch.float16, device="meta").requires_grad_() for length in (8, 9)]
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert [x.shape for x in torch.autograd.grad(compiled(*tensors), tensors)] == [x.shape for x in tensors]


@pytest.fixture(scope="module")
def hopper_gpu() -> None:
    """It answers there, which is asked in another process: parts that wait for each other may do so forever."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    asked = "import torch; from kernels import dispatch; d = torch.device('cuda', 0); "
    asked += "assert dispatch.decide('attention', d, torch.bfloat16) == 'hopper', dispatch.explain(d, torch.bfloat16)"
    environment = os.environ | {"MINIGPT_KERNELS": "hopper"}
    subprocess.run([sys.executable, "-c", asked], cwd=GPU.parents[1], env=environment, timeout=120, check=True)


@pytest.mark.usefixtures("hopper_gpu")
@pytest.mark.parametrize("D", attention_hopper.WIDTHS)
@pytest.mark.parametrize("how", [{}, {"causal": False}, {"window": 200}], ids=str)
def test_on_a_hopper_it_is_the_specification(D, how):
    """Values and gradients, an odd length after a cached prefix, two key heads."""
    torch.manual_seed(1)
    shapes = ((2, 4, 1001, D), (2, 2, 1100, D), (2, 2, 1100, D))
    tensors = tuple(torch.randn(shape, device="cuda").bfloat16() for shape in shapes)
    dy, dlse = torch.randn_like(tensors[0]), torch.randn(2, 4, 1001, device="cuda")
    truth = gradients(tuple(x.double() for x in tensors), how, dy, dlse)
    plain = gradients(tensors, how, dy, dlse)
    learning = tuple(x.requires_grad_() for x in tensors)
    y, lse = attention_hopper.attention(*learning, **how, return_lse=True)
    for ours, torchs, exact in zip(torch.autograd.grad((y, lse), learning, (dy, dlse)), plain, truth, strict=True):
        assert_near(ours, torchs, exact, roundings=8)
    assert_near(y, reference.attention(*tensors, **how), reference.attention(*(x.double() for x in tensors), **how))


# --- and no less than needed ----------------------------------------------------------------------------

ORDERS = 60  # of events, in which a mistake has to show


def fails(way: str, source: str) -> str:
    """How a kernel is found out within a few orders of events; "" if it is not."""
    torch.manual_seed(1)
    tensors = tuple(torch.randn(1, 1, length, 64).bfloat16() for length in (130, 450, 450))
    truth: tuple[Tensor, ...] = (reference.attention(*(x.double() for x in tensors)),)
    run: Callable[[int], tuple[Tensor, ...]] = lambda seed: forward(*tensors, seed=seed, source=source)[0]  # noqa: E731
    if way == "backward":
        dy, dlse = torch.randn_like(tensors[0]), torch.zeros(1, 1, 130)
        truth = gradients(tuple(x.double() for x in tensors), {}, dy, dlse)
        run = lambda seed: backward(dy, dlse, *tensors, seed=seed, source=source)[0]  # noqa: E731
    for seed in range(ORDERS):
        try:
            if not all((got - exact).abs().max() < 0.05 for got, exact in zip(run(seed), truth, strict=False)):
                return "wrong"
        except (hopper.Stuck, hopper.Misuse) as error:
            return f"{type(error).__name__}: {error}"
    return ""


CALLS = ("mbarrier.", "fence_async_shared", "tma.store_wait")  # that say nothing about numbers, only who waits for whom
ORDER = [
    (way, i)
    for way, source in SOURCES.items()
    for i, line in enumerate(source.splitlines())
    if line.strip().startswith(CALLS)
]


@pytest.mark.parametrize("way, line", ORDER, ids=lambda x: str(x))
def test_every_line_that_keeps_order_is_needed(way, line):
    """And this machine finds out whatever of it is missing: each line is left out in turn."""
    lines = SOURCES[way].splitlines()
    lines[line] = lines[line].replace(lines[line].strip(), "pass")
    assert fails(way, "\n".join(lines))


GIVEN_BACK = """total = warpgroup_mma_wait(0, deps=(total,))
        mbarrier.arrive(v_empty.index(last), count=1)"""
MISTAKES = {
    "a place is free when one consumer has read it": ("empty.index(i), count=CONSUMERS", "empty.index(i), count=1"),
    "the producer waits for its own round": ("(round + 1) % 2", "round % 2"),
    "the queries of one consumer are enough": ("CONSUMERS * q.block_type.nbytes", "q.block_type.nbytes"),
    "scores are used while they are computed": ("warpgroup_mma_wait(1,", "warpgroup_mma_wait(2,"),
    "values are given back while they are read": (GIVEN_BACK, "\n        ".join(GIVEN_BACK.split("\n        ")[::-1])),
    "the last round of values is the first": ("(tiles - 1) // STAGES % 2", "0"),
    "both consumers compute the same rows": ("seen, T, 1, D)", "seen, T, 0, D)"),
}


@pytest.mark.parametrize("right, wrong", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_found_out(right, wrong):
    """Such as are easily made, and such as a GPU forgives most of the time."""
    assert right in SOURCES["forward"]
    assert fails("forward", SOURCES["forward"].replace(right, wrong))


@pytest.mark.parametrize("way", SOURCES)
def test_the_kernels_themselves_are_not_found_out(way):
    """Or the tests above would say nothing."""
    assert fails(way, SOURCES[way]) == ""
