"""The model's forward pass once more, in few operations of torch: `model/gpt.py` is its twin.

Generation computes few tokens at a time, and then what takes time is to begin an operation. So here all rows of a
step, of whatever sequences, are one matrix (N, C); q, k and v are one product, gate and up another; and what can be
prepared is prepared when the engine is made. Where a C compiler is found, `compiled.py` does the same in one call; on
a GPU `graphs.py` records `embedded` and `computed`, which read tensors alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from minigpt.engine.company import fewest_rows
from minigpt.engine.config import EngineConfig
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.lanes import Lanes
from minigpt.engine.packed_linear import PackedLinear
from minigpt.engine.paged import Paged
from minigpt.engine.scheduler import Work
from minigpt.model.attention import Attention
from minigpt.model.gpt import GPT, Block
from minigpt.model.mlp import Relu2MLP, SwiGLUMLP
from minigpt.model.norm import RMSNorm
from minigpt.model.positions import Alibi, Learned, NoPosition, Rope, Sinusoidal, angles, frequencies, stretched

Rows = Callable[[Tensor], Tensor]  # (N, some width) -> (N, some width)


class Forward:
    """ids in, logits out, keys and values in lanes, or in a GPU's pages.

    Weights are read when it is made: after training, make anew.
    """

    def __init__(self, model: GPT, config: EngineConfig, pages: int) -> None:
        like = model.final_norm.weight
        if config.cache_dtype != "weights":
            like = like.new_empty(0, dtype=getattr(torch, config.cache_dtype))
        rows = fewest_rows(model, like.dtype) if config.invariant else (1, 1)
        self.invariant = config.invariant and 0 not in rows  # is the promise kept?
        self.rows, of_attention = (max(1, count) for count in rows)  # the fewest that are independent of each other
        self.alibi = model.position_embedding.slopes if isinstance(model.position_embedding, Alibi) else None
        if like.device.type == "cuda" and self.alibi is None:
            self.store = Paged(model.config, pages, config.page, like)
        else:
            self.store = Lanes(model.config, config.max_batch, pages, config.page, like, of_attention)
        self.embedding, self.order = model.token_embedding, ordered(model)
        self.short_conv, self.earlier = model.short_conv, model.config.short_conv
        self.turn = self.order.doubled() if self.order.cos is not None else []
        self.layers = [_Layer(block, self.turn) for block in model.blocks]
        self.norm, self.head = _norm(model.final_norm), stacked(model.lm_head)

    def logits(self, works: Sequence[Work]) -> Tensor:
        """Compute the tokens of `works`; the logits of those that choose the next: (rows that choose, V)."""
        self.store.begin(works, self.alibi)
        ids, wanted = [], []
        for work in works:
            ids += work.ids
            wanted += range(len(ids) - work.choosing, len(ids))
        device, idle, before = self.store.position.device, max(0, self.rows - len(ids)), None
        if n := self.earlier:
            rows = [row for work in works for row in work.earlier(n)] + [[-1] * n] * idle
            before = torch.tensor(rows, device=device)                            # (N + idle, n)
        x = self.embedded(torch.tensor(ids + [0] * idle, device=device), before)
        return self.computed(x, len(ids), wanted)

    def embedded(self, ids: Tensor, before: Tensor | None) -> Tensor:
        """Rows of a step, and idle ones, as vectors: (N + idle,) -> (N + idle, C)

        `before`, for a model with a short convolution: the `earlier` ids before each, nearest first; -1: none.
        """
        x = self.embedding(ids)
        if before is None:
            return x
        known = self.embedding(before.clamp(min=0)) * (before >= 0)[..., None]    # (N + idle, n, C)
        return self.short_conv.rows(x, known)

    def computed(self, x: Tensor, N: int, wanted: Sequence[int]) -> Tensor:
        """N rows of the step that the store has begun -> logits of those `wanted`: (len(wanted), V)"""
        idle = len(x) - N
        position = F.pad(self.store.position, (0, idle)) if idle else self.store.position
        if self.order.start is not None:
            x = x * self.order.scale + self.order.start[position]                 # (N + idle, C)
        turning = [table[position][:, None] for table in self.turn]               # (N + idle, 1, D) each
        for layer, block in enumerate(self.layers):
            x = block(x, turning, N, layer, self.store)
        if not wanted:
            return x.new_empty(0, 1)
        if len(wanted) < N:
            x = x[[*wanted, *[0] * max(0, self.rows - len(wanted))]]
        return self.head(self.norm(x))[: len(wanted)]                             # (len(wanted), V)


class _Layer:
    """One block, its products side by side."""

    def __init__(self, block: Block, turn: list[Tensor]) -> None:
        attention: Attention = block.attention
        self.head_dim, self.turns = attention.head_dim, bool(turn)
        self.attention_norm, self.mlp_norm = _norm(block.attention_norm), _norm(block.mlp_norm)
        self.qkv = stacked(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = stacked(attention.o_proj)
        self.H = attention.q_proj.out_features // self.head_dim
        self.G = attention.k_proj.out_features // self.head_dim
        self.gain = None
        if isinstance(attention.q_norm, RMSNorm):
            gains = attention.q_norm.weight.expand(self.H, -1), attention.k_norm.weight.expand(self.G, -1)
            self.gain, self.eps = torch.cat(gains).detach(), _like(attention.q_norm.eps, gains[0])  # (H + G, D)
        self.mlp = _mlp(block.mlp)

    def __call__(self, x: Tensor, turning: list[Tensor], N: int, layer: int, store: Lanes | Paged) -> Tensor:
        H, G = self.H, self.G
        heads = self.qkv(self.attention_norm(x)).view(x.size(0), -1, self.head_dim)  # (N, H + 2G, D)
        qk = heads[:, : H + G]
        if self.gain is not None:
            qk = normed(qk, self.gain, self.eps)
        if self.turns:
            qk = turned(qk, *turning)
        y = store.attend(layer, qk[:N, :H], qk[:N, H:], heads[:N, H + G :]).reshape(N, -1)
        if x.size(0) > N:
            y = F.pad(y, (0, 0, 0, x.size(0) - N))
        x = x + self.out(y)
        return x.add_(self.mlp(self.mlp_norm(x)))


# --- the parts of a block, as functions of rows -------------------------------------------------------------------


def stacked(*layers: nn.Module) -> Rows:
    """Linear layers that read the same rows, as one: their outputs side by side."""
    if all(type(layer) is nn.Linear for layer in layers):
        weight = torch.cat([layer.weight for layer in layers]).detach() if layers[1:] else layers[0].weight.detach()
        bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers]).detach()
        return lambda x: F.linear(x, weight, bias)
    if len(layers) == 1:
        return layers[0]
    if all(isinstance(layer, IntegerLinear) for layer in layers):
        return IntegerLinear.stacked(list(layers))
    if all(type(layer) is PackedLinear for layer in layers):
        return PackedLinear.stacked(list(layers))
    return lambda x: torch.cat([layer(x) for layer in layers], dim=-1)


def normed(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """kernels.rms_norm in operations that treat a row alike in any company: x / rms(x) · weight; lengths in float32."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=eps.dtype)   # sqrt(C) times the rms
    return (x * torch.add(eps, length.square_(), alpha=1 / x.size(-1)).rsqrt_()).mul_(weight).to(x.dtype)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """kernels.rotary with its angles looked up: (cos, cos) and (-sin, sin) of each row's position."""
    return torch.addcmul(x * cos, x.roll(x.size(-1) // 2, -1), sin)


def _norm(norm: nn.Module) -> Rows:
    if isinstance(norm, RMSNorm):
        weight, eps = norm.weight.detach(), _like(norm.eps, norm.weight)
        return lambda x: normed(x, weight, eps)
    return norm


def _like(number: float, tensor: Tensor) -> Tensor:
    """A number as a tensor, in float32 at least: torch needs twice as long for x + 1e-5 as for x + tensor(1e-5)."""
    return torch.tensor(number, dtype=torch.promote_types(tensor.dtype, torch.float32), device=tensor.device)


def _mlp(mlp: nn.Module) -> Rows:
    down = stacked(mlp.down_proj)
    if isinstance(mlp, SwiGLUMLP):
        both = stacked(mlp.gate_proj, mlp.up_proj)
        return lambda x: down(kernels.swiglu(*both(x).chunk(2, dim=-1)))
    up = stacked(mlp.up_proj)
    if isinstance(mlp, Relu2MLP):
        return lambda x: down(F.relu(up(x)).square_())
    return lambda x: down(kernels.gelu(up(x)))


class Order(NamedTuple):
    """How order enters a model, looked up by position. What a model does not use is none."""

    scale: float           # of embeddings, before
    start: Tensor | None   # (context, C) is added to them
    cos: Tensor | None     # (context, D/2) and
    sin: Tensor | None     # (context, D/2) turn queries and keys

    def doubled(self) -> list[Tensor]:
        """(context, D) each, for `turned`."""
        return [torch.cat((self.cos, self.cos), -1), torch.cat((-self.sin, self.sin), -1)]


def ordered(model: GPT) -> Order:
    scheme, config, like = model.position_embedding, model.config, model.token_embedding.weight
    if isinstance(scheme, Learned):
        return Order(1.0, scheme.weight.detach(), None, None)
    if isinstance(scheme, Sinusoidal):
        nothing = like.new_zeros(1, config.context_length, config.n_embd)
        return Order(scheme.scale, scheme(nothing, 0).x[0], None, None)
    if isinstance(scheme, Rope):
        frequency = stretched(frequencies(scheme.head_dim, scheme.theta, like), scheme.factor)
        angle = angles(0, config.context_length, frequency)                        # (context, D/2)
        return Order(1.0, None, angle.cos().to(like.dtype), angle.sin().to(like.dtype))
    assert isinstance(scheme, Alibi | NoPosition), f"an engine for {type(scheme).__name__} is not written"
    return Order(1.0, None, None, None)
