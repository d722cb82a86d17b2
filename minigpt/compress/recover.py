"""After pruning: some steps of training, through the one `fit`."""

import copy
import tempfile
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from minigpt.compress.distill import distill
from minigpt.compress.prune import Masks, apply_masks
from minigpt.model.gpt import GPT
from minigpt.optim.groups import build_optimizer
from minigpt.runtime import device, distributed
from minigpt.runtime.precision import LossScaler
from minigpt.training.config import RunConfig
from minigpt.training.loop import Stopped, fit
from minigpt.training.pretrain import Data, prepare

LR_SHARE = 0.3  # of the learning rate that the model was trained with, at the top: benchmarks/choose_recovery.py
WARMUP = 0.05   # of the steps


class Masked(nn.Module):
    """A model that computes with some of its weights set to zero, in training too: they get no gradient.

    Multiplying gradients instead would not do: Muon mixes the numbers of a matrix, and moves zeros as well.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        super().__init__()
        self.model, self.masks = model, masks

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        named = dict(self.model.named_parameters())
        kept = {name: named[name] * mask for name, mask in self.masks.items()}
        return torch.func.functional_call(self.model, kept, args, kwargs)


def recovery(model: GPT, run: RunConfig, steps: int, lr_share: float = LR_SHARE) -> RunConfig:
    """The settings of the recovery: the run's own, gentler and shorter."""
    optim = replace(run.optim, lr=lr_share * run.optim.lr, warmup_steps=round(WARMUP * steps))
    train = replace(run.train, max_steps=steps, eval_every=steps, save_every=steps, sample_every=0)
    return replace(run, model=model.config, optim=optim, train=train, init=None)


def recover(
    model: GPT,
    run: RunConfig,
    data: Data,
    steps: int,
    masks: Masks | None = None,
    teacher: GPT | None = None,
    lr_share: float = LR_SHARE,
) -> GPT:
    """Train the model for some steps, in place, in float32. `masks`: what stays zero; `teacher`: whom to learn from.

    It computes on the device that the run's settings name, and comes back to the CPU. Checkpoints and records go when
    it is done. Raises: KeyboardInterrupt after a signal; ValueError if training diverges.
    """
    with tempfile.TemporaryDirectory(prefix="minigpt-recovery-") as folder:
        run = replace(recovery(model, run, steps, lr_share), out_dir=folder)
        with distributed.group(torch.device(device.choose_device(run.machine.device).value)) as group:
            masks = {name: mask.to(group.device) for name, mask in (masks or {}).items()}
            stage = prepare(run, model.to(group.device).train(), data, group, torch.float32)
            stage = stage._replace(model=Masked(stage.model, masks))
            stage = distill(stage, copy.deepcopy(teacher).to(group.device)) if teacher is not None else stage
            try:
                fit(stage, build_optimizer(model, run.optim), run, group, scaler=LossScaler(enabled=False))
            except Stopped:
                raise KeyboardInterrupt from None  # nothing here can be resumed
    apply_masks(model, masks)  # below them stands what Masked did not look at
    return model.to("cpu").eval()
