"""Integer matrices: what is stored, what is shared, and how far the result may stray."""

from collections import Counter

import pytest
import torch
from compress.small import KINDS, small_gpt, some_batches
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels.quantization import dequantized, quantize_int4, quantize_int8
from minigpt.compress.choose import WAYS, as_floats, choose, fastest, measured, widened
from minigpt.compress.gptq import quantize_gptq
from minigpt.compress.grid import GRIDS, INT3, INT4, INT8, fitting, nearest, scales, stored
from minigpt.compress.quantize import IntegerGPT, linear_layers, quantize, to_floats, to_nearest
from minigpt.engine.config import SamplingConfig
from minigpt.engine.engine import Engine
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.packed_linear import PackedLinear
from minigpt.engine.request import Request


def matrix(N=48, K=64, seed=0):
    return torch.randn(N, K, generator=torch.Generator().manual_seed(seed))


def test_numbers_by_hand():
    """int3 has the steps -3 .. 3: with scale 2, [-6, 1, 0.9, 2.9, 6] are [-3, 0 (half to even), 0, 1, 3]."""
    w = torch.zeros(1, 32)
    w[0, :5] = torch.tensor([-6.0, 1.0, 0.9, 2.9, 6.0])
    scale = scales(w, INT3)
    assert scale.tolist() == [[2.0]]
    assert nearest(w, scale, INT3)[0, :6].tolist() == [-3, 0, 0, 1, 3, 0]
    assert nearest(w, scale / 4, INT3)[0, :6].tolist() == [-3, 2, 2, 3, 3, 0], "what a small scale cuts off"


def test_int8_is_what_the_kernels_make_of_it():
    """One format in the house: `quantize_int8` is the twin, to the last bit."""
    w = matrix()
    weight, scale = stored(*to_nearest("", w, INT8), INT8)
    theirs = quantize_int8(w)
    assert torch.equal(weight, theirs[0]) and torch.equal(scale, theirs[1])


def test_four_bits_err_by_no_more_than_half_a_step_and_what_the_scale_lost():
    """`quantize_int4` keeps its scales in float32, we in bfloat16: same layout, nearly the same numbers."""
    w = matrix()
    weight, scale = stored(*to_nearest("", w, INT4), INT4)
    assert weight.dtype == torch.uint8 and scale.dtype == torch.bfloat16 and scale.shape == (48, 2)
    step = scale.float().repeat_interleave(32, dim=1)
    largest = w.unflatten(1, (-1, 32)).abs().amax(-1).repeat_interleave(32, dim=1)
    assert ((dequantized(weight, scale) - w).abs() <= step / 2 + largest / 256).all()
    theirs = dequantized(*quantize_int4(w, 32))
    assert (dequantized(weight, scale) - w).norm() <= 1.02 * (theirs - w).norm()


def test_a_matrix_of_zeros_stays_zero():
    """Its scale is 0, by which nothing can be divided."""
    for grid in GRIDS.values():
        assert nearest(torch.zeros(4, 64), scales(torch.zeros(4, 64), grid), grid).eq(0).all()
        assert not dequantized(*stored(*to_nearest("", torch.zeros(4, 64), grid), grid)).any()


def test_rows_that_no_group_divides_get_eight_bits():
    """48 is no multiple of 32; refusing the whole model for it would help nobody."""
    assert fitting(INT4, "lm_head", 48) == INT8 and fitting(INT4, "lm_head", 64) == INT4
    model = small_gpt(n_embd=48, mlp_width=64)
    mixed = quantize(model, INT4)
    assert isinstance(mixed.blocks[0].attention.q_proj, IntegerLinear)
    assert isinstance(mixed.blocks[0].mlp.down_proj, PackedLinear)


def test_embedding_and_head_keep_four_bits():
    """At three, they alone cost more than all blocks together."""
    assert fitting(INT3, "lm_head", 64) == fitting(INT3, "token_embedding", 64) == INT4
    assert fitting(INT3, "blocks.0.mlp.up_proj", 64) == INT3 and fitting(INT8, "lm_head", 64) == INT8


def test_sizes_count_every_bit():
    """(32, 64): int8 2048 + 32 scales of 4; int4 1024 + 64 scales of 2; int3 768 + 64 scales of 2."""
    shape = torch.Size((32, 64))
    assert [INT8.bytes(shape), INT4.bytes(shape), INT3.bytes(shape)] == [2176, 1152, 896]


# --- the layer of four bits -----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(1, 70), st.sampled_from([32, 64, 96, 128, 160]), st.sampled_from([32, 64]), st.integers(1, 9),
       st.booleans(), st.integers(0, 99))  # fmt: skip
def test_the_packed_product_strays_as_far_as_bfloat16_activations_do(N, K, group, M, biased, seed):
    """Against float64. Its inputs lose 16 bits: each of K products may be off by 1/256. N need be no multiple of 16."""
    group = group if K % group == 0 else 32
    weight, scale = quantize_int4(matrix(N, K, seed), group)
    scale = scale.bfloat16()
    bias = matrix(1, N, seed + 1)[0] if biased else None
    x = matrix(M, K, seed + 2)
    truth = x.double() @ dequantized(weight, scale).double().T
    slack = x.double().abs() @ dequantized(weight, scale).double().abs().T / 256
    y = PackedLinear(weight, scale, bias)(x).double()
    out = truth.abs() / 128 + slack + 1e-6  # the result passes through bfloat16 as well
    assert ((y - truth - (0 if bias is None else bias.double())).abs() <= out).all()


def test_the_packed_product_is_quantized_linear():
    """The kernels' own definition of the format is the twin: two readings of the bytes would go unnoticed otherwise."""
    weight, scale = quantize_int4(matrix(), 32)
    x = matrix(5, 64, 3).bfloat16().float()
    twin = kernels.quantized_linear(x, weight, scale.bfloat16())
    torch.testing.assert_close(PackedLinear(weight, scale.bfloat16())(x), twin, rtol=2**-7, atol=0.02)


@pytest.mark.parametrize("way", WAYS)
def test_a_row_has_the_same_bits_in_any_company(way):
    """What a request gets must not depend on who else is served: each way promises it (float32 from 4 rows on)."""
    weight, scale = quantize_int4(matrix(64, 96), 32)
    layer, x = WAYS[way](PackedLinear(weight, scale)), matrix(16, 96, 5)
    with torch.inference_mode():
        alone = torch.cat([layer(x[i : i + 4]) for i in range(0, 16, 4)])
        assert torch.equal(layer(x), alone)
        if way != "float32":
            assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


def test_stacked_layers_give_their_outputs_side_by_side():
    """The engine multiplies q, k and v at once."""
    layers = [PackedLinear(*quantize_int4(matrix(N, 64, N), 32), matrix(1, N)[0]) for N in (48, 16, 24)]
    x = matrix(3, 64, 9)
    assert torch.equal(PackedLinear.stacked(layers)(x), torch.cat([layer(x) for layer in layers], dim=-1))


# --- whole models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_an_integer_model_computes_with_the_numbers_it_stores(grid, other):
    """Against the plain GPT of the same numbers: what differs is the activations' rounding, a percent or so."""
    model = small_gpt(**other)
    before = {name: p.clone() for name, p in model.named_parameters()}
    integer, ids = quantize(model, grid), some_batches(1)[0].ids
    with torch.inference_mode():
        ours, plain = integer(ids), to_floats(integer)(ids)
    assert (ours - plain).norm() <= 0.03 * plain.norm()
    assert not any(isinstance(layer, torch.nn.Linear) for layer in integer.modules())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "the model itself was changed"


def test_more_bits_are_nearer():
    """Else the grids are mixed up."""
    model, ids = small_gpt(), some_batches(1)[0].ids
    with torch.inference_mode():
        off = [(quantize(model, grid)(ids) - model(ids)).norm().item() for grid in (INT8, INT4, INT3)]
    assert 3 * off[0] < off[1] < 0.7 * off[2]


def test_the_copy_shares_nothing_with_the_model_and_computes_without_dropout():
    """Trained on, the model would otherwise change what was made of it; and to round is no reason to train."""
    model, ids = small_gpt(bias=True, dropout=0.5).train(), some_batches(1)[0].ids
    theirs = {p.data_ptr() for p in model.parameters()}
    for copy in (quantize(model, INT8), quantize_gptq(model, INT4, some_batches(1))):
        plain = to_floats(copy)
        assert not theirs & {tensor.data_ptr() for each in (copy, plain) for tensor in each.state_dict().values()}
        assert all(torch.equal(each(ids), each(ids)) for each in (copy, plain))


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_and_the_embedding_are_one_matrix(tied):
    """Twice the largest matrix would cost more than quantizing it saves; and moving the model must not part them."""
    integer = quantize(small_gpt(tied=tied), INT8).to(torch.float32)
    assert (integer.token_embedding.table is integer.lm_head) == tied
    head = dequantized(integer.lm_head.weight, integer.lm_head.scale)
    assert torch.equal(integer.token_embedding.weight, head) == tied
    ids = torch.tensor([[3, 95]])
    assert torch.equal(integer.token_embedding(ids)[0], integer.token_embedding.weight[[3, 95]])


def test_losses_come_from_the_logits_and_an_ignored_target_costs_nothing():
    """GPT computes losses from a head of floats: with integers it would read numbers without their scales."""
    integer, batch = quantize(small_gpt(), INT8), some_batches(1)[0]
    targets = batch.targets.clone()
    targets[0, :5] = -100
    with torch.inference_mode():
        losses, logits = integer(batch.ids, targets), integer(batch.ids)
    assert not losses[0, :5].any()
    assert losses[1, 7] == pytest.approx(-logits[1, 7].log_softmax(-1)[targets[1, 7]].item(), rel=1e-5)


def test_a_model_of_chosen_ways_is_the_same_model(monkeypatch):
    """Whatever is measured: no layer is lost, none is put in another's place, the embedding keeps its table."""
    ids = some_batches(1)[0].ids
    for stays in WAYS:
        integer = quantize(small_gpt(), INT4)
        with torch.inference_mode():
            before = integer(ids)
            monkeypatch.setattr("minigpt.compress.choose.fastest", lambda seconds, stays=stays: stays)
            choices = choose(integer)
            after = integer(ids)
        assert (after - before).norm() <= 0.03 * before.norm()
        assert [choice.layers for choice in choices] == [2, 2, 2, 2, 1]
        assert [choice.shape for choice in choices] == [(128, 64), (64, 64), (192, 64), (64, 96), (96, 64)]
        kinds = {type(integer.get_submodule(name)) for name in linear_layers(small_gpt())}
        assert kinds == {{"int8": IntegerLinear, "int4": PackedLinear, "float32": torch.nn.Linear}[stays]}
        assert isinstance(integer.token_embedding.table, PackedLinear)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_adds_the_bias_and_learns_nothing(way):
    """Few models have biases: one that is lost would go unnoticed for long."""
    (weight, scale), bias, x = quantize_int4(matrix(), 32), matrix(1, 48, 1)[0], matrix(5, 64, 2)
    with_bias, without = (WAYS[way](PackedLinear(weight, scale, each)) for each in (bias, None))
    torch.testing.assert_close(with_bias(x), without(x) + bias, rtol=2**-7, atol=0.05)
    assert not any(parameter.requires_grad for parameter in with_bias.parameters())


def test_the_time_of_a_shape_is_the_least_of_each_of_its_layers_and_their_mean(monkeypatch):
    """With a clock of our own: a row costs a layer's number, floats twice that, and the first try ten times."""
    tried = Counter()

    def seconds(layer, x):
        tried[layer, len(x)] += 1
        return len(x) * layer.weight[0, 0].item() * (2 if type(layer) is torch.nn.Linear else 1) * (
            10 if tried[layer, len(x)] == 1 else 1)  # fmt: skip

    monkeypatch.setattr("minigpt.compress.choose._seconds", seconds)
    ones = [IntegerLinear(torch.full((N, 32), number, dtype=torch.int8), torch.ones(N))
            for N, number in ((8, 1), (8, 3), (16, 7))]  # fmt: skip
    assert measured(ones, [[0, 1], [2]]) == [
        {"int8": (2, 32), "float32": (4, 64)}, {"int8": (7, 112), "float32": (14, 224)}
    ]  # fmt: skip


def test_what_is_slower_than_float32_for_one_row_or_for_many_is_not_chosen():
    """4 us as floats, 67 us as integers: that is how small matrices are."""
    assert fastest({"float32": (4, 8), "int8": (67, 72), "int4": (3, 10)}) == "float32"
    assert fastest({"float32": (215, 990), "int8": (157, 385), "int4": (103, 709)}) == "int8"
    assert fastest({"float32": (215, 990), "int8": (157, 385), "int4": (50, 609)}) == "int4"
    assert fastest({"float32": (30, 69), "int8": (29, 45)}) == "float32", "a tie must not change from load to load"
    assert fastest({"float32": (30, 69), "int8": (20, 68)}) == "float32"


def test_widening_four_bits_to_eight_adds_a_fraction_of_their_error():
    """255 steps for a row: an eighth of the error that 15 steps for a group have made."""
    w = matrix(64, 256)
    four = PackedLinear(*stored(*to_nearest("", w, INT4), INT4))
    eight, floats = widened(four), as_floats(four).weight
    more = (dequantized(eight.weight, eight.scale) - floats).norm()
    assert more < 0.2 * (floats - w).norm()


def test_the_engine_serves_integers():
    """Greedy tokens of the engine and of the model itself: the same."""
    integer = quantize(small_gpt(), INT8)
    engine = Engine(integer)
    answer = engine.submit(Request(prompt=[1, 2, 3], sampling=SamplingConfig(temperature=0, max_new_tokens=8)))
    while engine.busy:
        engine.step()
    ids = [1, 2, 3]
    with torch.inference_mode():
        for _ in range(8):
            ids.append(int(integer(torch.tensor([ids]))[0, -1].argmax()))
    assert answer.tokens == ids[3:]
    assert isinstance(integer, IntegerGPT)
