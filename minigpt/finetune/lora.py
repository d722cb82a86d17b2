"""Two thin matrices beside each large one; only they learn (Hu et al. 2021, "LoRA").

    y = W x + (alpha / R) · B (A dropout(x))        W (out, in) frozen;  A (R, in) random;  B (out, R) zero

B begins at zero, so the first step begins at the base model. With a small R that is one or two numbers in a hundred to
train, to keep moments for, and to hand on; and W + (alpha / R) · B A is a matrix like W, so the merged model costs
nothing more to run.

From outside: `model/` does not know of it. A GPT is taken, and each of its linear layers is put into a larger one.
"""

import copy
import hashlib
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.chat.template import missing_tokens
from minigpt.finetune.adapter_file import load_adapters, save_adapters
from minigpt.finetune.config import LoraConfig
from minigpt.finetune.sft import save_chat_model
from minigpt.model.gpt import GPT
from minigpt.runtime.console import say
from minigpt.runtime.distributed import Group
from minigpt.runtime.seeding import generator
from minigpt.tokenizer import Tokenizer
from minigpt.training.config import RunConfig
from minigpt.training.pretrain import init_folder
from minigpt.training.stage import Prepared

LAYERS = {"all": ("attention", "mlp"), "attention": ("attention",), "mlp": ("mlp",)}


class LoraLinear(nn.Module):
    """A linear layer with an adapter beside it."""

    def __init__(self, linear: nn.Linear, config: LoraConfig, draw: torch.Generator) -> None:
        super().__init__()
        self.linear, self.in_features, self.out_features = linear, linear.in_features, linear.out_features
        A = torch.empty(config.lora_rank, linear.in_features)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=draw)
        self.lora_A = nn.Parameter(A.to(linear.weight))                                               # (R, in)
        self.lora_B = nn.Parameter(linear.weight.new_zeros(linear.out_features, config.lora_rank))  # (out, R)
        self.scale = config.lora_alpha / config.lora_rank
        self.dropout = nn.Dropout(config.lora_dropout)

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(self.dropout(x), self.lora_A)                 # (..., R)
        return self.linear(x) + self.scale * F.linear(low, self.lora_B)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear layer itself, its matrix with the product added."""
        self.linear.weight += self.scale * self.lora_B @ self.lora_A
        return self.linear


def add_lora(gpt: GPT, config: LoraConfig, seed: int) -> GPT:
    """The same model with adapters put on, and all else frozen. `seed` decides how they begin."""
    gpt.requires_grad_(False)
    wanted = LAYERS[config.lora_layers]
    for i, block in enumerate(gpt.blocks):
        for part in wanted:
            for j, (name, layer) in enumerate(block.get_submodule(part).named_children()):
                if isinstance(layer, nn.Linear):
                    draw = generator(seed, i, wanted.index(part), j)
                    block.set_submodule(f"{part}.{name}", LoraLinear(layer, config, draw))
    return gpt


def adapters(gpt: GPT) -> dict[str, LoraLinear]:
    """The layers that have one, by name."""
    return {name: module for name, module in gpt.named_modules() if isinstance(module, LoraLinear)}


def merged(gpt: GPT) -> GPT:
    """A plain copy of the model, with the adapters multiplied out and added; the model itself stays as it is."""
    plain = copy.deepcopy(gpt)
    for name, layer in adapters(plain).items():
        plain.set_submodule(name, layer.merged())
    return plain.requires_grad_(True)


def base_digest(gpt: GPT) -> str:
    """SHA-256 over the weights below the adapters: these belong to no other."""
    digest = hashlib.sha256()
    for name, parameter in gpt.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# --- the stage ----------------------------------------------------------------------------------------------------


def open_stage(
    run: RunConfig, config: LoraConfig, group: Group, dtype: torch.dtype, checkpoint: Path | None
) -> Prepared:
    """The inner stage as it is, on the base model with adapters.

    A checkpoint holds the adapters, which training goes on with, and the merged model, for those who use it. So the
    base model is loaded anew each time, and must be what it was.
    Raises: ValueError if it is not; what the inner stage raises.
    """
    inner = config.of.prepare(run, group, dtype, None)
    gpt, base = add_lora(inner.gpt, config, run.machine.seed), init_folder(run.init)
    digest = base_digest(gpt)
    if checkpoint:
        load_adapters(adapters(gpt), gpt.config, checkpoint, digest)
    elif group.is_main and missing_tokens(Tokenizer.load(base)):
        say("note: the rows of the new control tokens are frozen like all the rest; fine-tune with `sft` first")

    def save(folder: Path) -> None:
        save_chat_model(merged(gpt), inner.tokenizer, folder)
        save_adapters(adapters(gpt), gpt.config, config, folder, base, digest)

    return inner._replace(stage=inner.stage._replace(save=save))
