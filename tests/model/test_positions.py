"""Where order enters: each scheme against numbers from its paper."""

import math

import pytest
import torch
from torch import nn

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.positions import POSITIONS, alibi_slopes, frequencies, stretched

SIZES = {"vocab_size": 11, "context_length": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}


def test_sinusoids_are_those_of_the_paper():
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos: Vaswani et al. 2017, section 3.5."""
    scheme = POSITIONS["sinusoidal"](GPTConfig(**SIZES))
    added = scheme(torch.zeros(1, 6, 8), start=2).x[0]  # (T, C)
    for t, position in enumerate(range(2, 8)):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert added[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert added[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoids_do_not_drown_the_token():
    """Embeddings come in multiplied by sqrt(C): section 3.4 of the same paper."""
    scheme = POSITIONS["sinusoidal"](GPTConfig(**SIZES))
    ones, zeros = (scheme(torch.full((1, 3, 8), value), start=0).x for value in (1.0, 0.0))
    torch.testing.assert_close(ones - zeros, torch.full((1, 3, 8), math.sqrt(8)))


def test_alibi_slopes_are_those_of_the_paper():
    """Eight heads: 1/2, 1/4, ... 1/256 (Press et al. 2022, section 3); odd counts borrow from more heads."""
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(16) == [2.0 ** (-i / 2) for i in range(1, 17)]
    assert alibi_slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]
    assert alibi_slopes(1) == [2.0**-8]


def test_rope_turns_by_the_angle_of_the_position():
    """Channels (0, 2) turn by 1 per token, (1, 3) by 1/100, with theta 10000 and four channels."""
    config = GPTConfig(vocab_size=11, n_head=1, n_embd=4)
    turn = POSITIONS["rope"](config)(torch.zeros(1, 2, 4), start=3).turn
    heads = torch.tensor([[[[1.0, 0, 0, 0], [0, 1.0, 0, 0]]]])  # tokens at positions 3 and 4
    turned = turn(heads, nn.Identity())[0, 0]
    torch.testing.assert_close(turned[0], torch.tensor([math.cos(3), 0, math.sin(3), 0]))
    torch.testing.assert_close(turned[1], torch.tensor([0, math.cos(0.04), 0, math.sin(0.04)]))


def test_stretching_leaves_fast_turns_and_slows_slow_ones():
    """Llama 3's rule at its borders: over four turns in 8192 tokens stay, under one become 8 times slower."""
    per_token = 2 * math.pi / 8192
    slow, fast, middle = (torch.tensor([turns * per_token]) for turns in (0.9, 4.1, 2.5))
    torch.testing.assert_close(stretched(slow, 8.0), slow / 8)
    torch.testing.assert_close(stretched(fast, 8.0), fast)
    torch.testing.assert_close(stretched(middle, 8.0), (middle + middle / 8) / 2)


def test_angles_are_exact_where_the_model_is():
    """Half precision cannot count to 300: frequencies stay float32 beside it, and follow a float64 model."""
    for dtype, expected in [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        assert frequencies(8, 1e4, torch.zeros(1, dtype=dtype)).dtype == expected


@pytest.mark.parametrize("position", ["rope", "alibi", "sinusoidal", "none"])
def test_formulas_go_beyond_the_context(position):
    """Whether it still writes well is another question; it must not break."""
    gpt = GPT(GPTConfig(**SIZES, position=position))
    assert gpt(torch.zeros(1, 20).long()).shape == (1, 20, 11)


def test_learned_positions_end_with_the_context():
    """There is no vector for the ninth token, and the message says what would work."""
    gpt = GPT(GPTConfig(**SIZES, position="learned"))
    gpt(torch.zeros(1, 8).long())
    with pytest.raises(ValueError, match=r"9 tokens do not fit.*context_length=8.*at most 8"):
        gpt(torch.zeros(1, 9).long())


@pytest.mark.parametrize("position", POSITIONS)
def test_order_matters(position):
    """Swapping two past tokens changes the last logits; without positions, only through the causal mask."""
    torch.manual_seed(1)
    gpt = GPT(GPTConfig(**SIZES, position=position)).eval()
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    one, two = gpt(torch.tensor([[1, 2, 3, 4]])), gpt(torch.tensor([[2, 1, 3, 4]]))
    assert not torch.allclose(one[0, -1], two[0, -1], atol=1e-4)


@pytest.mark.parametrize("position", ["rope", "alibi", "none"])
def test_relative_schemes_see_only_distance(position):
    """The same tokens later in a longer cache-free text, seen through a window, give the same logits."""
    torch.manual_seed(1)
    gpt = GPT(GPTConfig(**{**SIZES, "n_layer": 1}, position=position, window=3)).double().eval()
    ids = torch.randint(11, (1, 9))
    torch.testing.assert_close(gpt(ids)[0, -1], gpt(ids[:, 4:])[0, -1])
