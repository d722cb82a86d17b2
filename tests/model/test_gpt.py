"""What every GPT must satisfy, whatever its parts."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kernels import dispatch
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, check_ids, parameter_count
from minigpt.model.mlp import MLPS
from minigpt.model.norm import NORMS
from minigpt.model.positions import POSITIONS

SIZES = {"vocab_size": 37, "context_length": 16, "n_layer": 2, "n_head": 4, "n_embd": 16}
MORE = itertools.cycle([
    {"n_kv_head": 2}, {"window": 3, "bias": True}, {"qk_norm": False, "tied": False},
    {"head_dim": 6, "n_kv_head": 1}, {"window": 1}, {"n_kv_head": 1, "window": 5, "short_conv": 3},
    {"bias": True, "short_conv": 1},
])  # fmt: skip
VARIANTS = [
    {"position": position, "norm": norm, "mlp": mlp, **next(MORE)}
    for position, norm, mlp in itertools.product(POSITIONS, NORMS, MLPS)
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def gpt(request):
    """One of 30 combinations of parts, with weights of the size of trained ones."""
    torch.manual_seed(1)
    gpt = GPT(GPTConfig(**SIZES, **request.param)).double().eval()
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return gpt


def test_the_past_cannot_see_the_future(gpt):
    """Editing token 7 leaves logits 0..6 unchanged; a leak here would fake a low loss."""
    ids = torch.arange(12)[None]  # (1, T)
    edited = ids.clone()
    edited[0, 7] = 3
    torch.testing.assert_close(gpt(ids)[:, :7], gpt(edited)[:, :7])
    assert not torch.allclose(gpt(ids)[:, 7], gpt(edited)[:, 7])


def test_losses_are_the_cross_entropy_of_the_logits(gpt):
    """With targets no logits come out, but the same numbers are behind it; an ignored target costs 0."""
    ids = torch.randint(37, (2, 9))  # (B, T)
    targets = torch.randint(37, (2, 9))
    targets[:, ::4] = -100
    expected = F.cross_entropy(gpt(ids).mT, targets, reduction="none")
    losses = gpt(ids, targets)
    torch.testing.assert_close(losses, expected)
    assert torch.equal(losses[:, ::4], torch.zeros(2, 3, dtype=torch.float64))


def test_every_weight_learns(gpt):
    """A parameter without a gradient is a part that is not connected."""
    ids = torch.randint(37, (3, 9))
    gpt(ids, ids.roll(-1, 1)).mean().backward()
    useless = [name for name, parameter in gpt.named_parameters() if parameter.grad is None]
    assert not useless


def test_documents_are_alone_in_their_batch(gpt):
    """Packed behind one another and masked, whatever the first text says changes nothing in the second."""
    ids, document = torch.randint(37, (1, 9)), torch.tensor([[4] * 5 + [2] * 4])
    edited = ids.clone()
    edited[0, :5] = (edited[0, :5] + 1) % 37
    packed = gpt(ids, document=document)
    torch.testing.assert_close(packed[:, :5], gpt(ids[:, :5]))
    torch.testing.assert_close(packed[:, 5:], gpt(edited, document=document)[:, 5:])
    alone = torch.allclose(packed[:, 5:], gpt(ids[:, 5:]))
    # A mask hides the other document, not the place in the row: absolute positions go on across the border.
    assert alone == (gpt.config.position not in ("learned", "sinusoidal"))


def test_parameters_are_counted_without_making_them(gpt):
    """Of all kinds of parts; a tied head is no second matrix."""
    assert parameter_count(gpt.config) == sum(parameter.numel() for parameter in gpt.parameters())


def test_names_are_the_fields():
    """Other rooms choose weights by these names: Muon takes matrices inside blocks, adapters take *_proj."""
    names = set(dict(GPT(GPTConfig(**{**SIZES, "n_layer": 1}, position="learned")).named_parameters()))
    parts = ["attention_norm", "mlp_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    parts += [f"attention.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")]
    body = {f"blocks.0.{part}.weight" for part in parts}
    assert names == body | {"token_embedding.weight", "position_embedding.weight", "final_norm.weight"}


def test_a_tied_head_is_the_embedding():
    """One tensor, counted, trained and saved once; an untied head is its own."""
    tied, free = GPT(GPTConfig(**SIZES)), GPT(GPTConfig(**SIZES, tied=False))
    assert tied.lm_head.weight is tied.token_embedding.weight
    assert "lm_head.weight" not in dict(tied.named_parameters())
    assert "lm_head.weight" in dict(free.named_parameters())


@pytest.mark.parametrize("bias", [False, True])
def test_biases_are_everywhere_or_nowhere(bias):
    """In the linear layers and LayerNorm; RMSNorm and the head never have one."""
    gpt = GPT(GPTConfig(**SIZES, norm="layer", bias=bias))
    for name, module in gpt.named_modules():
        if isinstance(module, nn.Linear | NORMS["layer"]) and name != "lm_head":
            assert (module.bias is not None) == bias, name
    assert gpt.lm_head.bias is None


def test_weights_begin_as_the_docstring_says():
    """The table of GPT's docstring, measured; a wrong start costs steps and nobody notices."""
    torch.manual_seed(1)
    gpt = GPT(GPTConfig(vocab_size=500, n_layer=8, n_head=4, n_embd=64, norm="layer", bias=True, tied=False,
                        position="learned"))  # fmt: skip
    for name, parameter in gpt.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert parameter.std().item() == pytest.approx(0.02 / 4, rel=0.1), name
        elif parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name


def test_a_fresh_model_knows_nothing():
    """Its first loss is log V: the first number to check of any run."""
    torch.manual_seed(1)
    ids = torch.randint(37, (4, 16))
    loss = GPT(GPTConfig(**SIZES))(ids, ids.roll(-1, 1)).mean()
    assert loss.item() == pytest.approx(torch.tensor(37.0).log().item(), abs=0.05)


def test_dropout_is_for_training_only():
    """Three places (embedding, attention, blocks), none of them when evaluating."""
    torch.manual_seed(1)
    gpt, ids = GPT(GPTConfig(**SIZES, dropout=0.5)), torch.randint(37, (2, 9))
    assert not torch.equal(gpt(ids), gpt(ids))
    gpt.eval()
    assert torch.equal(gpt(ids), gpt(ids))
    plain = GPT(GPTConfig(**SIZES)).eval()
    plain.load_state_dict(gpt.state_dict())
    assert torch.equal(gpt(ids), plain(ids))


@pytest.mark.parametrize("place", ["dropout", "blocks.1.dropout", "blocks.1.attention"])
def test_each_dropout_drops(place):
    """Each of the three places acts alone."""
    torch.manual_seed(1)
    gpt, ids = GPT(GPTConfig(**SIZES, dropout=0.5)).eval(), torch.randint(37, (2, 9))
    nn.init.normal_(gpt.blocks[1].attention.o_proj.weight)
    still = gpt(ids)
    gpt.get_submodule(place).train()
    assert not torch.allclose(still, gpt(ids), atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS[::7], ids=str)
def test_the_whole_forward_is_one_graph(variant):
    """torch.compile finds no place where it must stop: no print, no branch on values, no table of choices."""
    torch.compiler.reset()
    dispatch.forget()  # also where the choice of kernels is still to be made
    gpt = GPT(GPTConfig(**SIZES, **variant))
    compiled = torch.compile(gpt, fullgraph=True, backend="eager")
    ids = torch.randint(37, (2, 9))
    torch.testing.assert_close(compiled(ids, ids), gpt(ids, ids))


def test_an_id_beyond_the_vocabulary_is_named():
    """Where data enters; inside the model it would be an index error, or on a GPU a dead process."""
    check_ids(torch.tensor([[0, 36]]), 37, "prompt")
    with pytest.raises(ValueError, match="prompt: token id 37 at place 2 is beyond the vocabulary of 37"):
        check_ids(torch.tensor([[0, 36], [37, 40]]), 37, "prompt")
    with pytest.raises(ValueError, match="token id -1"):
        check_ids(torch.tensor([-1]), 37, "prompt")
