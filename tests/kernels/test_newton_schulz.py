"""Muon's polynomial: what it must do to singular values, whoever computes it."""

import pytest
import torch

from kernels import builtin, reference

BOTH = pytest.mark.parametrize("module", [reference, builtin], ids=["reference", "builtin"])


@BOTH
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (3, 5, 8), (2, 3, 8, 5)])
def test_singular_values_come_near_one_and_directions_stay(module, shape):
    """g = U S V' becomes about U V': values in the published band, the same U and V, batch by batch."""
    torch.manual_seed(0)
    g = torch.randn(shape, dtype=torch.float64)
    x = module.newton_schulz(g)
    assert x.shape == g.shape
    U, _, Vh = torch.linalg.svd(g, full_matrices=False)
    inside = U.mT @ x @ Vh.mT  # diagonal if the directions are the same
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert ((values > 0.6) & (values < 1.25)).all(), values
    torch.testing.assert_close(inside, torch.diag_embed(values), atol=1e-9, rtol=0)


@BOTH
def test_the_scale_of_the_gradient_does_not_matter(module):
    """A loss counted in bits instead of nats must give the same step."""
    g = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(module.newton_schulz(g), module.newton_schulz(1000 * g), atol=1e-6, rtol=0)
