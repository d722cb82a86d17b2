"""Who sees whom, written out; and what every attention must satisfy whatever its implementation."""

import pytest
import torch
from torch import Tensor

from kernels import builtin, reference

IMPLEMENTATIONS = {"reference": reference.attention, "builtin": builtin.attention}
BOTH = pytest.mark.parametrize("attention", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS.keys())

MASKS = {
    "causal": ({}, 4, 4, """
        1 0 0 0
        1 1 0 0
        1 1 1 0
        1 1 1 1"""),
    "not causal": ({"causal": False}, 2, 3, """
        1 1 1
        1 1 1"""),
    "after a cached prefix of 2": ({}, 3, 5, """
        1 1 1 0 0
        1 1 1 1 0
        1 1 1 1 1"""),
    "two new tokens after one": ({}, 2, 3, """
        1 1 0
        1 1 1"""),
    "one new token": ({}, 1, 4, """
        1 1 1 1"""),
    "window 2 counts the query itself": ({"window": 2}, 4, 4, """
        1 0 0 0
        1 1 0 0
        0 1 1 0
        0 0 1 1"""),
    "window 1 sees only itself": ({"window": 1}, 3, 3, """
        1 0 0
        0 1 0
        0 0 1"""),
    "window 3 after a cached prefix": ({"window": 3}, 2, 6, """
        0 0 1 1 1 0
        0 0 0 1 1 1"""),
    "window 2 looking both ways": ({"window": 2, "causal": False}, 4, 4, """
        1 1 0 0
        1 1 1 0
        0 1 1 1
        0 0 1 1"""),
    "documents of 2, 1 and 2 tokens": ({"document": [7, 7, 3, 5, 5]}, 5, 5, """
        1 0 0 0 0
        1 1 0 0 0
        0 0 1 0 0
        0 0 0 1 0
        0 0 0 1 1"""),
    "documents, a window, and a cached prefix": ({"document": [0, 0, 0, 1, 1, 1], "window": 2}, 4, 6, """
        0 1 1 0 0 0
        0 0 0 1 0 0
        0 0 0 1 1 0
        0 0 0 0 1 1"""),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", MASKS)
def test_what_is_visible(attention, name):
    """With the identity as values, the output is the attention weights: zero exactly where the mask is."""
    how, T, S, drawn = MASKS[name]
    how = dict(how)
    expected = torch.tensor([[int(cell) for cell in row.split()] for row in drawn.strip().split("\n")])
    document = torch.tensor([how.pop("document")]) if "document" in how else None
    torch.manual_seed(1)
    q, k = torch.randn(1, 2, T, S), torch.randn(1, 2, S, S)
    weights = attention(q, k, torch.eye(S).expand(1, 2, S, S), document=document, **how)  # (1, H, T, S)
    assert torch.equal((weights[0] > 0).long(), expected.expand(2, T, S))
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, T))


@BOTH
def test_alibi_by_hand(attention):
    """Equal keys leave the distance alone: weights are softmax(0, -m, -2m, ...) backwards."""
    q, k, slope = torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 3, 3), 0.5
    weights = attention(q, k, torch.eye(3)[None, None], alibi=torch.tensor([slope]))
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([-2 * slope, -slope, 0.0]).softmax(0))


@BOTH
def test_alibi_looks_both_ways_where_nothing_is_hidden(attention):
    """Without causality the distance counts, not its sign: the middle query sees -m, 0, -m."""
    q, k, slope = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), 0.5
    weights = attention(q, k, torch.eye(3)[None, None], causal=False, alibi=torch.tensor([slope]))
    torch.testing.assert_close(weights[0, 0, 1], torch.tensor([-slope, 0.0, -slope]).softmax(0))


@BOTH
def test_key_heads_serve_neighbouring_query_heads(attention):
    """Query heads 0, 1 read key head 0, heads 2, 3 key head 1: the order that Llama's weights expect."""
    torch.manual_seed(1)
    q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    y = attention(q, k, v)
    for head in range(4):
        alone = attention(q[:, [head]], k[:, [head // 2]], v[:, [head // 2]])
        torch.testing.assert_close(y[:, [head]], alone)


@BOTH
def test_two_halves_of_the_keys_add_up(attention):
    """softmax over all keys = the halves' results weighted by exp(lse): what split decoding will rest on."""
    torch.manual_seed(1)
    q, k, v = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 10, 4), torch.randn(2, 3, 10, 4)
    (y1, lse1), (y2, lse2) = (
        attention(q, k[:, :, half], v[:, :, half], return_lse=True) for half in (slice(0, 4), slice(4, 10))
    )
    share = torch.sigmoid(lse1 - lse2)[..., None]
    torch.testing.assert_close(share * y1 + (1 - share) * y2, attention(q, k, v))


@BOTH
def test_dropout_drops_its_share_and_keeps_the_mean(attention):
    """Zeroed weights are made up for by the others, so that training and sampling see the same size."""
    torch.manual_seed(1)
    q = k = torch.zeros(64, 4, 8, 8)
    weights = attention(q, k, torch.eye(8).expand(64, 4, 8, 8), causal=False, dropout=0.25)  # from 1/8 each
    assert abs((weights == 0).float().mean() - 0.25) < 0.02
    assert abs(weights.sum(-1).mean() - 1) < 0.02


@BOTH
@pytest.mark.parametrize(
    "shapes, how, message",
    [
        (((1, 3, 2, 4), (1, 2, 2, 4)), {}, "H=3, G=2"),
        (((1, 2, 5, 4), (1, 2, 4, 4)), {}, "T=5, S=4"),
        (((1, 2, 2, 4), (1, 2, 2, 4)), {"window": 0}, "window=0"),
    ],
)
def test_impossible_shapes_are_refused_with_their_numbers(attention, shapes, how, message):
    """Each would otherwise give numbers that look like an answer."""
    q, k = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        attention(q, k, k, **how)


def test_attention_depends_on_relative_position_under_rotary():
    """Shifting all positions alike changes no score: that is the point of turning instead of adding."""
    torch.manual_seed(1)
    q, k = torch.randn(1, 1, 6, 8, dtype=torch.float64), torch.randn(1, 1, 6, 8, dtype=torch.float64)

    def scores(start: int) -> Tensor:
        angle = torch.arange(start, start + 6, dtype=torch.float64)[:, None] * 0.3 ** torch.arange(4)
        turned = [builtin.rotary(x, angle.cos(), angle.sin()) for x in (q, k)]
        return turned[0] @ turned[1].mT

    torch.testing.assert_close(scores(0), scores(1000))
