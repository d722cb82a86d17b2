"""What is each layer given, on real text? Sums over its inputs, gathered while a model reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.batches.loader import Batch
from minigpt.model.evaluating import evaluating
from minigpt.model.gpt import GPT

Summary = Callable[[Tensor], Tensor]  # inputs (B · T, K) -> what is added up


def products(x: Tensor) -> Tensor:
    """xᵀ x: which channels are large, and which of them together. (n, K) -> (K, K)"""
    return (x.T @ x).double()


def squares(x: Tensor) -> Tensor:
    """Σ x²: which channels are large. (n, K) -> (K,)"""
    return x.double().square().sum(0)


@torch.no_grad()
def input_sums(
    model: GPT, layers: Mapping[str, nn.Module], batches: Iterable[Batch], summary: Summary
) -> dict[str, Tensor]:
    """The summary of all inputs of each layer, by its name."""
    sums: dict[str, Tensor] = {}

    def listener(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def listen(layer: nn.Module, given: tuple[Any, ...]) -> None:
            part = summary(given[0].flatten(0, -2).float())
            sums[name] = sums[name] + part if name in sums else part

        return listen

    hooks = [layer.register_forward_pre_hook(listener(name)) for name, layer in layers.items()]
    try:
        with evaluating(model):
            for batch in batches:
                model(batch.ids, document=batch.document)
    finally:
        for hook in hooks:
            hook.remove()
    return sums
