"""Leave out what matters least: single weights, or whole heads and channels.

    magnitude   score |W|                  small weights do little
    wanda       score |W| · ‖x‖            ... unless what they are multiplied with is large (Sun et al. 2023)
    2:4         of four neighbours two, by magnitude: GPUs of NVIDIA multiply this pattern faster, a CPU does not
    structured  heads, and channels of the MLP, by the sum of their scores: smaller matrices, faster everywhere

The first three leave zeros in matrices of the same size: they cost as many bytes and as much time as before, and are
here to be compared. Scores are compared within a row, so each output keeps as many inputs. At this house's size Wanda
and magnitude are nearly one (a model of 1.3M weights, 50 %: +0.0264 and +0.0276 bits per byte): Wanda's advantage are
channels that are far larger than others, and small models have none.

Only matrices in the blocks are pruned, not the embedding or the head.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from minigpt.batches.loader import Batch
from minigpt.compress.inputs import input_sums, squares
from minigpt.compress.quantize import linear_layers
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, Undrawn
from minigpt.model.hf_config import plain

How = Literal["magnitude", "wanda", "2:4"]
Masks = dict[str, Tensor]  # name of a weight -> which of it stay (N, K), bool
WIDTH = 32                 # MLP channels come in multiples of so many: groups of four-bit weights, and vector units


# --- single weights -----------------------------------------------------------------------------------------------


@torch.no_grad()
def weight_masks(model: GPT, how: How, share: float, batches: Iterable[Batch]) -> Masks:
    """Which weights stay when `share` of each row goes. `batches`: text to measure inputs on, for wanda."""
    layers = _block_layers(model)
    sums = input_sums(model, layers, batches, squares) if how == "wanda" else {}
    masks = {}
    for name, layer in layers.items():
        score = layer.weight.abs() * (sums[name].sqrt().float() if how == "wanda" else 1.0)  # (N, K)
        masks[f"{name}.weight"] = two_of_four(score) if how == "2:4" else largest(score, share)
    return masks


def largest(score: Tensor, share: float) -> Tensor:
    """True but for the lowest `share` of each row: (N, K)"""
    lowest = score.argsort(dim=1, stable=True)[:, : round(share * score.size(1))]
    return torch.ones_like(score, dtype=torch.bool).scatter_(1, lowest, False)


def two_of_four(score: Tensor) -> Tensor:
    """True for the two largest of four neighbours: (N, K). Numbers beyond the last whole four stay."""
    whole = score.size(1) // 4 * 4
    keep = torch.ones_like(score, dtype=torch.bool)
    fours = score[:, :whole].unflatten(1, (-1, 4))                        # (N, K/4, 4)
    low = fours.argsort(dim=-1, stable=True)[..., :2]
    keep[:, :whole] = torch.ones_like(fours, dtype=torch.bool).scatter_(-1, low, False).flatten(1)
    return keep


@torch.no_grad()
def apply_masks(model: GPT, masks: Masks) -> None:
    """Set to zero, in place, what does not stay."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def _block_layers(model: GPT) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in linear_layers(model).items() if name != "lm_head"}


# --- whole heads and channels -------------------------------------------------------------------------------------


@torch.no_grad()
def prune_structure(model: GPT, share: float, batches: Iterable[Batch]) -> GPT:
    """A smaller GPT without `share` of the heads and of the MLP's channels: the nearest shape that all layers can have.

    Each layer keeps its own best. What a head or channel is worth: how much the matrix behind it takes from it,
    Σ |W| · ‖x‖ over its columns of o_proj or down_proj. Query heads go so that every key/value head goes on serving
    the same number: whole groups, or as many heads out of each group. ALiBi's heads stay: a head's slope is its number.
    """
    worth = _column_worth(model, batches)
    config = model.config
    groups, each = best_heads([worth[f"blocks.{i}.attention.o_proj"] for i in range(config.n_layer)], config, share)
    width = max(WIDTH, round((1 - share) * config.hidden / WIDTH) * WIDTH)
    width = min(width, config.hidden)
    smaller = replace(config, n_head=groups * each, n_kv_head=groups, head_dim=config.dims_per_head, mlp_width=width)
    state = model.state_dict()
    for i in range(config.n_layer):
        _cut_block(state, f"blocks.{i}", worth, config, (groups, each, width))
    with Undrawn():
        pruned = GPT(plain(smaller))
    pruned.load_state_dict(state)
    return pruned.eval()


def _column_worth(model: GPT, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """What the layers behind heads and channels take from each of their inputs: name -> (K,)"""
    behind = {name: x for name, x in _block_layers(model).items() if name.endswith(("o_proj", "down_proj"))}
    sums = input_sums(model, behind, batches, squares)
    return {name: layer.weight.abs().sum(0) * sums[name].sqrt().float() for name, layer in behind.items()}


def best_heads(worth: list[Tensor], config: GPTConfig, share: float) -> tuple[int, int]:
    """(key/value heads, query heads of each) that stay: nearest in number to what was asked, then worth the most.

    worth: of each layer's channels, (H · D,).
    """
    H, G = config.n_head, config.kv_heads
    if config.position == "alibi":
        return G, H // G
    shapes = [(g, p) for g in range(1, G + 1) for p in range(1, H // G + 1)]
    wanted = (1 - share) * H

    def kept(shape: tuple[int, int]) -> float:
        return sum(float(heads.flatten()[kept_heads(heads, *shape).flatten()].sum()) for heads in
                   (_per_head(x, config) for x in worth))  # fmt: skip

    return min(shapes, key=lambda shape: (abs(shape[0] * shape[1] - wanted), -shape[0] * shape[1], -kept(shape)))


def _per_head(worth: Tensor, config: GPTConfig) -> Tensor:
    """(H · D,) -> (G, H/G)"""
    return worth.view(config.kv_heads, -1, config.dims_per_head).sum(-1)


def kept_heads(heads: Tensor, groups: int, each: int) -> Tensor:
    """The numbers of the query heads that stay: of each group of heads (G, H/G) the best `each`, of groups the best.

    Returns (groups, each), in their old order.
    """
    best = heads.topk(each, dim=1).indices.sort(dim=1).values             # (G, each)
    groups_kept = heads.gather(1, best).sum(1).topk(groups).indices.sort().values
    return best[groups_kept] + groups_kept[:, None] * heads.size(1)


def _cut_block(
    state: dict[str, Tensor], block: str, worth: dict[str, Tensor], config: GPTConfig, shape: tuple[int, int, int]
) -> None:
    """Take rows and columns out of one block's matrices."""
    groups, each, width = shape
    D = config.dims_per_head
    heads = kept_heads(_per_head(worth[f"{block}.attention.o_proj"], config), groups, each)
    served = heads[:, 0] // (config.n_head // config.kv_heads)            # key/value heads that stay
    q, kv = _channels(heads.flatten(), D), _channels(served, D)
    mlp = worth[f"{block}.mlp.down_proj"].topk(width).indices.sort().values
    rows = {"attention.q_proj": q, "attention.k_proj": kv, "attention.v_proj": kv, "mlp.up_proj": mlp,
            "mlp.gate_proj": mlp}  # fmt: skip
    for name, kept in rows.items():
        for kind in ("weight", "bias"):
            if f"{block}.{name}.{kind}" in state:
                state[f"{block}.{name}.{kind}"] = state[f"{block}.{name}.{kind}"][kept]
    for name, kept in {"attention.o_proj": q, "mlp.down_proj": mlp}.items():
        state[f"{block}.{name}.weight"] = state[f"{block}.{name}.weight"][:, kept]


def _channels(heads: Tensor, D: int) -> Tensor:
    """Heads (n,) -> their channels (n · D,)"""
    return (heads[:, None] * D + torch.arange(D)).flatten()
