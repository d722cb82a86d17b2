"""Which products treat a row alike in any company: measured, so the measurement must be able to say no."""

import torch

from minigpt.engine import company


def test_a_product_that_looks_at_its_size_is_found_out():
    """Rows up to three multiplied in another order: four are needed; one that never agrees: no number helps."""
    x = torch.randn(company.MANY, 64)
    w = torch.randn(64, 8)

    def small_differs(rows: slice) -> torch.Tensor:
        part = x[rows].double() @ w.double()
        return part * (1 + 1e-15) if len(part) < 4 else part

    def never_agrees(rows: slice) -> torch.Tensor:
        return x[rows] @ w * (1 + len(x[rows]) / 1000)

    assert company._fewest(small_differs) == 4
    assert company._fewest(never_agrees) == 0
    assert company._fewest(lambda rows: x[rows] * 2) == 1


def test_one_weight_without_a_number_leaves_none():
    assert company._for_all([1, 4, 2]) == 4
    assert company._for_all([4, 0, 1]) == 0
    assert company._for_all([]) == 1
