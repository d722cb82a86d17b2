"""Every number and every choice that makes one GPT differ from another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "mlp_width",
         "window")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The shape of a model. Flags stay as typed; the properties below answer what `none` stands for.

    The defaults are Hugging Face's `qwen3` in small: RMSNorm, RoPE, QK-norm, SwiGLU, no biases.
    """

    vocab_size: int = 4096  # tokens in the vocabulary, special ones included
    context_length: int = 256  # tokens of a training sequence: the farthest the model learns to look back
    n_layer: int = 6  # blocks, one after the other
    n_head: int = 4  # query heads per block
    n_kv_head: int | None = None  # key/value heads; fewer shrink the cache; none: as many as query heads
    head_dim: int | None = None  # channels per head; none: n_embd / n_head
    n_embd: int = 256  # channels of the stream that runs through all blocks
    mlp_width: int | None = None  # channels inside the MLP; none: 4 n_embd, for swiglu about 8/3 n_embd
    position: Literal["rope", "learned", "sinusoidal", "alibi", "none"] = "rope"  # how order enters
    short_conv: int = 0  # tokens before each one that join its embedding, by a causal convolution; 0: none
    norm: Literal["rms", "layer"] = "rms"  # normalisation before attention, MLP and head
    mlp: Literal["swiglu", "gelu", "relu2"] = "swiglu"  # activation inside the MLP
    qk_norm: bool = True  # normalise queries and keys per head, so that scores cannot blow up
    window: int | None = None  # tokens a query sees, itself included; none: all before it
    dropout: float = 0.0  # share of embeddings, attention weights and block outputs zeroed in training
    tied: bool = True  # the head reuses the token embedding
    bias: bool = False  # biases in the linear layers and in LayerNorm
    rope_theta: float = 10000.0  # rope: larger turns slower, for longer contexts
    rope_factor: float = 1.0  # rope: slow turns stretched as in Llama 3.1 (8) and 3.2 (32); 1: not at all
    norm_eps: float = 1e-5  # added to a norm's variance before its root

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.short_conv < 0:
            raise ValueError(f"short_conv={self.short_conv} is a number of tokens: choose 0 (none) or more")
        self._check_heads()
        self._check_positions()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is a share: choose 0 <= dropout < 1")
        if not 0 < self.norm_eps < 1:
            raise ValueError(f"norm_eps={self.norm_eps} keeps a root away from 0: choose a number like 1e-5")

    def _check_heads(self) -> None:
        if self.head_dim is None and self.n_embd % self.n_head:
            heads = [h for h in range(1, self.n_embd + 1) if self.n_embd % h == 0]
            raise ValueError(
                f"n_head={self.n_head} does not divide n_embd={self.n_embd}: every head gets the same number "
                f"of channels. Choose n_head {_nearest(self.n_head, heads)}, or n_embd "
                f"{_nearest(self.n_embd, self._widths(self.n_head))}, or set head_dim."
            )
        if self.n_head % self.kv_heads:
            fitting = [str(g) for g in range(1, self.n_head + 1) if self.n_head % g == 0]
            raise ValueError(
                f"n_kv_head={self.n_kv_head} cannot serve n_head={self.n_head}: every key head serves the "
                f"same number of query heads. Choose one of {', '.join(fitting)}."
            )

    def _check_positions(self) -> None:
        if self.position == "rope" and self.dims_per_head % 2:
            width = f"n_embd {_nearest(self.n_embd, self._widths(2 * self.n_head))}"
            raise ValueError(
                f"rope turns channels in pairs, and a head has {self.dims_per_head}. Choose "
                + ("an even head_dim." if self.head_dim else f"{width}, or an even head_dim.")
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            raise ValueError(f"sinusoidal needs pairs of sine and cosine: n_embd={self.n_embd} is odd")
        if self.rope_theta <= 1:
            raise ValueError(f"rope_theta={self.rope_theta} must be above 1; 10000 is usual")
        if self.rope_factor < 1:
            raise ValueError(f"rope_factor={self.rope_factor} stretches: choose 1 (not at all) or more")

    def _widths(self, unit: int) -> range:
        """Multiples of `unit` on both sides of n_embd."""
        return range(unit, self.n_embd + 2 * unit, unit)

    @property
    def kv_heads(self) -> int:
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def dims_per_head(self) -> int:
        return self.n_embd // self.n_head if self.head_dim is None else self.head_dim

    @property
    def hidden(self) -> int:
        """Width of the MLP. SwiGLU has three matrices, others two: 8/3 for 4 keeps the number of weights."""
        if self.mlp_width is not None:
            return self.mlp_width
        if self.mlp == "swiglu":
            return -(-8 * self.n_embd // 3 // 64) * 64  # rounded up to a multiple of 64, as matmuls like it
        return 4 * self.n_embd


def _nearest(value: int, fitting: Sequence[int]) -> str:
    """The closest fitting value on each side: `6 or 8`."""
    below = [f for f in fitting if f < value][-1:]
    above = [f for f in fitting if f > value][:1]
    return " or ".join(map(str, below + above))
