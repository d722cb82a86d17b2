"""A compressed model as a run folder, and back.

    config.json          the shape under our own model type, and `quantization_config`: what was done
    model.safetensors    NAME.weight and NAME.scale of each matrix, in the formats of `kernels.quantization`; all else
                         as floats
    tokenizer.json, ...  as in the run it came from

The type is our own also where Hugging Face has the shape: transformers 5.23 passes over a quantization method that it
does not know, with a warning, and goes on with random weights; an unknown model type it refuses.

Where the head is tied to the embedding, the one matrix is the embedding's. A model that was only pruned has floats, and
its folder is an ordinary one.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kernels.quantization import check_quantized, columns
from minigpt.compress.quantize import IntegerGPT, layer_of, linear_layers, put_ends
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, Undrawn
from minigpt.model.hf_config import OWN_TYPE, from_hugging_face
from minigpt.model.pretrained import CONFIG, WEIGHTS, save_pretrained
from minigpt.runtime.checkpoint import load_tensors, read_json, save_tensors, write_json
from minigpt.tokenizer import Tokenizer

KEY, METHOD = "quantization_config", "minigpt"
GENERATION = "generation_config.json"


# --- out ----------------------------------------------------------------------------------------------------------


def save_compressed(model: GPT, tokenizer: Tokenizer, source: Path, done: dict[str, Any], folder: Path) -> None:
    """Fill a new folder. `source`: where the model came from and where its generation ends; `done`: for the reader.

    Raises: OSError if the disk is full or read-only.
    """
    folder.mkdir()
    if isinstance(model, IntegerGPT):
        said = {"quant_method": METHOD, **done}
        write_json(folder / CONFIG, {"model_type": OWN_TYPE, OWN_TYPE: asdict(model.config), KEY: said})
        save_tensors(folder / WEIGHTS, dict(_tensors(model)), metadata={"format": "pt"})
    else:
        save_pretrained(model, folder)
    tokenizer.save(folder)
    if (source / GENERATION).exists():
        shutil.copyfile(source / GENERATION, folder / GENERATION)
    for file in folder.iterdir():
        shutil.copymode(folder / CONFIG, file)  # safetensors writes files that nobody else may read


def _tensors(model: IntegerGPT) -> Iterator[tuple[str, Tensor]]:
    """By name. The embedding's table goes by the name of the embedding; a tied head is that table."""
    for name, tensor in model.state_dict().items():
        if not (model.config.tied and name.startswith("lm_head.")):
            yield name.replace("token_embedding.table.", "token_embedding."), tensor


# --- in -----------------------------------------------------------------------------------------------------------


def is_compressed(folder: Path | str) -> bool:
    """Whether a folder holds integers of ours. False as well where there is no readable config: others say why."""
    try:
        said = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))[KEY]
        return said["quant_method"] == METHOD
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_compressed(folder: Path | str) -> IntegerGPT:
    """The model of a folder with integers, on the CPU: as it is stored, so that it can be judged or saved again.

    `choose.choose` makes it fast. Raises: ValueError for a file that is missing, damaged, or does not fit config.json.
    """
    folder = Path(folder)
    config = read_compressed_config(folder)
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(f"{folder / WEIGHTS} is missing")
    theirs = _Tensors(folder / WEIGHTS)
    with Undrawn():
        model = IntegerGPT(config)
    for name, layer in linear_layers(model).items():
        if name != "lm_head":
            model.set_submodule(name, theirs.layer(name, layer.weight.shape, layer.bias is not None))
    put_ends(model, lambda name: theirs.layer(name, torch.Size((config.vocab_size, config.n_embd)), False))
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(theirs.floats(name, parameter.shape))
    if left := sorted(theirs.found):
        raise ValueError(f"{theirs.file}: the model that {CONFIG} describes has no {left[0]}")
    return model.eval()


def read_compressed_config(folder: Path) -> GPTConfig:
    """The shape of a compressed model. Raises: ValueError for a damaged config.json."""
    data = read_json(folder / CONFIG)
    data.pop(KEY)
    return from_hugging_face(str(folder / CONFIG), data)


class _Tensors:
    """What a file holds, taken piece by piece; each is checked."""

    def __init__(self, file: Path) -> None:
        self.file, self.found = file, load_tensors(file)

    def take(self, name: str) -> Tensor:
        if name not in self.found:
            raise ValueError(f"{self.file} lacks {name}, which {CONFIG} asks for")
        return self.found.pop(name)

    def floats(self, name: str, shape: torch.Size) -> Tensor:
        tensor = self.take(name)
        if tensor.shape != shape or not tensor.is_floating_point() or not tensor.isfinite().all():
            got = f"{tensor.dtype} of shape {list(tensor.shape)}"
            raise ValueError(f"{self.file}: {name} is {got}; {CONFIG} asks for finite floats of shape {list(shape)}")
        return tensor

    def layer(self, name: str, shape: torch.Size, biased: bool) -> nn.Module:
        """One matrix (N, K) of integers with its scales."""
        weight, scale = self.take(f"{name}.weight"), self.take(f"{name}.scale")
        try:
            check_quantized(weight, scale)
        except ValueError as error:
            raise ValueError(f"{self.file}: {name}: {error}") from None
        if (len(weight), columns(weight)) != tuple(shape):
            got = [len(weight), columns(weight)]
            raise ValueError(f"{self.file}: {name} is a matrix of {got}, but {CONFIG} asks for {list(shape)}")
        if not scale.is_floating_point() or not scale.isfinite().all():
            raise ValueError(f"{self.file}: {name}.scale holds what is no finite float: the file is damaged")
        return layer_of(weight, scale, self.floats(f"{name}.bias", shape[:1]) if biased else None)
