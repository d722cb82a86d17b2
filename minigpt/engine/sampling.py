"""Logits to one token: penalty, temperature, the filters, the draw.

Each function takes logits (..., V) and returns logits (..., V), so they can be read, tested and left out one
by one. A filter sets what it refuses to -inf, which the softmax turns into probability 0. Their order is that
of Hugging Face's `generate`: repetition penalty, temperature, top-k, top-p, min-p, so that a setting means
here what it means there; OpenAI's two penalties stand beside the first. (Filters come after the temperature: a
hot distribution keeps more tokens under the same top-p.)
"""

import torch
from torch import Tensor

from minigpt.engine.config import SamplingConfig

NUCLEUS = 128  # tokens that top-p looks at first: to sort a whole vocabulary takes as long as the model


def next_token(
    logits: Tensor, seen: Tensor, config: SamplingConfig, generator: torch.Generator, written: Tensor | None = None
) -> Tensor:
    """Choose one token per row; the same stream in the same state chooses the same.

    Shapes: logits (V,) or (B, V); seen (S,) or (B, S), the ids already there; written (W,) or (B, W), those of them
            that were generated (none: no token was); returns () or (B,).
    Dtypes: computed in float32, on the generator's device: a stream that lives on the CPU gives the same
            choices beside every accelerator.
    Raises: ValueError for logits that are not finite; -inf is allowed, and means never.
    """
    logits = logits.to(generator.device, torch.float32)
    if not logits.amax(-1).isfinite().all():  # NaN comes through; -inf forbids a token, unless it forbids all
        raise ValueError("the model's logits are not finite: its weights are damaged or it has diverged")
    logits = repetition_penalised(logits, seen.to(generator.device), config.repetition_penalty)
    if written is not None:
        logits = counted_off(logits, written.to(generator.device), config.presence_penalty, config.frequency_penalty)
    if config.temperature == 0:
        return logits.argmax(-1)
    return drawn(filtered(logits, config), generator)


def filtered(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Temperature, then every filter that is switched on."""
    logits = tempered(logits, config.temperature)
    if config.top_k is not None:
        logits = top_k_only(logits, config.top_k)
    if config.top_p < 1:
        logits = top_p_only(logits, config.top_p)
    if config.min_p > 0:
        logits = min_p_only(logits, config.min_p)
    return logits


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One id per row, drawn with probability softmax(logits). (..., V) -> (...)"""
    return drawn_from(cumulative(logits), generator)


def cumulative(logits: Tensor) -> Tensor:
    """For each id, how likely it or one before it is; in float64, for many small numbers are added. (..., V)"""
    return logits.softmax(-1).cumsum(-1, dtype=torch.float64)


def drawn_from(cumulative: Tensor, generator: torch.Generator) -> Tensor:
    """The first id whose cumulative probability is above a number drawn evenly from [0, 1): one number per row.

    An id of probability 0 adds nothing and so is never the first. (..., V) -> (...)
    """
    u = torch.rand(cumulative.shape[:-1], generator=generator).double()[..., None]    # 24 bits: u · total < total
    return torch.searchsorted(cumulative, u * cumulative[..., -1:], right=True)[..., 0]


def repetition_penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that are already there less likely; how often they are there does not count.

        logit / penalty   where logit > 0,   logit · penalty elsewhere

    Both lower the logit for a penalty above 1. The rule depends on where 0 is, which softmax does not: an
    accident of its origin that everyone has kept.
    Source: Keskar et al. 2019, "CTRL", section 4.1.
    """
    if penalty == 1:
        return logits
    picked = logits.gather(-1, seen)                                          # (..., S)
    picked = torch.where(picked > 0, picked / penalty, picked * penalty)      # (..., S)
    return logits.scatter(-1, seen, picked)


def counted_off(logits: Tensor, written: Tensor, presence: float, frequency: float) -> Tensor:
    """Make tokens less likely because they were written, and the more often the less.

        logit - presence · [count > 0] - frequency · count

    The prompt does not count. Source: OpenAI's API reference, `presence_penalty` and `frequency_penalty`.
    """
    if presence == 0 and frequency == 0:
        return logits
    count = torch.zeros_like(logits).scatter_add(-1, written, torch.ones_like(written, dtype=logits.dtype))
    return logits - presence * (count > 0) - frequency * count


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature): towards the likeliest token below 1, towards uniform above."""
    return logits / temperature


def top_k_only(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, and what ties with the smallest of them.

    Source: Fan et al. 2018, "Hierarchical Neural Story Generation", section 5.1.
    """
    smallest = logits.topk(min(k, logits.size(-1))).values[..., -1:]          # (..., 1)
    return logits.masked_fill(logits < smallest, float("-inf"))


def top_p_only(logits: Tensor, p: float) -> Tensor:
    """Keep the likeliest tokens until their probabilities add up to p: few where the model is sure.

    The token that crosses p is kept, so at least one always is; and what ties with it.
    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    probability = logits.softmax(-1)
    ordered = probability.topk(min(NUCLEUS, logits.size(-1))).values          # (..., NUCLEUS)
    likelier = ordered.cumsum(-1) - ordered                                   # what stands before each token
    if (likelier[..., -1] < p).any():                                         # that was not enough of them
        ordered = probability.sort(descending=True).values                    # (..., V)
        likelier = ordered.cumsum(-1) - ordered
    smallest = ordered.where(likelier < p, 2.0).amin(-1, keepdim=True)        # (..., 1)
    return logits.masked_fill(probability < smallest, float("-inf"))


def min_p_only(logits: Tensor, share: float) -> Tensor:
    """Keep tokens at least `share` times as likely as the likeliest: a bar that rises with confidence.

    Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
    """
    probability = logits.softmax(-1)
    bar = share * probability.amax(-1, keepdim=True)                          # (..., 1)
    return logits.masked_fill(probability < bar, float("-inf"))
