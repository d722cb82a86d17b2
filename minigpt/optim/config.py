"""The settings of descent."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    optimizer: Literal["muon", "adamw"] = "muon"  # muon: for the matrices inside blocks, AdamW for the rest
    lr: float = 1e-3  # learning rate at the top of the schedule
    min_lr_ratio: float = 0.1  # where the schedule ends, as a share of lr
    schedule: Literal["cosine", "linear", "trapezoid", "constant"] = "cosine"  # how lr falls after the warmup
    warmup_steps: int = 100  # steps in which lr rises to its top
    weight_decay: float = 0.1  # share of a weight that goes per unit of lr; not for embeddings, gains, biases
    beta1: float = 0.9  # AdamW: memory of the mean gradient, about 1 / (1 - beta1) steps
    beta2: float = 0.95  # AdamW: memory of the mean squared gradient
    adam_eps: float = 1e-8  # AdamW: added to the root, so that a gradient of zero divides
    muon_momentum: float = 0.95  # Muon: memory of the mean gradient
    clip_norm: float = 1.0  # longest gradient, over all parameters together; inf never shortens

    def __post_init__(self) -> None:
        for name in ("lr", "adam_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{_flag(name)} {getattr(self, name)}: needs a finite number above 0")
        for name in ("beta1", "beta2", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{_flag(name)} {getattr(self, name)}: needs at least 0 and less than 1; 0.9 is usual"
                )
        if not 0 <= self.min_lr_ratio <= 1:
            raise ValueError(f"--min-lr-ratio {self.min_lr_ratio}: is a share of --lr, so between 0 and 1")
        if not 0 <= self.weight_decay * self.lr < 1:
            raise ValueError(
                f"--weight-decay {self.weight_decay} with --lr {self.lr}: each step multiplies weights by "
                f"1 - lr · weight_decay, which must stay above 0 and at most 1; 0 to 0.1 is usual"
            )
        if self.warmup_steps < 0:
            raise ValueError(f"--warmup-steps {self.warmup_steps}: needs at least 0")
        if not self.clip_norm > 0:
            raise ValueError(f"--clip-norm {self.clip_norm}: needs a number above 0; inf never shortens")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
