"""Pruning: what goes, what stays, and that what is left computes as if the rest had been zero."""

import pytest
import torch
from compress.small import KINDS, small_gpt, some_batches

from minigpt.compress.inputs import input_sums, squares
from minigpt.compress.prune import (
    apply_masks,
    best_heads,
    kept_heads,
    largest,
    prune_structure,
    two_of_four,
    weight_masks,
)
from minigpt.compress.quantize import linear_layers
from minigpt.model.pretrained import load_pretrained, save_pretrained


def test_the_lowest_of_each_row_go():
    """By hand: 40 % of five is two, in every row; of equals the first goes."""
    score = torch.tensor([[5.0, 1, 4, 2, 3], [1, 1, 1, 9, 9]])
    assert largest(score, 0.4).tolist() == [[True, False, True, False, True], [False, False, True, True, True]]
    assert largest(score, 0.0).all()
    assert largest(torch.arange(10.0)[None], 0.29).sum() == 7, "2.9 of ten are three"


def test_two_of_four_neighbours_stay():
    """By hand; what does not fill a last four stays."""
    score = torch.tensor([[5.0, 1, 4, 2, 0, 1, 3, 2, 0, 0]])
    assert two_of_four(score).int().tolist() == [[1, 0, 1, 0, 0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("how", "share"), [("magnitude", 0.3), ("wanda", 0.3), ("2:4", 0.5)])
def test_each_matrix_of_the_blocks_loses_its_share_and_nothing_else_changes(how, share, other):
    """Embedding, head, norms and biases are not pruned."""
    model = small_gpt(**other)
    before = {name: p.clone() for name, p in model.named_parameters()}
    masks = weight_masks(model, how, share, some_batches())
    assert masks.keys() == {f"{name}.weight" for name in linear_layers(model) if name != "lm_head"}
    apply_masks(model, masks)
    for name, parameter in model.named_parameters():
        if name in masks:
            zeros = (parameter == 0).float().mean(1)
            assert ((zeros - share).abs() < 0.6 / parameter.size(1)).all(), name
            assert torch.equal(parameter[masks[name]], before[name][masks[name]])
        else:
            assert torch.equal(parameter, before[name])


def test_wanda_looks_at_inputs_and_magnitude_does_not():
    """Sun et al. 2023, their point in two numbers: a small weight on a large input does more than a larger one on a
    small input."""
    model, batches = small_gpt(n_layer=1), some_batches(1)
    with torch.no_grad():
        model.blocks[0].attention_norm.weight.fill_(1.0)[7] = 100.0
        model.blocks[0].attention.q_proj.weight.fill_(1.0)[:, 7] = 0.1
    name = "blocks.0.attention.q_proj.weight"
    assert not weight_masks(model, "magnitude", 0.25, batches)[name][:, 7].any()
    assert weight_masks(model, "wanda", 0.25, batches)[name][:, 7].all()


@pytest.mark.parametrize("how", ["magnitude", "wanda", "2:4"])
def test_scores_are_the_weight_and_for_wanda_times_the_length_of_its_inputs(how):
    """|W| and |W| · ‖x‖, recomputed for a first layer: a square or a sign too many gives masks that look as good."""
    model, batches = small_gpt(), some_batches(2)
    with torch.no_grad():
        model.blocks[0].attention_norm.weight.copy_(torch.linspace(0.2, 3, 64))
        x = torch.cat([model.blocks[0].attention_norm(model.token_embedding(b.ids)).flatten(0, 1) for b in batches])
    score = model.blocks[0].attention.q_proj.weight.abs() * (x.norm(dim=0) if how == "wanda" else 1)
    expected = two_of_four(score) if how == "2:4" else largest(score, 0.5)
    assert torch.equal(weight_masks(model, how, 0.5, batches)["blocks.0.attention.q_proj.weight"], expected)


def test_the_sums_of_squares_are_of_all_inputs():
    """By hand for the first layer; and no hook stays behind."""
    model, batches = small_gpt(), some_batches(3)
    layer = model.blocks[0].attention.q_proj
    found = input_sums(model, {"q": layer}, batches, squares)["q"]
    x = torch.cat([model.blocks[0].attention_norm(model.token_embedding(b.ids)).flatten(0, 1) for b in batches])
    torch.testing.assert_close(found, x.detach().double().square().sum(0), rtol=1e-5, atol=1e-6)
    assert not layer._forward_pre_hooks


# --- heads and channels ---------------------------------------------------------------------------------------------


def zeroed(model, small):
    """The large model with those heads and channels at zero that the small one has not: found by comparing columns."""
    for block, cut in zip(model.blocks, small.blocks, strict=True):
        for name in ("attention.o_proj", "mlp.down_proj"):
            whole, part = block.get_submodule(name).weight, cut.get_submodule(name).weight
            with torch.no_grad():
                for column in range(whole.size(1)):
                    if not (whole[:, column : column + 1] == part).all(0).any():
                        whole[:, column] = 0
    return model


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
def test_the_smaller_model_computes_as_the_large_one_without_those_parts(other, share):
    """Rows and columns of the right heads: one that slips would change every logit."""
    model, ids = small_gpt(**other), some_batches(1)[0].ids
    small = prune_structure(model, share, some_batches())
    with torch.inference_mode():
        expected, found = zeroed(model, small)(ids), small(ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert small.config.hidden < model.config.hidden
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
def test_the_smaller_model_is_an_ordinary_one(other, tmp_path):
    """It saves and loads as any, with no masks; its config is one that the house accepts."""
    small = prune_structure(small_gpt(**other), 0.5, some_batches())
    save_pretrained(small, tmp_path)
    again, ids = load_pretrained(tmp_path), some_batches(1)[0].ids
    with torch.inference_mode():
        assert torch.equal(again(ids), small(ids))
    assert again.config == small.config and not any(module.training for module in small.modules())


def test_what_is_never_used_goes_first():
    """Channels and heads that are zero change nothing when they leave, so the logits stay."""
    model, ids = small_gpt(n_kv_head=4), some_batches(1)[0].ids
    with torch.no_grad():
        for layer, block in enumerate(model.blocks):
            block.attention.o_proj.weight[:, 16 * layer : 16 * layer + 16] = 0        # another head in each layer
            block.mlp.down_proj.weight[:, layer : layer + 64 : 2] = 0                 # 32 of 96 channels
    small = prune_structure(model, 0.3, some_batches())
    assert (small.config.n_head, small.config.kv_heads, small.config.hidden) == (3, 3, 64)
    with torch.inference_mode():
        torch.testing.assert_close(small(ids), model(ids), rtol=1e-4, atol=1e-4)


def test_a_channel_is_worth_what_the_matrix_behind_it_takes_from_it():
    """Σ |W| · ‖x‖, recomputed: neither a loud channel that hardly anything reads, nor a silent one that all would."""
    model, batches, heard = small_gpt(), some_batches(2), []
    mlp, order = model.blocks[0].mlp, torch.randperm(96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mlp.up_proj.weight.mul_(torch.linspace(0.1, 3, 96)[:, None])
        mlp.down_proj.weight.mul_(torch.linspace(0.1, 3, 96)[order])
        hook = mlp.down_proj.register_forward_pre_hook(lambda _, given: heard.append(given[0].flatten(0, 1)))
        for batch in batches:
            model(batch.ids)
    hook.remove()
    kept = (mlp.down_proj.weight.abs().sum(0) * torch.cat(heard).norm(dim=0)).topk(64).indices.sort().values
    small = prune_structure(model, 0.3, batches).blocks[0].mlp
    assert torch.equal(small.down_proj.weight, mlp.down_proj.weight[:, kept])
    assert torch.equal(small.up_proj.weight, mlp.up_proj.weight[kept])


@pytest.mark.parametrize(("width", "share", "expected"), [(112, 0.0, 112), (112, 0.1, 96), (96, 0.9, 32)])
def test_channels_come_in_multiples_of_32_but_for_a_width_that_stays(width, share, expected):
    """112 would round up to 128, which it has not; and a tenth of 96 down to none."""
    assert prune_structure(small_gpt(mlp_width=width), share, some_batches(1)).config.hidden == expected


def test_kept_heads_by_hand():
    """Two of three groups, one head of two in each: group 1 is the weakest once each has its best head only."""
    worth = torch.tensor([[1.0, 9.0], [4.0, 4.5], [8.0, 2.0]])
    assert kept_heads(worth, 2, 1).tolist() == [[1], [4]]
    assert kept_heads(worth, 3, 2).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("share", "expected"), [(0.0, (2, 2)), (0.2, (2, 2)), (0.25, (2, 2)), (0.5, (1, 2)),
                                                 (0.9, (1, 1))])  # fmt: skip
def test_every_key_head_goes_on_serving_the_same_number(share, expected):
    """Four heads in two groups become two or one, never three: then rather four. One group is worth more here than
    half of both."""
    worth = [torch.tensor([5.0, 5, 1, 1]).repeat_interleave(16)]
    assert best_heads(worth, small_gpt().config, share) == expected
    if share == 0.5:
        halves = [torch.tensor([5.0, 1, 5, 1]).repeat_interleave(16)]
        assert best_heads(halves, small_gpt().config, share) == (2, 1), "here half of both is worth more"


def test_alibis_heads_stay():
    """Its slopes belong to numbers of heads: with fewer, each head would get another's."""
    small = prune_structure(small_gpt(**KINDS["own"]), 0.5, some_batches())
    assert (small.config.n_head, small.config.hidden) == (4, 64)  # 48 is no multiple of 32: the nearest, to even
