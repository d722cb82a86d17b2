"""A cache changes the work, never the result."""

import pytest
import torch

from minigpt.model.cache import DenseKVCache
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT

SIZES = {"vocab_size": 37, "context_length": 16, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 16}


@pytest.fixture
def config():
    return GPTConfig(**SIZES)


@pytest.fixture
def gpt(config):
    torch.manual_seed(1)
    return GPT(config).eval()


@pytest.mark.parametrize(("window", "short_conv"), [(None, 0), (3, 4)])
@pytest.mark.parametrize("mlp", ["swiglu", "gelu", "relu2"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal", "alibi", "none"])
def test_a_cache_gives_the_logits_of_one_forward_pass(position, norm, mlp, window, short_conv):
    """However a text is cut into chunks, every token sees the same past at the same positions."""
    torch.manual_seed(1)
    config = GPTConfig(**SIZES, position=position, norm=norm, mlp=mlp, window=window, short_conv=short_conv)
    gpt = GPT(config).eval()
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    ids = torch.randint(config.vocab_size, (2, 12))  # (B, T)
    cache = DenseKVCache(config, batch=2, capacity=16)
    chunks = [gpt(ids[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 9), (9, 12)]]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(chunks, dim=1), gpt(ids), atol=1e-4, rtol=1e-4)


def test_length_moves_on_once_per_forward_pass(gpt, config):
    """All layers of one pass begin at the same position; only then is it the next one's turn."""
    seen = []

    class Watched(DenseKVCache):
        def attend(self, layer, q, k, v, **how):
            seen.append((layer, self.length))
            return super().attend(layer, q, k, v, **how)

    cache = Watched(config, batch=1, capacity=16)
    gpt(torch.zeros(1, 3).long(), cache=cache)
    gpt(torch.zeros(1, 1).long(), cache=cache)
    assert seen == [(0, 0), (1, 0), (0, 3), (1, 3)]
    assert cache.length == 4


def test_setting_length_back_forgets(gpt, config):
    """A draft that was not accepted is taken back by one assignment."""
    ids = torch.randint(37, (1, 8))
    cache = DenseKVCache(config, batch=1, capacity=16)
    gpt(ids[:, :5], cache=cache)
    gpt(torch.zeros(1, 3).long(), cache=cache)
    cache.length = 5
    torch.testing.assert_close(gpt(ids[:, 5:], cache=cache), gpt(ids)[:, 5:])


def test_a_full_cache_says_how_full(gpt, config):
    """And a refused pass leaves it as it was."""
    cache = DenseKVCache(config, batch=1, capacity=4)
    gpt(torch.zeros(1, 3).long(), cache=cache)
    with pytest.raises(ValueError, match=r"holds 4 tokens: 3 are stored and 2 more do not fit"):
        gpt(torch.zeros(1, 2).long(), cache=cache)
    assert cache.length == 3


def test_a_cache_knows_no_documents(gpt, config):
    """It stores no document ids, so a mask over what it holds would be a guess; a first chunk is none."""
    cache = DenseKVCache(config, batch=1, capacity=16)
    document = torch.tensor([[0, 0, 1]])
    gpt(torch.zeros(1, 3).long(), cache=cache, document=document)
    with pytest.raises(ValueError, match="3 tokens of unknown documents"):
        gpt(torch.zeros(1, 3).long(), cache=cache, document=document)


def test_fewer_key_heads_make_a_smaller_cache(config):
    """What grouped-query attention is for."""
    full = GPTConfig(**{**SIZES, "n_kv_head": None})
    sizes = [DenseKVCache(c, batch=1, capacity=16).keys.numel() for c in (config, full)]
    assert sizes[1] == 2 * sizes[0]
