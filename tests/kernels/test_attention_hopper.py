"""Hopper's own attention on a multiprocessor made of Python: right in whatever order its parts run."""

from pathlib import Path
from typing import Any

import hopper
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from near import assert_near
from torch import Tensor

from kernels import reference

GPU = Path(reference.__file__).parent / "gpu"
FILES = ("attention_tiles", "hopper", "attention_hopper_forward")
SOURCE = hopper.kernel_source(*(GPU / f"{name}.py" for name in FILES))


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, window: int | None = None, seed: int, source: str = SOURCE
) -> tuple[Tensor, Tensor]:
    """What `attention_hopper.forward` launches: y, NaN where nothing was written, and lse with its padding."""
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    y, padded = torch.full_like(q, torch.nan), -(-T // 128) * 128
    lse = torch.full((B * H * padded,), torch.nan)
    behind = S if window is None else min(window - 1, S)
    tensors = (*(hopper.Tiles(x, rows) for x, rows in ((q, 64), (k, 128), (v, 128), (y, 64))), hopper.Pointer(lse))
    numbers = (padded, H, G, T, S, 0 if causal else behind, behind, D**-0.5, D)
    hopper.run(source, "_forward_kernel", padded // 128 * B * H, (*tensors, *numbers), seed)
    return y, lse.view(B, H, padded)


@st.composite
def cases(draw: Any) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any], int]:
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    B, G, group, D = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2)), 64
    T = draw(st.sampled_from([1, 63, 64, 65, 128, 129, 300]))
    S = T + draw(st.sampled_from([0, 0, 1, 127, 400]))
    dtype = draw(st.sampled_from([torch.bfloat16, torch.float16]))
    q, k, v = (torch.randn(B, heads, length, D).to(dtype) for heads, length in ((G * group, T), (G, S), (G, S)))
    how = {"causal": draw(st.booleans()), "window": draw(st.sampled_from([None, None, 1, 5, 128, 200]))}
    return (q, k, v), how, seed


@settings(max_examples=25, phases=[Phase.generate])
@given(cases())
def test_it_is_the_specification_in_any_order(case):
    """Odd lengths, windows, cached prefixes; every element of y and of lse's padding is written."""
    tensors, how, seed = case
    y, lse = attention(*tensors, **how, seed=seed)
    plain, _ = reference.attention(*tensors, **how, return_lse=True)
    truth, exact = reference.attention(*(x.double() for x in tensors), **how, return_lse=True)
    assert_near(y, plain, truth, roundings=8)
    T = y.size(2)
    torch.testing.assert_close(lse[..., :T].double(), exact, rtol=1e-4, atol=1e-4)
    assert (lse[..., T:] == torch.inf).all()


ORDERS = 60  # of events, in which a mistake has to show


def fails(source: str) -> str:
    """How a kernel is found out within a few orders of events; "" if it is not."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 1, length, 64).bfloat16() for length in (130, 450, 450))
    truth = reference.attention(q.double(), k.double(), v.double())
    for seed in range(ORDERS):
        try:
            y, _ = attention(q, k, v, seed=seed, source=source)
        except (hopper.Stuck, hopper.Misuse) as error:
            return f"{type(error).__name__}: {error}"
        if not (y - truth).abs().max() < 0.05:
            return "wrong"
    return ""


LINES = SOURCE.splitlines()
CALLS = ("mbarrier.", "fence_async_shared", "tma.store_wait")  # that say nothing about numbers, only who waits for whom
ORDER = [i for i, line in enumerate(LINES) if line.strip().startswith(CALLS)]
GIVEN_BACK = """total = warpgroup_mma_wait(0, deps=(total,))
        mbarrier.arrive(v_empty.index(last), count=1)"""
MISTAKES = {
    "a place is free when one consumer has read it": ("empty.index(i), count=CONSUMERS", "empty.index(i), count=1"),
    "the producer waits for its own round": ("(round + 1) % 2", "round % 2"),
    "the queries of one consumer are enough": ("CONSUMERS * q.block_type.nbytes", "q.block_type.nbytes"),
    "scores are used while they are computed": ("warpgroup_mma_wait(1,", "warpgroup_mma_wait(2,"),
    "values are given back while they are read": (GIVEN_BACK, "\n        ".join(GIVEN_BACK.split("\n        ")[::-1])),
    "the last round of values is the first": ("(tiles - 1) // STAGES % 2", "0"),
    "both consumers compute the same rows": ("seen, 1, D)", "seen, 0, D)"),
}


@pytest.mark.parametrize("line", ORDER, ids=lambda i: LINES[i].strip())
def test_every_line_that_keeps_order_is_needed(line):
    """And this machine finds out whatever of it is missing: each line is left out in turn."""
    assert fails("\n".join([*LINES[:line], LINES[line].replace(LINES[line].strip(), "pass"), *LINES[line + 1 :]]))


@pytest.mark.parametrize("right, wrong", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_found_out(right, wrong):
    """Such as are easily made, and such as a GPU forgives most of the time."""
    assert right in SOURCE
    assert fails(SOURCE.replace(right, wrong))


def test_the_kernel_itself_is_not_found_out():
    """Or the test above would say nothing."""
    assert fails(SOURCE) == ""
