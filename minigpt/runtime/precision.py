"""Mixed precision by hand: float32 masters, low-precision copies, and a loss scaler.

Half the bits are half the memory traffic, and tensor cores multiply them many times faster. But few numbers
may be that coarse: bfloat16 keeps 8 bits of a number, float16 keeps 11 and ends at 65504. What is kept in
which precision, and why:

| what                               | kept in | because                                                     |
|------------------------------------|---------|-------------------------------------------------------------|
| parameters (the masters)           | float32 | a step changes a weight by a thousandth of it or less;      |
|                                    |         | bfloat16 rounds changes below 1/256 away: nothing is learnt |
| their gradients, accumulated       | float32 | a sum of many small terms                                   |
| moments of the optimizer           | float32 | running means: each step moves them by 1/20 of a term       |
| copies of matrices and embeddings  | low     | multiplied: this is where the time goes. Linear biases too, |
|                                    |         | because they are added inside the product                   |
| activations, the stream, KV cache  | low     | this is where the memory goes; each block adds a rounding   |
| gains and biases of norms          | float32 | few numbers around 1, where bfloat16 is coarse, and norms   |
|                                    |         | compute in float32 anyway                                   |
| softmax, log-sum-exp, norms, loss  | float32 | long sums, exponentials; the kernels see to it              |
|                                    |         | (kernels/reference.py, "Dtypes")                            |

On a CPU, torch sums the gradient of an embedding in the copy's own dtype: for a token that stands 1,000
times in one micro-batch the sum is 3 % off in bfloat16 (measured). Smaller micro-batches help, since those
are added up in float32. (CUDA kernels sum in float32.)

The model never hears of all this: a wrapper runs it with other tensors in the place of its parameters.

Source: Micikevicius et al. 2018, "Mixed Precision Training".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Policy:
    """Which parameters are multiplied in low precision."""

    compute: torch.dtype

    def keeps_float32(self, name: str, parameter: Tensor) -> bool:
        """Gains and biases of norms, known by the word in their names."""
        return parameter.ndim < 2 and "norm" in name

    def working_copies(self, model: nn.Module) -> dict[str, Tensor]:
        """What the forward pass uses in the place of each parameter; gradients flow on to its master."""
        named = model.named_parameters()
        return {name: p if self.keeps_float32(name, p) else p.to(self.compute) for name, p in named}


class MixedPrecision(nn.Module):
    """A model that computes in low precision while its parameters stay float32.

    The wrapped model is not changed: `.model` is still the float32 model, to be trained, saved or wrapped
    otherwise. Tied weights share one copy, as they share one master.
    """

    def __init__(self, model: nn.Module, policy: Policy) -> None:
        super().__init__()
        self.model, self.policy = model, policy

    @property
    def config(self) -> Any:
        return self.model.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped model's own forward, whatever it takes and returns."""
        copies = self.policy.working_copies(self.model)  # made once per forward, and freed with its graph
        return torch.func.functional_call(self.model, copies, args, kwargs)


def mixed_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model, computing in `dtype`.

    float32 needs no wrapper; float64 (for tests that want the truth) moves the masters themselves.
    """
    if dtype == torch.float32:
        return model
    if dtype == torch.float64:
        return model.double()
    return MixedPrecision(model, Policy(compute=dtype))


def compute_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model's activations: what a KV cache has to hold."""
    mixed = [module.policy.compute for module in model.modules() if isinstance(module, MixedPrecision)]
    return mixed[0] if mixed else next(model.parameters()).dtype


class LossScaler:
    """Keeps small gradients above the smallest float16.

    Gradients below 6e-8 are 0 in float16, and most of a network's are small. The loss is multiplied by a
    large number before the backward pass and the gradients are divided by it after. Too large a number
    overflows: then the step is skipped and the number halved. After `patience` steps without overflow it is
    doubled, so that it stays just below what the gradients allow.

    bfloat16 and float32 have the same range, down to 1e-38, and need none of this: `enabled=False` does
    nothing.
    Source: Micikevicius et al. 2018, section 3.2, and torch's GradScaler for the constants.
    """

    def __init__(self, enabled: bool, scale: float = 2.0**16, patience: int = 2000) -> None:
        self.enabled, self.patience = enabled, patience
        self.factor = scale if enabled else 1.0
        self.good_steps = 0  # since the factor last changed

    @property
    def may_shrink(self) -> bool:
        """Whether an overflow may be the factor's fault, and so go away by itself."""
        return self.enabled and self.factor > 1

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.factor if self.enabled else loss

    @torch.no_grad()
    def unscale_(self, parameters: Iterable[Tensor]) -> bool:
        """Divide the gradients by the factor, in place; returns whether any of them is not finite."""
        if not self.enabled:
            return False
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_div_(gradients, self.factor)
        return not all(gradient.isfinite().all() for gradient in gradients)

    def update(self, overflow: bool) -> None:
        """Once a step, taken or skipped: halve after an overflow, double after `patience` good steps."""
        if not self.enabled:
            return
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.factor = max(1.0, self.factor / 2)
        elif self.good_steps == self.patience:
            self.factor, self.good_steps = self.factor * 2, 0

    def state_dict(self) -> dict[str, float]:
        return {"factor": self.factor, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.factor, self.good_steps = float(state["factor"]), int(state["good_steps"])
