"""What does a token do with what it saw? Widen, bend, narrow. Three bends, one signature."""

import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from minigpt.model.config import GPTConfig


class GeluMLP(nn.Module):
    """GPT-2's."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.n_embd, config.hidden, bias=config.bias)
        self.down_proj = nn.Linear(config.hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(kernels.gelu(self.up_proj(x)))     # (B, T, C) -> (B, T, F) -> (B, T, C)


class Relu2MLP(GeluMLP):
    """Squared ReLU: cheap, mostly zeros, and found by a search to train faster (So et al. 2021, "Primer")."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x)).square())  # (B, T, C) -> (B, T, F) -> (B, T, C)


class SwiGLUMLP(GeluMLP):
    """A second matrix decides, channel by channel, how much of the first passes (Shazeer 2020)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.gate_proj = nn.Linear(config.n_embd, config.hidden, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)             # (B, T, F) each
        return self.down_proj(kernels.swiglu(gate, up))           # (B, T, C)


MLPS = {"gelu": GeluMLP, "relu2": Relu2MLP, "swiglu": SwiGLUMLP}
