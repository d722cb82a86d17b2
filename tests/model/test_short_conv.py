"""A short convolution is its sum, token by token."""

import pytest
import torch

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.short_conv import ShortConv

B, T, C, N = 2, 7, 5, 3


@pytest.fixture
def conv():
    torch.manual_seed(1)
    conv = ShortConv(N, C)
    torch.nn.init.normal_(conv.weight)
    return conv


def term_by_term(e, weight, document):
    """y_t = e_t + Σ_j w_j ⊙ e_{t-j}, over those tokens that there are and that are of the same document."""
    y = e.clone()
    for b in range(B):
        for t in range(T):
            for j in range(1, min(N, t) + 1):
                if document[b, t - j] == document[b, t]:
                    y[b, t] += weight[j - 1] * e[b, t - j]
    return y


@pytest.mark.parametrize("documents", [[[0] * 7, [0] * 7], [[4, 4, 4, 2, 2, 2, 2], [0, 1, 2, 2, 2, 2, 0]]])
def test_it_is_the_sum_that_it_says(conv, documents):
    """Nothing before a text, nothing of another document, also where one is cut in two."""
    e, document = torch.randn(B, T, C), torch.tensor(documents)
    expected = term_by_term(e, conv.weight, document)
    torch.testing.assert_close(conv(e, T, document), expected)
    if not document.any():
        torch.testing.assert_close(conv(e, T), expected)


@pytest.mark.parametrize("known", range(T))
def test_what_came_before_may_be_given(conv, known):
    """As a cache does, which hands over the last N tokens, or all that there are."""
    e = torch.randn(B, T, C)
    torch.testing.assert_close(conv(e[:, max(0, known - N) :], T - known), conv(e, T)[:, known:])


def test_single_rows_are_as_in_a_sequence(conv):
    e = torch.randn(1, T, C)
    padded = torch.cat((torch.zeros(1, N, C), e), 1)
    before = torch.stack([padded[0, t : t + N].flip(0) for t in range(T)])  # (T, N, C), the nearest first
    torch.testing.assert_close(conv.rows(e[0], before), conv(e, T)[0])


def test_it_begins_with_signs_that_tell_distances_apart():
    """Weights near 0 must first grow, and the circuits that need them wait meanwhile."""
    torch.manual_seed(1)
    weight = GPT(GPTConfig(short_conv=4, n_embd=256)).short_conv.weight
    assert weight.shape == (4, 256)
    assert set(weight.unique().tolist()) == {-1.0, 1.0}
    assert torch.corrcoef(weight).fill_diagonal_(0).abs().max() < 0.25


def test_a_negative_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="short_conv=-1 is a number of tokens"):
        GPTConfig(short_conv=-1)
