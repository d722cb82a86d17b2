"""Rows for the new tokens in a model that never saw them.

A row of small random numbers, as at the start of training, has logits near 0, where a trained model gives most words
logits far below: the new token would take the probability of all others at once. The mean row cannot: the exponential
is convex, so the mean row's exp(logit) is at most the mean of all, and n rows become n + k at a cost of at most
log(1 + k/n) nats to any word.

A little noise tells the new tokens apart from the first step on.
Source: Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models".
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from minigpt.model.gpt import GPT
from minigpt.runtime.seeding import generator

NOISE = 0.1  # of a column's standard deviation: told apart, and still near the mean
SEED = 6


def extended(gpt: GPT, n_vocab: int, known: int | None = None) -> GPT:
    """A copy of `gpt` for `n_vocab` tokens: new rows in the embedding and in the head, all else as it was.

    `known`: rows that stood for a token so far; none: all. A model from elsewhere may have more, never trained, and
    these begin anew. The same model gives the same rows. With nothing to add it is `gpt` itself.
    """
    size, known = gpt.config.vocab_size, min(known or n_vocab, gpt.config.vocab_size)
    if n_vocab <= known:
        return gpt
    larger = copy.deepcopy(gpt)
    larger.config = replace(gpt.config, vocab_size=max(size, n_vocab))
    larger.token_embedding = nn.Embedding.from_pretrained(
        _with_rows(gpt.token_embedding.weight.detach(), known, n_vocab), freeze=False
    )
    larger.lm_head.out_features = larger.config.vocab_size
    if gpt.config.tied:
        larger.lm_head.weight = larger.token_embedding.weight
    else:
        larger.lm_head.weight = nn.Parameter(_with_rows(gpt.lm_head.weight.detach(), known, n_vocab))
    return larger


def _with_rows(table: Tensor, known: int, n_vocab: int) -> Tensor:
    """(V, C) -> (max(V, n_vocab), C), where rows `known` to `n_vocab` are new; drawn on the CPU, as on any machine."""
    old = table[:known].float()                                                               # (known, C)
    draw = torch.randn(n_vocab - known, table.size(1), generator=generator(SEED))             # (new, C)
    new = old.mean(0) + NOISE * old.std(0) * draw.to(table.device)                            # (new, C)
    return torch.cat([table[:known], new.to(table.dtype), table[n_vocab:]])
