"""How good, and how sure: shares and means with their intervals, calibration, correlation."""

from math import sqrt

import torch
from torch import Tensor

SURE = 1.96  # standard errors to each side: 95 % of all samples
BINS = 10


def interval(rates: Tensor) -> float:
    """Half the width of the 95 % interval of a mean over n independent ones. Shapes: (n,) -> ()

    For rates of 0 or 1 this is the binomial's, sqrt(p (1 - p) / n).
    """
    return SURE * rates.std(unbiased=False).item() / sqrt(len(rates))


def wins(margin: Tensor) -> Tensor:
    """1 where it is above 0; 0 itself, which decides nothing, is half a win. Shapes: (n,) -> (n,)"""
    return (margin > 0).double() + 0.5 * (margin == 0).double()


def share(margin: Tensor) -> float:
    """How often the margin wins. Shapes: (n,) -> ()"""
    return wins(margin).mean().item()


def calibration_error(probability: Tensor, outcome: Tensor) -> float:
    """ECE: how far the model's confidence is from how often it is right.

        Σ over bins |B|/n · |mean confidence - share right|,   confidence = max(p, 1 - p) in [0.5, 1], ten bins

    Shapes: probability that the first of two wins (n,); whether it did (n,) of bool.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence, right = torch.maximum(probability, 1 - probability), (probability > 0.5) == outcome
    which = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)                     # (n,)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, which, confidence.double() - right.double())
    return float(gaps.abs().sum() / len(probability))


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's; 0 where one of them does not vary."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    scale = float(x.norm() * y.norm())
    return float(x @ y) / scale if scale else 0.0
