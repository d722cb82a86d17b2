"""A cache changes the work, never the result."""

import pytest
import torch

from minigpt.model.cache import DenseKVCache
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT

SIZES = {"vocab_size": 37, "context_length": 16, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 16}


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("mlp", ["swiglu", "gelu", "relu2"])
@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal", "alibi", "none"])
def test_a_cache_gives_the_logits_of_one_forward_pass(position, norm, mlp, window):
    """However a text is cut into chunks, every token sees the same past at the same positions."""
    torch.manual_seed(1)
    config = GPTConfig(**SIZES, position=position, norm=norm, mlp=mlp, window=window)
    gpt = GPT(config).eval()
    ids = torch.randint(config.vocab_size, (2, 12))  # (B, T)
    cache = DenseKVCache(config, batch=2, capacity=16)
    chunks = [gpt(ids[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 9), (9, 12)]]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(chunks, dim=1), gpt(ids))
