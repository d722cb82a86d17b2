"""What does a token do with what it saw? Widen, bend, narrow. Three bends, one signature."""

import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from minigpt.model.config import GPTConfig


class GeluMLP(nn.Module):
    """GPT-2's: Gelu in its tanh form, which is what GPT-2 was trained with."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.n_embd, config.hidden, bias=config.bias)
        self.down_proj = nn.Linear(config.hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x), approximate="tanh"))  # (B, T, C) -> (B, T, F) -> (B, T, C)


class Relu2MLP(GeluMLP):
    """Squared ReLU: cheap, sparse, and found by search to train faster (So et al. 2021, "Primer")."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x)).square())


class SwiGLUMLP(GeluMLP):
    """A second matrix decides, per channel, how much of the first passes (Shazeer 2020)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.gate_proj = nn.Linear(config.n_embd, config.hidden, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(kernels.swiglu(self.gate_proj(x), self.up_proj(x)))


MLPS = {"gelu": GeluMLP, "relu2": Relu2MLP, "swiglu": SwiGLUMLP}
