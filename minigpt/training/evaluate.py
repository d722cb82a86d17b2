"""How good is it, on text it has not seen?"""

import math
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from minigpt.batches.loader import Batch
from minigpt.model.evaluating import evaluating
from minigpt.tokenizer import Tokenizer
from minigpt.training.stage import Metrics


def bytes_per_token(tokenizer: Tokenizer, device: torch.device) -> Tensor:
    """How many bytes of text each token stands for, a special one for none: (V,) of int64."""
    sizes = [0 if tokenizer.is_special_token(token) else len(tokenizer.token_bytes(token))
             for token in range(tokenizer.n_vocab)]  # fmt: skip
    return torch.tensor(sizes, device=device)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], sizes: Tensor, limit: int | None = None) -> Metrics:
    """Mean loss over held-out text, and the same in two units that people compare by.

        loss = (1/n) Σ −ln p(tokenᵢ | before)          nats per token: depends on the tokenizer
        perplexity = exp(loss)
        bits_per_byte = Σ −log₂ p / Σ bytes            does not: models with other tokenizers, and xz, compare

    A token that stands for no text (the end of a document) costs its bits and adds no byte.
    Shapes: batches of ids and targets (B, T), targets −100 where there is nothing to predict; sizes (V,), in bytes.
    """
    nats, tokens, n_bytes = 0.0, 0, 0
    with evaluating(model):
        for batch in islice(batches, limit):
            losses = model(batch.ids, batch.targets, document=batch.document)  # (B, T)
            real = batch.targets != -100                                       # (B, T)
            nats += losses[real].double().sum().item()
            tokens += int(real.sum())
            n_bytes += int(sizes[batch.targets[real]].sum())
    if tokens == 0:
        raise ValueError("the held-out text has no token to predict; give more of it with --val-data")
    loss = nats / tokens
    bits_per_byte = nats / math.log(2) / max(n_bytes, 1)
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": bits_per_byte}
