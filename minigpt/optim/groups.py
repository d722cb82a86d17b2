"""Which rule gets which parameter; the whole as one optimizer that a checkpoint can hold."""

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from minigpt.optim.adamw import AdamW
from minigpt.optim.config import OptimConfig
from minigpt.optim.muon import Muon

GroupName = Literal["muon", "adamw", "adamw without decay"]


class Rule(Protocol):
    """How one group of parameters is moved."""

    def step(self, step: int, lr: float) -> None:
        """Move the parameters along their gradients, in place. `step` counts from 1."""

    def state(self) -> dict[str, Tensor]:
        """What must be known to go on: "<parameter name>.<slot>" -> the tensor in use."""


def group_of(name: str, parameter: Tensor, config: OptimConfig) -> GroupName:
    """The group of one parameter, by its name and shape alone.

    | parameter                  | rule      | decay | because                                              |
    |----------------------------|-----------|-------|------------------------------------------------------|
    | matrices inside blocks     | as chosen | yes   | they multiply: smaller weights, smoother functions   |
    | lm_head, unless tied       | AdamW     | yes   | a row per token: Muon would even out rare and common |
    | embeddings, with tied head | AdamW     | no    | a rare token's row decays daily and learns weekly,   |
    |                            |           |       | and small embeddings make large early gradients      |
    | gains, biases, the         | AdamW     | no    | they do not multiply each other; a gain's home is 1, |
    | short convolution          |           |       | and distances are told apart by weights far from 0   |

    Source: Jordan et al. 2024 for what Muon is for; OLMo 2 (2024) for embeddings without decay; GPT-3's
    public re-implementations (minGPT, nanoGPT) for gains and biases without.
    """
    if parameter.ndim < 2 or "embedding" in name or "short_conv" in name:
        return "adamw without decay"
    if config.optimizer == "muon" and parameter.ndim == 2 and "blocks" in name.split("."):
        return "muon"
    return "adamw"


class Optimizer:
    """Several rules, one step. Use `build_optimizer` to get one."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], rules: list[Rule], lr: float) -> None:
        self.named, self.rules, self.lr = dict(parameters), rules, lr
        self.steps = 0  # taken so far

    def parameters(self) -> list[nn.Parameter]:
        return list(self.named.values())

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    def step(self) -> None:
        """Move all parameters along their gradients."""
        self.steps += 1
        for rule in self.rules:
            rule.step(self.steps, self.lr)

    def zero_grad(self) -> None:
        """Forget the gradients. None, not zeros: the next backward then stores instead of adding."""
        for parameter in self.named.values():
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """What a step depends on beside weights, gradients and lr: "<parameter name>.<slot>", and "step".

        The tensors are the ones in use: the next step changes them.
        """
        state = {"step": torch.tensor(self.steps)}
        for rule in self.rules:
            state |= rule.state()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken, to the last bit.

        Raises: ValueError if it belongs to another model or optimizer; then nothing has been changed.
        """
        mine = self.state_dict()
        if mine.keys() != state.keys():
            lacking, unknown = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
            raise ValueError(
                f"this state belongs to another model or optimizer: it lacks {len(lacking)} tensors "
                f"{lacking[:3]}, and {len(unknown)} are unknown {unknown[:3]}"
            )
        for name, tensor in mine.items():
            if tensor.shape != state[name].shape or tensor.dtype != state[name].dtype:
                raise ValueError(
                    f"optimizer state {name} is {state[name].dtype} {tuple(state[name].shape)}, "
                    f"this model needs {tensor.dtype} {tuple(tensor.shape)}"
                )
        for name, tensor in mine.items():
            tensor.copy_(state[name])
        self.steps = int(state["step"])


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """Muon for the matrices inside blocks (if chosen), AdamW for the rest, decay where `group_of` says.

    Frozen parameters (requires_grad off) are left out; a tied weight is one parameter under its first name.
    Raises: ValueError if nothing can be trained.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("the model has no parameter that may be trained: every requires_grad is off")
    groups: dict[GroupName, dict[str, nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault(group_of(name, parameter, config), {})[name] = parameter
    return Optimizer(named, [_rule(group, members, config) for group, members in groups.items()], config.lr)


def _rule(group: GroupName, members: dict[str, nn.Parameter], config: OptimConfig) -> Rule:
    if group == "muon":
        return Muon(members, beta=config.muon_momentum, weight_decay=config.weight_decay)
    decay = config.weight_decay if group == "adamw" else 0.0
    return AdamW(members, beta1=config.beta1, beta2=config.beta2, eps=config.adam_eps, weight_decay=decay)
