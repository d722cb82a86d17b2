"""How likely did a model find the tokens that were written?

Every method of this room compares such numbers: of two models, of two answers, of now and a moment ago. Each of them
must be the log-probability of the same token, under the distribution that it was drawn from.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minigpt.batches.loader import IGNORED, Batch


def right_padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(ids, real): the sequences as rows, and which places hold a token of theirs.

    What stands in the padding does not matter, for a causal model never looks to the right. On the left it would be
    seen, and every position would be another.

    Shapes: returns ids (B, T) of int64 and real (B, T) of bool, T the longest.
    Raises: ValueError without sequences, and for an empty one.
    """
    if not sequences or not all(sequences):
        raise ValueError(f"each of {len(sequences)} sequences must hold a token, and there must be one")
    width = max(map(len, sequences))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in sequences])                 # (B, T)
    return ids, torch.arange(width) < torch.tensor([len(row) for row in sequences])[:, None]     # (B, T)


def completion_batch(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Batch:
    """Prompts with their completions as inputs and, one to the right, targets: only completions are targets.

        prompt a b, completion c d:    ids      a     b  c
                                       targets  -100  c  d

    The last token of the prompt predicts the first of the completion. An end token belongs to the completion: a model
    that is never told to end does not.

    Shapes: ids and targets (B, T), T the longest row less one.
    Raises: ValueError for an empty prompt, which has no token to predict the first from, and for an empty completion.
    """
    if not all(prompts) or not all(completions):
        empty = next(i for i, pair in enumerate(zip(prompts, completions, strict=True)) if not all(pair))
        raise ValueError(f"row {empty} has {len(prompts[empty])} tokens of prompt and {len(completions[empty])} of "
                         "completion: each needs one at least")  # fmt: skip
    rows, real = right_padded([[*p, *c] for p, c in zip(prompts, completions, strict=True)])
    begins = torch.tensor([len(prompt) for prompt in prompts])[:, None]                           # (B, 1)
    learnt = real & (torch.arange(rows.size(1)) >= begins)                                        # (B, T + 1)
    return Batch(rows[:, :-1].contiguous(), rows.masked_fill(~learnt, IGNORED)[:, 1:].contiguous(), None)


def log_distribution(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature): what is sampled from, as long as no filter cuts it.

    A policy that writes at temperature 0.7 is another than the one at 1: ratios and divergences of logits that were
    not divided belong to a policy that nobody ran.

    Shapes: (..., V) -> (..., V)
    Dtypes: computed in float32, or float64 for float64.
    Raises: ValueError for a temperature that is not above 0: the likeliest token has no distribution.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: log-probabilities need one above 0, the one that was sampled at")
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)


def token_logprobs(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probability of each target under the distribution that is sampled from.

        log p(target), of `log_distribution`

    Shapes: logits (..., V); targets (...); returns (...), 0 where the target is -100.
    """
    learnt = targets != IGNORED
    log_p = log_distribution(logits, temperature=temperature)                                     # (..., V)
    picked = log_p.gather(-1, targets.where(learnt, 0)[..., None])[..., 0]                        # (...)
    return picked.masked_fill(~learnt, 0.0)


def model_logprobs(model: nn.Module, batch: Batch, *, temperature: float = 1.0) -> Tensor:
    """`token_logprobs` of a model's own logits. Returns (B, T).

    At temperature 1 these are its losses, for which the logits of a large vocabulary need not exist.
    """
    if temperature == 1:
        return -model(batch.ids, batch.targets, document=batch.document)
    return token_logprobs(model(batch.ids, document=batch.document), batch.targets, temperature=temperature)


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How undecided the model is at each place, in nats: H = -Σ p log p. Shapes: (..., V) -> (...)"""
    log_p = log_distribution(logits, temperature=temperature)                                     # (..., V)
    return -(log_p.exp() * log_p).sum(-1)


def summed(logprobs: Tensor, mask: Tensor) -> Tensor:
    """log π(completion | prompt): the sum over its tokens. Shapes: (B, T), (B, T) -> (B,)"""
    return (logprobs * mask).sum(-1)


def averaged(logprobs: Tensor, mask: Tensor) -> Tensor:
    """The mean over a completion's tokens, which does not grow with its length. Shapes: (B, T), (B, T) -> (B,)"""
    return summed(logprobs, mask) / mask.sum(-1).clamp(min=1)


def frozen(model: nn.Module) -> nn.Module:
    """A copy that never learns and never drops out: the reference, at distance 0 from the policy before its first step.

    The copy stays so when the policy is switched to `train()`, for it is no part of it.
    """
    return copy.deepcopy(model).eval().requires_grad_(False)
