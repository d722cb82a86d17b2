"""The learning rate as a pure function of the step.

Nothing is stored, so nothing can be lost: a resumed run computes the rate it would have had.

All schedules begin with the same warmup. Adam's first steps divide by a mean square known from a handful of
gradients, and early directions are poor ones; small steps survive both. Warmup never starts at 0 (a step of
length 0 would be a wasted one), and likewise the end, `min_lr`, belongs to step `max_steps`, the first that
is not taken.
"""

import math

from minigpt.optim.config import OptimConfig


def warmup_share(step: int, warmup_steps: int) -> float:
    """How much of the full rate applies: 1/(w+1), 2/(w+1), ... w/(w+1) during w steps of warmup, then 1."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def progress(step: int, begin: int, end: int) -> float:
    """How far `step` is on the way from `begin` (0.0) to `end` (1.0), never outside."""
    if step >= end:
        return 1.0
    return (step - begin) / (end - begin) if step > begin else 0.0


def constant_lr(step: int, *, lr: float, warmup_steps: int) -> float:
    """Warmup, then lr for ever."""
    return lr * warmup_share(step, warmup_steps)


def linear_lr(step: int, *, lr: float, min_lr: float, warmup_steps: int, max_steps: int) -> float:
    """Warmup, then a straight line down to min_lr at max_steps."""
    fall = progress(step, warmup_steps, max_steps)
    return warmup_share(step, warmup_steps) * (lr * (1 - fall) + min_lr * fall)


def cosine_lr(step: int, *, lr: float, min_lr: float, warmup_steps: int, max_steps: int) -> float:
    """Warmup, then half a cosine wave down to min_lr at max_steps.

        lr(t) = min_lr + (lr - min_lr) · (1 + cos(π · t)) / 2,   t from 0 to 1

    Source: Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts.
    """
    fall = (1 - math.cos(math.pi * progress(step, warmup_steps, max_steps))) / 2
    return warmup_share(step, warmup_steps) * (lr * (1 - fall) + min_lr * fall)


def trapezoid_lr(
    step: int, *, lr: float, min_lr: float, warmup_steps: int, max_steps: int, decay_share: float = 0.2
) -> float:
    """Warmup, flat, then a straight line down to min_lr over the last `decay_share` of the steps.

    The flat part does not depend on max_steps, so a run may be made longer after the fact: take a checkpoint
    from before the decay and go on. A cosine has to know its end at its beginning.
    Source: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations".
    """
    begin = max(warmup_steps, int(max_steps * (1 - decay_share)))
    fall = progress(step, begin, max_steps)
    return warmup_share(step, warmup_steps) * (lr * (1 - fall) + min_lr * fall)


def lr_at(step: int, config: OptimConfig, max_steps: int) -> float:
    """The learning rate of optimizer step `step` (counted from 0) in a run of max_steps.

    A warmup longer than half the run ends there: a short trial of a preset (`--max-steps 20`) should learn something.
    """
    warmup_steps = min(config.warmup_steps, max_steps // 2)
    if config.schedule == "constant":
        return constant_lr(step, lr=config.lr, warmup_steps=warmup_steps)
    falling = {"cosine": cosine_lr, "linear": linear_lr, "trapezoid": trapezoid_lr}[config.schedule]
    min_lr = config.lr * config.min_lr_ratio
    return falling(step, lr=config.lr, min_lr=min_lr, warmup_steps=warmup_steps, max_steps=max_steps)
