"""How does the model know the order of its tokens? Five answers, one signature.

Attention alone sees a set, not a sequence. A scheme gets the embeddings and the position of the first token, and
answers with all three places where order can enter; most use one and leave the others as they are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import kernels
from minigpt.model.config import GPTConfig

Turn = Callable[[Tensor], Tensor]


class Placed(NamedTuple):
    """What a position scheme hands to the blocks."""

    x: Tensor            # (B, T, C) embeddings; learned and sinusoidal have added positions
    turn: Turn           # what every layer does to its q and k; RoPE turns them
    how: dict[str, Any]  # what every layer tells `attention`; ALiBi's slopes


def unturned(x: Tensor) -> Tensor:
    return x


class NoPosition(nn.Module):
    """Tell nothing: the causal mask alone lets a model count (Haviv et al. 2022)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, start: int) -> Placed:
        return Placed(x, unturned, {})


class Learned(nn.Module):
    """One learned vector per position, added to the embeddings (GPT-2). There is no vector beyond the context."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.context_length, config.n_embd))

    def forward(self, x: Tensor, start: int) -> Placed:
        end, longest = start + x.size(1), self.weight.size(0)
        if end > longest:
            raise ValueError(
                f"{end} tokens do not fit: learned positions end at context_length={longest}. "
                f"Give at most {longest} tokens, or train with position=rope, alibi, sinusoidal or none."
            )
        return Placed(x + self.weight[start:end].to(x.dtype), unturned, {})  # (B, T, C) + (T, C)


class Sinusoidal(nn.Module):
    """Clock hands of many speeds, added to the embeddings (Vaswani et al. 2017, section 3.5).

        p[2i] = sin(position / 10000^(2i/C)),  p[2i+1] = cos(the same)

    Embeddings are first scaled by sqrt(C) (section 3.4): ours begin at 0.02, the hands at 1, and a token would
    drown in its own position.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.n_embd)

    def forward(self, x: Tensor, start: int) -> Placed:
        T, C = x.shape[1:]
        angle = angles(torch.arange(start, start + T, device=x.device), frequencies(C, 10000.0, x))  # (T, C/2)
        hands = torch.stack((angle.sin(), angle.cos()), dim=-1).view(T, C)
        return Placed(x * self.scale + hands.to(x.dtype), unturned, {})  # (B, T, C) + (T, C)


class Rope(nn.Module):
    """Turn each pair of channels of q and k by its position: scores then depend on distance (Su et al. 2021)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.head_dim, self.theta, self.factor = config.dims_per_head, config.rope_theta, config.rope_factor

    def forward(self, x: Tensor, start: int) -> Placed:
        # Computed anew for every forward pass, once for all layers: cheaper than it looks, exact in float64, and
        # no table to outgrow.
        frequency = frequencies(self.head_dim, self.theta, x)                               # (D/2,)
        if self.factor != 1.0:
            frequency = stretched(frequency, self.factor)
        angle = angles(torch.arange(start, start + x.size(1), device=x.device), frequency)  # (T, D/2)
        cos, sin = angle.cos(), angle.sin()
        return Placed(x, lambda heads: kernels.rotary(heads, cos, sin), {})


class Alibi(nn.Module):
    """Subtract distance times a slope from the scores, one slope per head (Press et al. 2022)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(alibi_slopes(config.n_head)), persistent=False)  # (H,)

    def forward(self, x: Tensor, start: int) -> Placed:
        return Placed(x, unturned, {"alibi": self.slopes})


POSITIONS = {"rope": Rope, "learned": Learned, "sinusoidal": Sinusoidal, "alibi": Alibi, "none": NoPosition}


def frequencies(width: int, theta: float, like: Tensor) -> Tensor:
    """theta^(-2i/width) for i < width/2: (width/2,) in float32, float64 if `like` is."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return theta ** -(torch.arange(0, width, 2, device=like.device, dtype=dtype) / width)


def angles(position: Tensor, frequency: Tensor) -> Tensor:
    """position (T,), frequency (D/2,) -> (T, D/2)."""
    return position.to(frequency.dtype)[:, None] * frequency


def stretched(frequency: Tensor, factor: float) -> Tensor:
    """Llama 3's way to a longer context: slow turns become `factor` times slower, fast ones stay.

    "Slow" is a full turn in more than 8192 tokens (the context it was first trained on), "fast" one in less than a
    quarter of that; between them the two blend linearly in turns per 8192 tokens.
    Source: Meta's llama-models, `apply_scaling`; the three constants are the same in Llama 3.1, 3.2 and 3.3.
    """
    turns = 8192 * frequency / (2 * math.pi)       # full turns in the original context
    fast = ((turns - 1) / (4 - 1)).clamp(0, 1)     # 0: slow, 1: fast
    return frequency * fast + frequency / factor * (1 - fast)


def alibi_slopes(n_head: int) -> list[float]:
    """2^(-8/H), 2^(-16/H), ... for a power of two; else filled up with every second slope of twice as many heads."""
    power = 1 << (n_head.bit_length() - 1)  # the largest power of two that is not above n_head
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    if n_head > power:
        slopes += alibi_slopes(2 * power)[::2][: n_head - power]
    return slopes
