"""What makes one kind of training different from another, as a value."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from minigpt.batches.loader import Batch
from minigpt.model.gpt import GPT
from minigpt.tokenizer import Tokenizer

Metrics = dict[str, float]


class Loss(NamedTuple):
    """What an objective returns: the scalar to descend, and what is worth logging beside it, "loss" among it."""

    value: Tensor  # ()
    metrics: Metrics


class Batches(Protocol):
    """An endless iterator that knows where it stands, so that a resumed run sees what it would have seen."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...
    def close(self) -> None: ...  # end what reads ahead; who asks for a batch begins it again


class Stage(NamedTuple):
    """What makes one kind of training different from another. Everything else is `fit`.

    | stage    | batches                | objective                               |
    |----------|------------------------|-----------------------------------------|
    | pretrain | packed shards          | next-token cross-entropy                |
    | SFT      | rendered conversations | the same, masked to assistant tokens    |
    | PPO      | fresh rollouts         | clipped ratio + value + KL              |
    """

    model: nn.Module
    batches: Batches
    objective: Callable[[nn.Module, Batch], Loss]
    evaluate: Callable[[nn.Module, int | None], Metrics]  # on so many batches; None: on all that was held out
    save: Callable[[Path], None]                          # weights, config, tokenizer: what makes a checkpoint a model


class Prepared(NamedTuple):
    """A stage that can begin, and what a person wants to know about it."""

    stage: Stage
    trained: nn.Module                           # without wrappers; the optimizer moves what asks for a gradient
    gpt: GPT                                     # the language model in it: what is described, and what samples
    tokenizer: Tokenizer
    prompt: list[int]                            # what samples begin with; none: out of nothing
    material: str                                # what there is to learn from, in one line
    epoch_tokens: int | None                     # how many tokens to read until all was read; None: it has no end
    outcome: Callable[[Metrics], list[str]]      # the last scores in words
    try_it: str                                  # the command that shows what was learnt
    rows: str = ""                               # what they are, where they are not context_length tokens long: pairs
    rows_each: int = 1                           # of the model's own: a pair has two
    frozen: tuple[nn.Module, ...] = ()           # what is there beside `trained` and never learns: a reference
    beside: Callable[[], list[str]] = list       # the controls: their scores, or the commands that make them


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch there; what is None stays None."""
    return type(batch)(*(part if part is None else part.to(device, non_blocking=True) for part in batch))
