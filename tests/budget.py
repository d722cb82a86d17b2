"""How wrong may a fast path be? As wrong as plain torch at the same dtype, plus a stated slack."""

from torch import Tensor


def assert_within_budget(fast: Tensor, plain: Tensor, truth: Tensor, slack: float) -> None:
    """`fast` may stray from float64 `truth` as far as `plain` torch does, plus `slack`."""
    assert fast.shape == truth.shape, f"shape {tuple(fast.shape)}, expected {tuple(truth.shape)}"
    budget = (plain.double() - truth).abs().max() + slack
    strayed = (fast.double() - truth).abs().max()
    assert strayed <= budget, f"off by {strayed:.2e}, allowed {budget:.2e}"
