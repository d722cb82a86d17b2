"""How does a token look at the tokens before it?"""

from typing import Any

from torch import Tensor, nn

from kernels import attention
from minigpt.model.cache import KVCache
from minigpt.model.config import GPTConfig
from minigpt.model.norm import RMSNorm
from minigpt.model.positions import Turn


class Attention(nn.Module):
    """Multi-head attention in which G key/value heads serve H query heads (G = H: plain multi-head)."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        C, D, H, G = config.n_embd, config.dims_per_head, config.n_head, config.kv_heads
        self.q_proj = nn.Linear(C, H * D, bias=config.bias)
        self.k_proj = nn.Linear(C, G * D, bias=config.bias)
        self.v_proj = nn.Linear(C, G * D, bias=config.bias)
        self.o_proj = nn.Linear(H * D, C, bias=config.bias)
        self.q_norm = RMSNorm(D, config.norm_eps, bias=False) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(D, config.norm_eps, bias=False) if config.qk_norm else nn.Identity()
        self.layer, self.head_dim, self.window, self.dropout = layer, D, config.window, config.dropout

    def forward(self, x: Tensor, turn: Turn, how: dict[str, Any], cache: KVCache | None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, H, T, D)
        k = self.k_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, G, T, D)
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, G, T, D)
        q, k = turn(q, self.q_norm), turn(k, self.k_norm)
        how = {**how, "window": self.window, "dropout": self.dropout if self.training else 0.0}
        y = attention(q, k, v, **how) if cache is None else cache.attend(self.layer, q, k, v, **how)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))           # (B, T, C)
