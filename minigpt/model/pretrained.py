"""Weights and config to a folder and back, in Hugging Face's layout.

    config.json           the shape
    model.safetensors     the weights: no code in the file, memory-mapped; tied weights stored once

A folder written here opens with `transformers.AutoModelForCausalLM.from_pretrained` where one of its types
has the shape (`export_problem` says why not). Its `gpt2`, `llama` and `qwen3` folders open here, also where
the weights lie in several files.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, Undrawn
from minigpt.model.hf_config import OWN_TYPE, export_problem, from_hugging_face, model_type, to_hugging_face
from minigpt.model.hf_names import is_constant, place, short
from minigpt.runtime.checkpoint import save_tensors

__all__ = ["export_problem", "load_pretrained", "read_config", "save_pretrained"]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


# --- out ----------------------------------------------------------------------------------------------------


def save_pretrained(model: GPT, folder: Path | str) -> None:
    """Write config.json and model.safetensors into an existing folder, over what is there.

    Raises: OSError if the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    config = to_hugging_face(model.config)
    config["dtype"] = str(model.token_embedding.weight.dtype).removeprefix("torch.")
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")
    # transformers insists on the format
    save_tensors(folder / WEIGHTS, dict(_their_tensors(model)), metadata={"format": "pt"})


def _their_tensors(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """(key, tensor) as a file of the model's type keeps them. Tied weights appear once."""
    kind = model_type(model.config)
    fused: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        where, tensor = place(name, kind), parameter.detach()
        tensor = tensor.T if where.transposed else tensor
        if where.part is None:
            yield where.key, tensor
        else:
            fused.setdefault(where.key, []).append(tensor)
    for key, parts in fused.items():  # q, k and v, in this order
        yield key, torch.cat(parts, dim=-1)
    if kind == "gpt2" and not model.config.bias:
        yield from _zero_biases(model)


def _zero_biases(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """GPT-2 has a bias wherever a block or a norm has a weight."""
    widths: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(("blocks.", "final_norm.")):
            key = place(name, "gpt2").key.removesuffix("weight") + "bias"
            widths[key] = widths.get(key, 0) + parameter.size(0)  # q, k and v share one
    for key, width in widths.items():
        yield key, model.token_embedding.weight.new_zeros(width)


# --- in -----------------------------------------------------------------------------------------------------


def read_config(folder: Path | str) -> GPTConfig:
    """The shape of a saved model, without its weights.

    Raises: FileNotFoundError without a config.json, ValueError for one that is damaged or not supported.
    """
    file = Path(folder) / CONFIG
    return from_hugging_face(str(file), _read_json(file))


def is_reward_model(folder: Path | str) -> bool:
    """Whether a folder holds a model that scores answers and writes none. False without a readable config."""
    try:
        return _read_json(Path(folder) / CONFIG).get("id2label") == {"0": "reward"}
    except (OSError, ValueError):
        return False


def must_be_plain(folder: Path | str) -> None:
    """Raises: ValueError for a folder of ours that another loader opens; FileNotFoundError without a config.json."""
    data = _read_json(Path(folder) / CONFIG)
    if is_reward_model(folder):
        raise ValueError(f"{folder} is a reward model: it scores answers, and writes none")
    if data.get("model_type") == OWN_TYPE and data.get("quantization_config"):
        raise ValueError(f"{folder} is compressed: begin with the run it was made from")


def load_pretrained(folder: Path | str, config: GPTConfig | None = None) -> GPT:
    """A model with the folder's weights, in float32. `config` replaces the folder's own, say for its dropout.

    Raises: FileNotFoundError for a missing file; ValueError for a damaged one, for a config that is not
            supported, and for weights that are missing, left over, or of another shape than config.json says.
    """
    folder = Path(folder)
    must_be_plain(folder)
    with Undrawn():
        model = GPT(config or read_config(folder))
    kind = _read_json(folder / CONFIG)["model_type"]
    with ExitStack() as files:
        theirs = _Weights(folder, files)
        for name, parameter in model.named_parameters():
            where = place(name, kind)
            tensor = theirs.take(where.key)
            tensor = tensor.T if where.transposed else tensor       # (out, in)
            if where.part is not None:
                tensor = tensor.chunk(3, dim=0)[where.part]         # q, k or v
            if tensor.shape != parameter.shape or not tensor.is_floating_point():
                raise ValueError(
                    f"{theirs.file(where.key)}: {where.key} is {tensor.dtype} of shape {list(tensor.shape)}, "
                    f"but {CONFIG} asks for floats of shape {list(parameter.shape)}"
                )
            with torch.no_grad():
                parameter.copy_(tensor)
        _check_leftovers(model, theirs)
    return model


class _Weights:
    """The tensors of a folder by short key, from one file or several, read one at a time."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self.folder, self.taken = folder, set[str]()
        self.where: dict[str, tuple[Path, Any, str]] = {}  # short key -> file, the opened file, full key
        for file in _weight_files(folder):
            try:
                opened = files.enter_context(safe_open(file, framework="pt"))
            except SafetensorError as error:
                raise ValueError(f"{file} is damaged ({error}); copy or download it again") from None
            self.where |= {short(key): (file, opened, key) for key in opened.keys()}  # noqa: SIM118

    def file(self, key: str) -> Path:
        return self.where[short(key)][0]

    def take(self, key: str) -> Tensor:
        """The tensor of that key, in its own dtype."""
        if short(key) not in self.where:
            raise ValueError(f"{self.folder}: the weights lack {key}, which {CONFIG} asks for")
        self.taken.add(short(key))
        file, opened, full_key = self.where[short(key)]
        try:
            return opened.get_tensor(full_key)
        except SafetensorError as error:
            raise ValueError(f"{file}: {key} is damaged ({error}); copy or download it again") from None


def _check_leftovers(model: GPT, theirs: _Weights) -> None:
    """What no weight of ours took must not matter: a mask, a copy of the tied head, biases that are zero."""
    for key in sorted(theirs.where.keys() - theirs.taken):
        if is_constant(key):
            continue
        spare, reason = theirs.take(key), "this model has no such weight"
        if key == "lm_head.weight":
            if torch.equal(spare.float(), model.token_embedding.weight):
                continue
            reason = "tie_word_embeddings is true, but the head has weights of its own: set it to false"
        elif not model.config.bias and key.endswith(".bias"):
            if not spare.any():
                continue
            reason = "the model has no biases, but this one is not zero: set minigpt.bias to true"
        raise ValueError(f"{theirs.file(key)}: {key}: as {CONFIG} describes it, {reason}")


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files that its index names."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise FileNotFoundError(f"{folder} has neither {WEIGHTS} nor {INDEX}")
    names = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{folder / INDEX}: weight_map should name a file for each weight")
    files = [folder / name for name in sorted(set(names.values()))]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing, but {INDEX} names it")
    return files


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{file} is missing: this is not the folder of a saved model") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); copy or download it again") from None
    if not isinstance(data, dict):
        raise ValueError(f"{file} should hold an object, not {type(data).__name__}")
    return data
