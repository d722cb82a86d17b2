"""AdamW in one launch: right for every size, place and dtype, and nothing but what it was given is touched."""

import pytest
import torch
from budget import assert_within_budget
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import builtin, reference
from kernels.gpu.adamw import _addresses, _step_all, adamw_, uncovered_adamw_

HOW = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
SHAPES = [(), (1,), (0,), (63,), (64,), (65,), (5, 41), (2, 64)]  # the interpreter's chunks hold 64
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Fenced:
    """A tensor in the middle of a larger one. Around it stands 3, not NaN: a step from NaN to NaN would go unseen."""

    def __init__(self, x: Tensor, before: int = 16) -> None:
        self.buffer = torch.full((before + x.numel() + 17,), 3.0, dtype=x.dtype, device=DEVICE)
        self.x = self.buffer[before : before + x.numel()].view(x.shape)
        self.x.copy_(x)
        self.outside = [self.buffer[:before], self.buffer[before + x.numel() :]]

    def holds(self) -> bool:
        """Nothing around it has changed."""
        return all((x == 3).all() for x in self.outside)


def tensors(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], ...]:
    """params, grads (rounded to dtype), exp_avgs, exp_avg_sqs."""
    p, g, m, v = ([torch.randn(shape, device=DEVICE) for shape in shapes] for _ in range(4))
    return p, [x.to(dtype) for x in g], m, [x.square() for x in v]


def clones(groups: tuple[list[Tensor], ...], dtype: torch.dtype | None = None) -> tuple[list[Tensor], ...]:
    return tuple([x.to(dtype or x.dtype, copy=True) for x in group] for group in groups)


def assert_within_budget_everywhere(fast, plain, truth) -> None:
    for some, others, trues in zip(fast, plain, truth, strict=True):
        for one, other, true in zip(some, others, trues, strict=True):
            if true.numel():
                assert_within_budget(one, other, true, slack=5e-7 * max(1.0, float(true.abs().max())))


@settings(max_examples=8)
@given(
    st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5), st.sampled_from(DTYPES), st.integers(1, 1000),
    st.booleans(), st.sampled_from([None, *DTYPES]), st.integers(0, 2**16),
)  # fmt: skip
def test_one_step_is_as_right_as_plain_torch(shapes, dtype, step, scaled, copied, seed):
    """Any sizes side by side, gradients of any dtype, with and without the scale and the copies."""
    torch.manual_seed(seed)
    groups = tensors(shapes, dtype)
    how = HOW | {"step": step, "grad_scale": torch.tensor(0.3, device=DEVICE) if scaled else None}
    fast, plain, truth = clones(groups), clones(groups), clones(groups, torch.float64)
    copies = None if copied is None else [torch.zeros_like(p, dtype=copied) for p in groups[0]]
    assert uncovered_adamw_(*fast, **how, copies=copies) is None
    adamw_(*fast, **how, copies=copies)
    builtin.adamw_(*plain, **how)
    reference.adamw_(*truth, **how)
    assert_within_budget_everywhere(fast, plain, truth)
    if copies is not None:
        assert all(torch.equal(copy, p.to(copied)) for copy, p in zip(copies, fast[0], strict=True))


def test_thirty_steps_stay_beside_torch():
    """An error that a single step hides would add up, as would a bias correction off by one step."""
    torch.manual_seed(0)
    p, _, m, v = tensors([(5, 13), (3,)])
    m, v = ([torch.zeros_like(x) for x in group] for group in (m, v))
    truth, plain = clones((p, m, v), torch.float64), [x.clone().requires_grad_() for x in p]
    optimizer = torch.optim.AdamW(plain, lr=HOW["lr"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(1, 31):
        grads = [torch.randn_like(x) for x in p]
        adamw_(p, grads, m, v, step=step, **HOW)
        reference.adamw_(truth[0], [g.double() for g in grads], *truth[1:], step=step, **HOW)
        for x, g in zip(plain, grads, strict=True):
            x.grad = g
        optimizer.step()
    assert_within_budget_everywhere([p], [[x.detach() for x in plain]], [truth[0]])


def test_the_scale_in_the_kernel_equals_gradients_scaled_before():
    """Clipping without a pass of its own must be clipping. A power of two, so that both are exact."""
    torch.manual_seed(0)
    groups = tensors(SHAPES)
    inside, before = clones(groups), clones(groups)
    adamw_(*inside, step=3, **HOW, grad_scale=torch.tensor(0.25, device=DEVICE))
    before[1][:] = [g * 0.25 for g in before[1]]
    adamw_(*before, step=3, **HOW)
    for role in (0, 2, 3):
        assert all(torch.equal(a, b) for a, b in zip(inside[role], before[role], strict=True))


@pytest.mark.parametrize("before", [16, 3], ids=["aligned", "not aligned"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neighbours_are_neither_read_nor_written(dtype, before):
    """A tail that reaches over its tensor's end would spoil whatever parameter lies there, once in a while."""
    torch.manual_seed(0)
    groups = tensors(SHAPES, dtype)
    copies = [torch.zeros_like(p, dtype=torch.bfloat16) for p in groups[0]]
    plain = clones(groups)
    fences = [[Fenced(x, before) for x in group] for group in (*groups, copies)]
    *fast, copies = ([fence.x for fence in group] for group in fences)
    adamw_(*fast, step=3, **HOW, copies=copies)
    reference.adamw_(*plain, step=3, **HOW)
    assert all(fence.holds() for group in fences for fence in group)
    for some, others in zip(fast, plain, strict=True):
        for one, other in zip(some, others, strict=True):
            torch.testing.assert_close(one, other)


def test_tables_follow_tensors_that_move_or_are_replaced():
    """Tables are kept between steps; gradients move at every step, and parameters may be replaced by others."""
    torch.manual_seed(0)
    fast = [list(group) for group in tensors([(65,), (3,)])]
    plain = clones(tuple(fast))
    for step in range(1, 5):
        fast[1] = [torch.randn_like(g) for g in fast[1]]
        if step == 3:
            fast[0] = [p.clone() for p in fast[0]]
        adamw_(*fast, step=step, **HOW)
        reference.adamw_(plain[0], fast[1], *plain[2:], step=step, **HOW)
        for one, other in zip(fast[0], plain[0], strict=True):
            torch.testing.assert_close(one, other)


def test_while_nothing_moves_no_table_is_made():
    """A table made anew is an upload at every step."""
    groups = tensors([(65,), (3,)])
    adamw_(*groups, step=1, **HOW)
    made = _addresses.cache_info().misses
    adamw_(*groups, step=2, **HOW)
    assert _addresses.cache_info().misses == made


def test_no_tensors_and_empty_tensors_are_no_step():
    """A group may be empty on one rank of many; a launch of no programs is an error on a GPU."""
    adamw_([], [], [], [], step=1, **HOW)
    adamw_(*tensors([(0,), (3, 0)]), step=1, **HOW)


def test_torch_knows_what_the_op_changes():
    """torch.compile must not move a read of a parameter across the step."""
    groups = tensors([(5,), ()])
    copies = [torch.zeros_like(p, dtype=torch.bfloat16) for p in groups[0]]
    numbers = (3, *HOW.values())
    torch.library.opcheck(_step_all, (*groups, copies, torch.tensor(0.5, device=DEVICE), *numbers))
    torch.library.opcheck(_step_all, (*groups, [], None, *numbers))


@pytest.mark.parametrize("op", [reference.adamw_, builtin.adamw_, adamw_], ids=["reference", "builtin", "triton"])
def test_what_cannot_be_meant_is_refused_alike(op):
    """A list too short, a shape that would broadcast, step 0: each would train on, and wrongly."""
    p, g, m, v = tensors([(3,), (2,)])
    with pytest.raises(ValueError, match="1 grads for 2 params"):
        op(p, g[:1], m, v, step=1, **HOW)
    with pytest.raises(ValueError, match=r"exp_avgs\[1\] is \(1,\), its parameter \(2,\)"):
        op(p, g, [m[0], m[1][:1]], v, step=1, **HOW)
    with pytest.raises(ValueError, match="0 copies for 2 params"):
        op(p, g, m, v, step=1, **HOW, copies=[])
    with pytest.raises(ValueError, match="step=0"):
        op(p, g, m, v, step=0, **HOW)
    with pytest.raises(ValueError, match="grad_scale is"):
        op(p, g, m, v, step=1, **HOW, grad_scale=torch.ones(2, device=DEVICE))


@pytest.mark.parametrize("op", [reference.adamw_, builtin.adamw_], ids=["reference", "builtin"])
def test_plain_torch_takes_the_scale_the_copies_and_narrow_gradients_too(op):
    """What the kernel does not cover falls back to these with the same arguments."""
    torch.manual_seed(0)
    fast, plain = clones(groups := tensors(SHAPES, torch.bfloat16)), clones(groups)
    copies = [torch.zeros_like(p, dtype=torch.float16) for p in plain[0]]
    how = HOW | {"step": 2, "grad_scale": torch.tensor(0.3, device=DEVICE)}
    adamw_(*fast, **how)
    op(*plain, **how, copies=copies)
    for one, other, copy in zip(fast[0], plain[0], copies, strict=True):
        torch.testing.assert_close(one, other)
        assert torch.equal(copy, other.half())


def test_it_says_what_it_does_not_cover():
    """Each of these would be computed wrongly, for the kernel sees addresses alone."""
    p, g, m, v = tensors([(4, 4), (3,)])
    halves = [g[0].half(), g[1]]
    assert "grads differ in dtype" in uncovered_adamw_(p, halves, m, v, step=1, **HOW)
    assert "params are torch.float64" in uncovered_adamw_([x.double() for x in p], g, m, v, step=1, **HOW)
    assert "grads are not contiguous" in uncovered_adamw_(p, [g[0].T, g[1]], m, v, step=1, **HOW)
    scale = torch.ones((), dtype=torch.float64)
    assert "grad_scale is torch.float64" in uncovered_adamw_(p, g, m, v, step=1, **HOW, grad_scale=scale)
    assert "several devices" in uncovered_adamw_(p, [x.to("meta") for x in g], m, v, step=1, **HOW)
