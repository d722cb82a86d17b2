"""How does the model know the order of its tokens? Five answers, one signature.

Attention alone sees a set, not a sequence. A scheme gets the embeddings and the position of the first token
and answers for all three places where order can enter; each uses one of them and leaves the others alone.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import kernels
from minigpt.model.config import GPTConfig
from minigpt.model.norm import RMSNorm

Turn = Callable[[Tensor, nn.Module], Tensor]


class Placed(NamedTuple):
    """What a position scheme hands to the blocks."""

    x: Tensor            # (B, T, C) embeddings; learned and sinusoidal have added positions
    turn: Turn           # what every layer does to its q and k (B, heads, T, D): norm them; RoPE also turns them
    how: dict[str, Any]  # what every layer tells `attention`; ALiBi's slopes


def unturned(heads: Tensor, norm: nn.Module) -> Tensor:
    return norm(heads)


class NoPosition(nn.Module):
    """Tell nothing: with a causal mask alone a model can learn to count (Haviv et al. 2022)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor, start: int) -> Placed:
        return Placed(x, unturned, {})


class Learned(nn.Module):
    """One learned vector per position, added to the embeddings (GPT-2). Beyond the context there is none."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.context_length, config.n_embd))

    def forward(self, x: Tensor, start: int) -> Placed:
        end, longest = start + x.size(1), self.weight.size(0)
        if end > longest:
            raise ValueError(
                f"{end} tokens do not fit: learned positions end at context_length={longest}. Give at most "
                f"{longest} tokens, or train with another position: rope, alibi, sinusoidal or none."
            )
        return Placed(x + self.weight[start:end], unturned, {})  # (B, T, C) + (T, C)


class Sinusoidal(nn.Module):
    """Clock hands of many speeds, added to the embeddings (Vaswani et al. 2017, section 3.5).

        p[2i] = sin(position / 10000^(2i/C)),  p[2i+1] = cos(the same)

    Embeddings are first scaled by sqrt(C) (section 3.4): they begin at 0.02 and the hands have length 1, so
    a token would drown in its own position.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.n_embd)

    def forward(self, x: Tensor, start: int) -> Placed:
        T, C = x.shape[1:]
        angle = angles(start, T, frequencies(C, 10000.0, x))                    # (T, C/2)
        hands = torch.stack((angle.sin(), angle.cos()), dim=-1).view(T, C)
        return Placed(x * self.scale + hands.to(x.dtype), unturned, {})         # (B, T, C) + (T, C)


class Rope(nn.Module):
    """Turn each pair of channels of q and k by its position; scores then see distance (Su et al. 2021)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.head_dim, self.theta, self.factor = config.dims_per_head, config.rope_theta, config.rope_factor

    def forward(self, x: Tensor, start: int) -> Placed:
        # Computed anew in each forward pass, once for all layers: no table to outgrow, to move or to save.
        frequency = stretched(frequencies(self.head_dim, self.theta, x), self.factor)  # (D/2,)
        angle = angles(start, x.size(1), frequency)                                    # (T, D/2)
        cos, sin = angle.cos(), angle.sin()

        def turn(heads: Tensor, norm: nn.Module) -> Tensor:
            if isinstance(norm, RMSNorm):  # both in one pass over the heads
                return kernels.rms_norm_rotary(heads, norm.weight, norm.eps, cos, sin)
            return kernels.rotary(norm(heads), cos, sin)

        return Placed(x, turn, {})


class Alibi(nn.Module):
    """Subtract distance times a slope from the scores, one slope per head (Press et al. 2022)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        slopes = torch.tensor(alibi_slopes(config.n_head))           # (H,)
        self.register_buffer("slopes", slopes, persistent=False)     # follows the model, but is no weight

    def forward(self, x: Tensor, start: int) -> Placed:
        return Placed(x, unturned, {"alibi": self.slopes})


POSITIONS = {"rope": Rope, "learned": Learned, "sinusoidal": Sinusoidal, "alibi": Alibi, "none": NoPosition}


def frequencies(width: int, theta: float, like: Tensor) -> Tensor:
    """theta^(-2i/width): (width/2,), in float32, or float64 if `like` is. Half precision cannot count far."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return theta ** -(torch.arange(0, width, 2, device=like.device, dtype=dtype) / width)


def angles(start: int, T: int, frequency: Tensor) -> Tensor:
    """Of T positions from `start` on: (T, len(frequency))."""
    position = torch.arange(start, start + T, device=frequency.device, dtype=frequency.dtype)
    return position[:, None] * frequency


def stretched(frequency: Tensor, factor: float) -> Tensor:
    """Llama 3's way to a longer context: slow turns become `factor` times slower, fast ones stay.

    Slow: less than one full turn in 8192 tokens, the context it was first trained on. Fast: more than four.
    Between them the two blend linearly in the number of turns.

    Source: Meta's llama-models, `apply_scaling`; the constants are the same in Llama 3.1, 3.2 and 3.3.
    """
    if factor == 1.0:
        return frequency
    turns = 8192 * frequency / (2 * math.pi)
    fast = ((turns - 1) / (4 - 1)).clamp(0, 1)  # 0: slow, 1: fast
    return frequency * fast + frequency / factor * (1 - fast)


def alibi_slopes(n_head: int) -> list[float]:
    """2^(-8/H), 2^(-16/H), ... for a power of two; else filled up from twice as many heads, every second."""
    power = 1 << (n_head.bit_length() - 1)  # the largest power of two that is not above n_head
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    if n_head > power:
        slopes += alibi_slopes(2 * power)[::2][: n_head - power]
    return slopes
