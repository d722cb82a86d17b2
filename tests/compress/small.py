"""Small models and batches for the tests of this room."""

import torch

from minigpt.batches.loader import Batch
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT

SHAPE = {"vocab_size": 96, "context_length": 32, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 64,
         "mlp_width": 96}  # fmt: skip
KINDS = {
    "qwen3": {},
    "llama, untied": {"qk_norm": False, "tied": False},
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "qk_norm": False, "n_kv_head": None, "bias": True},
    "own": {"position": "alibi", "mlp": "relu2", "bias": True, "qk_norm": False, "tied": False, "short_conv": 2},
}


def small_gpt(seed=1, **other):
    """A model with something in every weight, also where norms begin at 1 and biases at 0."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**SHAPE, **other})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def some_batches(count=2, vocab_size=96, seed=2):
    stream = torch.Generator().manual_seed(seed)
    rows = [torch.randint(vocab_size, (4, 33), generator=stream) for _ in range(count)]
    return [Batch(row[:, :-1], row[:, 1:], None) for row in rows]
