"""Adapters in two files, as peft keeps them: adapter_model.safetensors and adapter_config.json.

peft names a matrix by its place in transformers' model. Where that model has no such place (GPT-2's fuses q, k and v
into one matrix, and a shape of our own is not transformers' at all) the names are ours, and no adapter_config.json says
that peft could read them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from minigpt.finetune.config import LoraConfig
from minigpt.model.config import GPTConfig
from minigpt.model.hf_config import model_type
from minigpt.model.hf_names import place
from minigpt.runtime.checkpoint import load_tensors, save_tensors, write_json

ADAPTERS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_TYPES = ("llama", "qwen3")


def save_adapters(
    layers: Mapping[str, nn.Module], shape: GPTConfig, config: LoraConfig, folder: Path, base: Path, digest: str
) -> None:
    """Write them into an existing folder. `digest` says to which base weights they belong."""
    tensors = {key: tensor for _, key, tensor in _named(layers, shape)}
    # one entry only: of two, safetensors writes now this one first and now that
    save_tensors(folder / ADAPTERS, tensors, metadata={"base": digest})
    if model_type(shape) in PEFT_TYPES:
        write_json(folder / CONFIG, _peft_config(list(layers), config, base))


@torch.no_grad()
def load_adapters(layers: Mapping[str, nn.Module], shape: GPTConfig, folder: Path, digest: str) -> None:
    """Bring the adapters to where `folder` has them.

    Raises: ValueError if they were trained on other base weights, or are of another shape.
    """
    with safe_open(folder / ADAPTERS, framework="pt") as file:
        theirs = (file.metadata() or {}).get("base")
    if theirs != digest:
        raise ValueError(f"{folder / ADAPTERS}: the base model is not the one that these adapters were trained on: "
                         f"its weights are {digest[:12]}, not {str(theirs)[:12]}")  # fmt: skip
    saved = load_tensors(folder / ADAPTERS)
    for name, key, tensor in _named(layers, shape):
        if key not in saved or saved[key].shape != tensor.shape:
            found = list(saved[key].shape) if key in saved else "nothing"
            raise ValueError(f"{folder / ADAPTERS}: {name} needs {key} of shape {list(tensor.shape)}, found {found}")
        tensor.copy_(saved[key])


def _named(layers: Mapping[str, nn.Module], shape: GPTConfig) -> list[tuple[str, str, Tensor]]:
    """(our layer, key in the file, tensor)."""
    named = []
    for name, layer in layers.items():
        kind = model_type(shape)
        theirs = place(f"{name}.weight", kind).key.removesuffix(".weight") if kind in PEFT_TYPES else name
        named += [(name, f"base_model.model.{theirs}.{part}.weight", getattr(layer, part))
                  for part in ("lora_A", "lora_B")]  # fmt: skip
    return named


def _peft_config(names: list[str], config: LoraConfig, base: Path) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name in names}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
