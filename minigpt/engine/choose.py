"""One request's next token: its own wishes first, then `sampling`."""

import math

import numpy as np
import torch
from torch import Tensor

from minigpt.engine.request import Answer, Logprob, Request
from minigpt.engine.sampling import next_token


def choose(answer: Answer, logits: Tensor, likeliest: int, best: float) -> int:
    """The token after answer.visible. `likeliest` and `best`: argmax and max of logits (V,), found for all at once.

    Raises: ValueError for logits that are not finite.
    """
    request = answer.request
    if math.isfinite(best) and _plain(request):
        return likeliest
    logits = own = logits.float()
    if request.logit_bias:
        ids, biases = (torch.tensor(x, device=logits.device) for x in zip(*request.logit_bias.items(), strict=True))
        logits = logits.index_add(0, ids, biases.float())
    if answer.cursor is not None:
        logits = allowed_only(logits, answer.cursor.allowed())
    seen, written = torch.tensor(answer.visible), torch.tensor(answer.tokens, dtype=torch.long)
    token = int(next_token(logits, seen, request.sampling, answer.generator, written))
    if request.logprobs is not None:
        answer.logprobs.append(logprob(own, token, request.logprobs))
    return token


def allowed_only(logits: Tensor, allowed: np.ndarray) -> Tensor:
    """-inf where a token may not come; nor may ids beyond the vocabulary of the constraint. (V,)"""
    refused = torch.ones(logits.size(0), dtype=torch.bool, device=logits.device)
    refused[: len(allowed)] = torch.from_numpy(~allowed).to(logits.device)
    return logits.masked_fill(refused, -math.inf)


def logprob(logits: Tensor, token: int, alternatives: int) -> Logprob:
    """log softmax(logits) of a token, and of the likeliest `alternatives`. (V,)"""
    every = logits.log_softmax(-1)
    values, ids = every.topk(min(alternatives, every.size(0)))
    return Logprob(float(every[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _plain(request: Request) -> bool:
    """The likeliest token, and nothing asked besides."""
    sampling = request.sampling
    return (
        sampling.temperature == 0
        and sampling.repetition_penalty == 1
        and sampling.presence_penalty == sampling.frequency_penalty == 0
        and not request.logit_bias
        and request.constraint is None
        and request.logprobs is None
    )
