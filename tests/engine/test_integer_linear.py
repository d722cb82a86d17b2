"""Integer products: exact, whichever way they are computed, so that the choice of a way is never seen."""

import pytest
import torch

from kernels.quantization import quantize_int8
from minigpt.engine import integer_linear
from minigpt.engine.integer_linear import WAYS, IntegerLinear, fastest

WORKING = [name for name, way in WAYS.items() if integer_linear._seconds(way, 16, 256, 3) < float("inf")]
SHAPES = [(1, 16, 32), (3, 7, 33), (17, 40, 1024), (2, 5, 1025), (4, 9, 3000), (1, 1, 2)]


def weights(N: int, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    return quantize_int8(torch.randn(N, K, generator=torch.Generator().manual_seed(K)))


@pytest.mark.parametrize("way", WORKING)
@pytest.mark.parametrize(("M", "N", "K"), SHAPES)
def test_every_way_gives_the_exact_sums(way, M, N, K):
    """Against int64: also at the largest numbers there are, and where sums outgrow what float32 can hold."""
    for q in (torch.randint(-127, 128, (M, K)), torch.full((M, K), 127), torch.full((M, K), -127)):
        weight, scale = weights(N, K)
        weight[0] = 127
        truth = (q @ weight.long().T).float() * scale
        assert torch.equal(WAYS[way](weight, scale)(q.float(), torch.ones(M, 1)), truth)


def test_at_least_one_way_works_here():
    assert "float" in WORKING


def test_a_layer_is_as_good_as_eight_bits_allow():
    """Each of x and W is off by half a step at most, and by far less on average."""
    w, x = torch.randn(48, 64), torch.randn(10, 64)
    exact = x @ w.T
    error = (IntegerLinear(*quantize_int8(w))(x) - exact).norm() / exact.norm()
    assert 0.001 < error < 0.015


def test_a_row_keeps_its_bits_in_any_company():
    layer, x = IntegerLinear(*weights(48, 64)), torch.randn(40, 64)
    x[5] *= 1000  # one scale for all rows would drown the others
    together = layer(x)
    for M in (1, 2, 7, 16):
        assert torch.equal(layer(x[3 : 3 + M]), together[3 : 3 + M])


def test_zeros_shapes_biases_and_dtypes():
    bias = torch.randn(48)
    layer = IntegerLinear(*weights(48, 64), bias)
    assert torch.equal(layer(torch.zeros(2, 3, 64)), bias.expand(2, 3, 48))
    assert layer(torch.randn(2, 3, 64).bfloat16()).dtype == torch.bfloat16


def test_layers_side_by_side_are_the_layers():
    layers, x = [IntegerLinear(*weights(N, 64), torch.randn(N)) for N in (16, 8, 40)], torch.randn(3, 64)
    assert torch.equal(IntegerLinear.stacked(layers)(x), torch.cat([layer(x) for layer in layers], -1))


def test_a_way_that_torch_lacks_or_that_overflows_is_passed_over(monkeypatch):
    """Some of these calls are to leave torch one day; and without VNNI pairs of products are added in 16 bits."""
    def gone(weight, scale):
        raise AttributeError("no such operator")

    def saturating(weight, scale):
        def product(x, s):
            pairs = ((x[:, None] + 128) * weight).unflatten(-1, (-1, 2)).sum(-1)  # x without sign, as such CPUs want it
            return (pairs.clamp(-(2**15), 2**15 - 1).sum(-1) - 128 * weight.sum(-1)) * scale

        return product

    monkeypatch.setattr(integer_linear, "WAYS", {"gone": gone, "saturating": saturating, "float": WAYS["float"]})
    assert integer_linear._seconds(saturating, 6, 10, 1) == float("inf")
    integer_linear._fastest.cache_clear()
    weight, scale = weights(6, 10)
    product = fastest(weight, scale)(torch.ones(1, 10), torch.ones(1, 1))
    assert torch.equal(product, weight.sum(-1).float()[None] * scale)
    integer_linear._fastest.cache_clear()
