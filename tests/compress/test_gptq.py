"""GPTQ against its slow twin, and for what it promises: outputs, not weights, stay near."""

import pytest
import torch
from compress.small import KINDS, small_gpt, some_batches

from kernels.quantization import dequantized, grouped
from minigpt.compress.gptq import DAMP, best_scales, quantize_gptq, round_columns
from minigpt.compress.grid import INT3, INT4, INT8, nearest, scales
from minigpt.compress.inputs import input_sums, products
from minigpt.compress.quantize import quantize, to_floats


def layer(N=24, K=64, inputs=300, seed=0):
    """Weights, and inputs whose channels differ in size and belong together."""
    stream = torch.Generator().manual_seed(seed)
    mix = torch.randn(K, K, generator=stream, dtype=torch.float64) / 4
    x = torch.randn(inputs, K, generator=stream, dtype=torch.float64) @ mix * torch.linspace(0.2, 3, K)
    return torch.randn(N, K, generator=stream), x


def column_by_column(w, hessian, grid, order):
    """The slow twin: no Cholesky, no blocks. After each column the inverse of what is left of H is made anew.

    Frantar et al. 2023, equations 2 and 3: w_k -= (w_j - q_j) / [H⁻¹]_jj · [H⁻¹]_jk over the columns F still free.
    """
    scale = best_scales(w, hessian.diagonal(), grid)
    steps = scale.double().repeat_interleave(grid.group or w.size(1), dim=1)
    h = hessian + DAMP * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    rest, numbers = w.double().clone(), torch.zeros(w.shape, dtype=torch.float64)
    free = list(order)
    while free:
        inverse = torch.linalg.inv(h[free][:, free])
        j = free[0]
        numbers[:, j] = nearest(rest[:, j : j + 1], steps[:, j : j + 1], grid)[:, 0]
        error = (rest[:, j] - numbers[:, j] * steps[:, j]) / inverse[0, 0]
        rest[:, free] -= error[:, None] * inverse[0]
        free = free[1:]
    return numbers


@pytest.mark.parametrize("grid", [INT3, INT4, INT8], ids=["int3", "int4", "int8"])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("block", [64, 24, 1])
def test_blocks_and_cholesky_give_the_numbers_of_the_plain_recursion(grid, ordered, block):
    """The same whole numbers, whatever the size of a block, also one that does not divide the columns."""
    w, x = layer()
    hessian = x.T @ x
    order = hessian.diagonal().argsort(descending=True) if ordered else torch.arange(64)
    numbers, _ = round_columns(w, hessian, grid, block=block, ordered=ordered)
    assert torch.equal(numbers, column_by_column(w, hessian, grid, order.tolist()))


def outputs_off(numbers, scale, w, x):
    found = (numbers.double().unflatten(1, (scale.size(1), -1)) * scale.double()[..., None]).flatten(1)
    return ((x @ (found - w.double()).T).norm() / (x @ w.double().T).norm()).item()


@pytest.mark.parametrize("grid", [INT3, INT4], ids=["int3", "int4"])
def test_outputs_stray_less_than_after_rounding_to_nearest(grid):
    """Weights stray more: that is the trade. The scales are the same, so that nothing else can be the reason."""
    w, x = layer()
    scale = best_scales(w, (x.T @ x).diagonal(), grid)
    rounded = outputs_off(nearest(w, scale, grid), scale, w, x)
    assert outputs_off(*round_columns(w, x.T @ x, grid), w, x) < 0.75 * rounded


def test_inputs_that_have_nothing_to_do_with_each_other_leave_nothing_to_make_up():
    """H is diagonal: no column can answer for another, and each is rounded to nearest."""
    w, _ = layer()
    numbers, scale = round_columns(w, torch.eye(64, dtype=torch.float64), INT3)
    assert torch.equal(numbers, nearest(w.double(), scale, INT3))


def test_channels_that_are_never_used_do_no_harm():
    """A dead channel makes H singular; damping keeps it solvable."""
    w, x = layer()
    x[:, :9] = 0
    numbers, scale = round_columns(w, x.T @ x, INT4)
    assert numbers.isfinite().all() and outputs_off(numbers, scale, w, x) < 0.1
    numbers, _ = round_columns(w, torch.zeros(64, 64, dtype=torch.float64), INT4)
    assert numbers.isfinite().all()


def test_inputs_that_are_not_finite_are_refused():
    """One overflow in calibration would silently make noise of a matrix."""
    w, x = layer()
    x[3, 3] = torch.inf
    with pytest.raises(ValueError, match="inputs of a layer are not finite"):
        round_columns(w, x.T @ x, INT4)


def test_the_best_scale_cuts_off_what_stands_alone():
    """31 numbers of about 1 and a 4 that hardly matters: steps of 4/3 would make the others -1, 0 or 1."""
    w = torch.linspace(-1, 1, 32)[None].clone()
    w[0, 5] = 4.0
    importance = torch.ones(32)
    importance[5] = 1e-4
    assert best_scales(w, importance, INT3).item() < 0.75 * scales(w, INT3).item()
    importance[5] = 1e4
    assert best_scales(w, importance, INT3).item() == scales(w, INT3).item()
    assert best_scales(w, torch.zeros(32), INT3).item() == scales(w, INT3).item(), "of equals the one that cuts nothing"


def test_the_sums_are_of_what_each_layer_is_given():
    """By hand, for the first layer and the head."""
    model, batches = small_gpt(tied=False), some_batches(2)
    head = {"lm_head": model.lm_head, "blocks.0.attention.q_proj": model.blocks[0].attention.q_proj}
    found = input_sums(model, head, batches, products)
    x = torch.cat([model.blocks[0].attention_norm(model.token_embedding(batch.ids)).flatten(0, 1) for batch in batches])
    torch.testing.assert_close(found["blocks.0.attention.q_proj"], (x.T @ x).double(), rtol=1e-3, atol=1e-3)
    assert not model.lm_head._forward_pre_hooks, "a hook was left behind"


@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
def test_a_whole_model_strays_less(other):
    """On the text it was calibrated with: tied or not, with biases or without, whatever the MLP."""
    model, batches = small_gpt(**other), some_batches(4)
    before = {name: p.clone() for name, p in model.named_parameters()}

    def off(integer):
        with torch.inference_mode():
            return sum((to_floats(integer)(b.ids) - model(b.ids)).square().sum().item() for b in batches)

    calibrated = quantize_gptq(model, INT3, batches)
    assert off(calibrated) < 0.7 * off(quantize(model, INT3))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "the model itself was changed"
    if not model.config.tied:
        nearest_rows = quantize(model, INT3).token_embedding.weight
        assert torch.equal(calibrated.token_embedding.weight, nearest_rows), "embeddings multiply nothing"
    assert dequantized(calibrated.lm_head.weight, calibrated.lm_head.scale).isfinite().all()


def numbers_of(layer):
    return grouped(layer.weight, layer.scale)[0].flatten(1)


def numbers_for(working, name, w, batches, grid):
    """What `round_columns` says for the inputs that `working` gives to a layer."""
    hessian = input_sums(working, {"it": working.get_submodule(name)}, batches, products)["it"]
    return round_columns(w, hessian, grid)[0]


@pytest.mark.parametrize(("name", "grid"), [("blocks.1.attention.v_proj", INT3), ("lm_head", INT4)])
def test_each_layer_is_rounded_for_what_the_rounded_blocks_before_it_give(name, grid):
    """Their errors are then seen, and answered to. The twin computes with floats: nearly all numbers are equal."""
    model, batches = small_gpt(tied=False), some_batches(4)
    calibrated, w = quantize_gptq(model, INT3, batches), model.get_submodule(name).weight.detach()
    working = to_floats(calibrated)
    working.token_embedding.load_state_dict(model.token_embedding.state_dict())
    after, before = (numbers_for(each, name, w, batches, grid) for each in (working, model))
    equal, unequal = ((numbers_of(calibrated.get_submodule(name)) == each).float().mean() for each in (after, before))
    assert equal > 0.97 and equal > unequal + 0.02


def test_batches_may_come_from_an_iterator():
    """They are read once for each block: an iterator would be empty for all but the first."""
    model, batches = small_gpt(), some_batches(2)
    first, second = (quantize_gptq(model, INT4, each).state_dict() for each in (batches, iter(batches)))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_tied_head_is_rounded_for_the_heads_inputs():
    """Not to nearest: as a head it multiplies."""
    model, batches = small_gpt(), some_batches(4)
    calibrated, rounded = quantize_gptq(model, INT4, batches), quantize(model, INT4)
    assert (calibrated.lm_head.weight != rounded.lm_head.weight).float().mean() > 0.02
    assert calibrated.token_embedding.table is calibrated.lm_head
