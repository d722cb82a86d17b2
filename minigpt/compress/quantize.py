"""A GPT whose matrices are integers.

What stays float: gains, biases, learned positions; they are few. The token embedding is a matrix like the others: a
row is turned into floats when it is looked up. Where the head is tied to it, both are ONE integer matrix.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.quantization import dequantized
from minigpt.compress.grid import Grid, fitting, nearest, scales, stored
from minigpt.engine.integer_embedding import IntegerEmbedding, Table
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.packed_linear import PackedLinear
from minigpt.model.cache import KVCache
from minigpt.model.gpt import GPT, Undrawn

Rounding = Callable[[str, Tensor, Grid], tuple[Tensor, Tensor]]  # name, w (N, K), grid -> numbers (N, K), scale


class IntegerGPT(GPT):
    """The same model with other matrices. It is not trained: integers have no gradient.

    The loss of a GPT is computed without logits, from a head of floats; here from logits.
    """

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        document: Tensor | None = None,
    ) -> Tensor:
        """As `GPT.forward`."""
        logits = super().forward(ids, cache=cache, document=document)         # (B, T, V)
        if targets is None:
            return logits
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        return losses.view_as(targets)                                        # (B, T); 0 where a target is -100


def to_nearest(name: str, w: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Each number for itself."""
    scale = scales(w, grid)
    return nearest(w.float(), scale, grid), scale


@torch.no_grad()
def quantize(model: GPT, grid: Grid, rounding: Rounding = to_nearest) -> IntegerGPT:
    """A copy of the model on the grid; the model itself stays as it is.

    Some matrices get more bits: see `grid.fitting`.
    """
    with Undrawn():
        integer = IntegerGPT(model.config)
    integer.load_state_dict(model.state_dict())
    for name, layer in linear_layers(model).items():
        if name != "lm_head":
            integer.set_submodule(name, table(name, layer.weight, grid, rounding, layer.bias))
    put_ends(integer, lambda name: table(name, model.get_submodule(name).weight, grid, rounding))
    return integer.eval()


def table(name: str, w: Tensor, grid: Grid, rounding: Rounding, bias: Tensor | None = None) -> Table:
    """One matrix as integers: the layer that stores and multiplies it."""
    grid = fitting(grid, name, w.size(1))
    weight, scale = stored(*rounding(name, w.detach(), grid), grid)
    return layer_of(weight, scale, None if bias is None else bias.detach().clone())


def layer_of(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Table:
    """The layer for a stored format: bytes hold two numbers each."""
    return (PackedLinear if weight.dtype == torch.uint8 else IntegerLinear)(weight, scale, bias)


def put_ends(integer: GPT, make: Callable[[str], Table]) -> None:
    """Embedding and head; where they are tied, one table for both."""
    first = make("token_embedding")
    integer.token_embedding = IntegerEmbedding(first)
    integer.lm_head = first if integer.config.tied else make("lm_head")


def linear_layers(model: GPT) -> dict[str, nn.Linear]:
    """The layers that multiply, by name, the head among them."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def together(model: GPT) -> Iterator[list[str]]:
    """Names of the linear layers in the blocks, in the order they compute; those that read the same rows together."""
    for i, block in enumerate(model.blocks):
        yield [f"blocks.{i}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        yield [f"blocks.{i}.attention.o_proj"]
        first = [name for name in ("gate_proj", "up_proj") if name in dict(block.mlp.named_children())]
        yield [f"blocks.{i}.mlp.{name}" for name in first]
        yield [f"blocks.{i}.mlp.down_proj"]


@torch.no_grad()
def to_floats(model: GPT) -> GPT:
    """The plain GPT that an integer model stands for: what export writes, and what is trained further."""
    with Undrawn():
        plain = GPT(model.config)
    for name, module in plain.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            theirs = model.get_submodule(name)
            if isinstance(theirs, Table):
                module.weight.copy_(dequantized(theirs.weight, theirs.scale))
            else:
                module.weight.copy_(theirs.weight)
            if getattr(module, "bias", None) is not None:
                module.bias.copy_(theirs.bias)
    own = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        if name in own:
            parameter.copy_(own[name])
    return plain.eval()
