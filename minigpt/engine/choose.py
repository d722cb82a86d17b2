"""The next token of each request: its own wishes first, then `sampling`.

Most requests ask for nothing that depends on what they have written. What their logits say is computed for all of them
at once; then each draws with its own random numbers.
"""

import math
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from minigpt.engine.config import SamplingConfig
from minigpt.engine.request import Answer, Logprob, Request
from minigpt.engine.sampling import cumulative, drawn_from, filtered, next_token
from minigpt.grammar.constraint import Constraint


class Choices:
    """The rows of logits of one step, and who chooses from them."""

    def __init__(self, logits: Tensor, answers: list[Answer]) -> None:
        """Shapes: logits (N, V), with the N answers that choose from a row each."""
        self.logits = logits
        best, likeliest = logits.max(-1)
        self.best, self.likeliest = best.tolist(), likeliest.tolist()
        alike: dict[SamplingConfig, list[int]] = defaultdict(list)
        for row, answer in enumerate(answers):
            if answer.request.sampling.temperature > 0 and _logits_decide(answer.request):
                alike[answer.request.sampling].append(row)
        self.cumulative = {}  # by row
        for sampling, rows in alike.items():
            some = cumulative(filtered(logits[rows].to("cpu", torch.float32), sampling))
            self.cumulative.update(zip(rows, some, strict=True))

    def choose(self, row: int, answer: Answer) -> int:
        """The token after answer.visible. Raises: ValueError for logits that are not finite."""
        request = answer.request
        if not math.isfinite(self.best[row]) or not _logits_decide(request):
            return choose(answer, self.logits[row].to("cpu", torch.float32))
        if request.sampling.temperature == 0:
            return self.likeliest[row]
        return int(drawn_from(self.cumulative[row], answer.generator))


def _logits_decide(request: Request) -> bool:
    """Whether nothing but the logits decides: not what was written, nor any wish for certain tokens."""
    sampling = request.sampling
    return (
        sampling.repetition_penalty == 1
        and sampling.presence_penalty == sampling.frequency_penalty == 0
        and not request.logit_bias
        and request.constraint is None
        and request.logprobs is None
    )


def choose(answer: Answer, own: Tensor) -> int:
    """One answer's next token, with all its wishes, from the logits (V,) that the model gave."""
    request, logits = answer.request, own
    if request.logit_bias:
        ids, biases = (torch.tensor(x) for x in zip(*request.logit_bias.items(), strict=True))
        logits = logits.index_add(0, ids, biases.float())
    if answer.cursor is not None:
        logits = allowed_only(logits, answer.cursor.allowed())
    seen, written = torch.tensor(answer.visible), torch.tensor(answer.tokens, dtype=torch.long)
    token = int(next_token(logits, seen, request.sampling, answer.generator, written))
    if request.logprobs is not None:
        answer.logprobs.append(logprob(own, token, request.logprobs))
    return token


def check_constraint(constraint: Constraint, vocab_size: int) -> None:
    """Raises: ValueError if the constraint knows tokens that the model does not have."""
    if len(constraint.trie.tokens) > vocab_size:
        raise ValueError(
            f"the constraint is over {len(constraint.trie.tokens)} tokens and the model has {vocab_size}: "
            f"it was made for another tokenizer"
        )


def allowed_only(logits: Tensor, allowed: np.ndarray) -> Tensor:
    """-inf where a token may not come; nor may ids beyond the vocabulary of the constraint. (V,)"""
    refused = torch.ones(logits.size(0), dtype=torch.bool)
    refused[: len(allowed)] = torch.from_numpy(~allowed)
    return logits.masked_fill(refused, -math.inf)


def logprob(logits: Tensor, token: int, alternatives: int) -> Logprob:
    """log softmax(logits) of a token, and of the likeliest `alternatives`. (V,)"""
    every = logits.log_softmax(-1)
    values, ids = every.topk(min(alternatives, every.size(0)))
    return Logprob(float(every[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
