"""The whole: embedding, blocks, head; and how its weights begin."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kernels import linear_cross_entropy
from minigpt.model.attention import Attention
from minigpt.model.cache import KVCache
from minigpt.model.config import GPTConfig
from minigpt.model.mlp import MLPS
from minigpt.model.norm import NORMS
from minigpt.model.positions import POSITIONS, Turn
from minigpt.model.short_conv import ShortConv


class Block(nn.Module):
    """One layer: look at the others, then think alone. Each adds what it found to the stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.attention_norm = norm(config.n_embd, config.norm_eps, config.bias)
        self.attention = Attention(config, layer)
        self.mlp_norm = norm(config.n_embd, config.norm_eps, config.bias)
        self.mlp = MLPS[config.mlp](config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turn: Turn, how: dict[str, Any], cache: KVCache | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), turn, how, cache))  # (B, T, C)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))                             # (B, T, C)


class GPT(nn.Module):
    """Integers in, logits out.

    How the weights of L layers begin (Radford et al. 2019):

        embeddings, matrices    N(0, 0.02²)
        o_proj, down_proj       N(0, 0.02² / 2L): 2L of them add up in the stream, to the variance of one
        a short convolution     -1 or 1
        norm gains              1
        biases                  0
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.short_conv = ShortConv(config.short_conv, config.n_embd) if config.short_conv else None
        self.position_embedding = POSITIONS[config.position](config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.final_norm = NORMS[config.norm](config.n_embd, config.norm_eps, config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.token_embedding.weight
        self._initialise()

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        document: Tensor | None = None,
    ) -> Tensor:
        """Logits; or, with targets, the loss at each of them, for which logits need not exist.

        Shapes: ids (B, T) of int64; returns logits (B, T, V). With targets (B, T): losses (B, T) in float32,
                0 where the target is -100. document (B, T): tokens see only those of their own document.
        Cache:  positions continue at cache.length, and the new keys and values are stored.
        Raises: ValueError beyond the context of learned positions, beyond the capacity of the cache, and for
                documents beside a cache that already holds tokens, for it does not know theirs.
        """
        start = 0 if cache is None else cache.length
        if document is not None and start:
            raise ValueError(f"the cache holds {start} tokens of unknown documents: give document or a cache")
        x, turn, how = self.position_embedding(self._embedded(ids, cache, document), start)  # (B, T, C)
        how = {**how, "document": document}
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, turn, how, cache)                                              # (B, T, C)
        x = self.final_norm(x)
        if targets is None:
            return self.lm_head(x)                                                      # (B, T, V)
        return linear_cross_entropy(x, self.lm_head.weight, targets, reduction="none")  # (B, T)

    def _embedded(self, ids: Tensor, cache: KVCache | None, document: Tensor | None) -> Tensor:
        """Tokens as vectors: (B, T) -> (B, T, C)."""
        if self.short_conv is None:
            return self.token_embedding(ids)
        T = ids.size(1)
        if cache is not None:
            ids = cache.with_earlier(ids, self.config.short_conv)                       # (B, up to n + T)
        return self.short_conv(self.token_embedding(ids), T, document)

    def _initialise(self) -> None:
        last = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(parameter, std=last)
            elif name == "short_conv.weight":
                nn.init.normal_(parameter)
                parameter.data.sign_()
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


class Undrawn(TorchFunctionMode):
    """No weight is drawn inside: `with Undrawn(): GPT(config)` takes no time, and memory only as weights are loaded."""

    DRAWS = ("normal_", "uniform_", "kaiming_uniform_", "sign_")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def parameter_count(config: GPTConfig) -> int:
    """How many numbers a model of this shape learns."""
    with torch.device("meta"), Undrawn():  # no memory is set aside; and to draw there, torch would import 900 modules
        return sum(parameter.numel() for parameter in GPT(config).parameters())


def check_ids(ids: Tensor, vocab_size: int, source: str) -> None:
    """Refuse token ids that the model has no embedding for: where data enters, not in every forward pass.

    Raises: ValueError naming the first id at fault and its place.
    """
    wrong = (ids < 0) | (ids >= vocab_size)
    if wrong.any():
        place = int(wrong.flatten().nonzero()[0])
        raise ValueError(
            f"{source}: token id {int(ids.flatten()[place])} at place {place} is beyond the vocabulary of "
            f"{vocab_size}: another tokenizer made it. Use the one that belongs to the model."
        )
