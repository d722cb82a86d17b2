"""One file for llama.cpp: settings, tokenizer and weights, in four precisions (GGUF, version 3)."""

import errno
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.export import gguf_model, gguf_tokenizer
from minigpt.model.gpt import GPT
from minigpt.runtime.console import say
from minigpt.tokenizer import Tokenizer

FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}  # general.file_type, as llama.cpp counts
QUANTIZATION_VERSION = 2
Q8_0_WIDTH = 32  # numbers that share one scale


def gguf_library() -> ModuleType:
    """llama.cpp's own writer. Raises: ImportError naming the extra."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise ImportError('.gguf files need the extra "export": pip install "minigpt[export]"') from None
    return gguf


def write_gguf(model: GPT, tokenizer: Tokenizer, ends: Sequence[int], dtype: str, name: str, file: Path) -> None:
    """Write everything that llama.cpp needs into a new file.

    Raises: ImportError without the extra `export`; ValueError if llama.cpp has no such shape or pattern, or a weight
            does not fit the dtype; OSError.
    """
    gguf, config = gguf_library(), model.config
    settings = {
        "general.name": name,
        "general.file_type": FILE_TYPE[dtype],
        "general.quantization_version": QUANTIZATION_VERSION,
        **gguf_model.settings(config),
        **gguf_tokenizer.settings(tokenizer, ends, config.vocab_size),
    }
    writer = gguf.GGUFWriter(file, gguf_model.architecture(config))
    for key, value in settings.items():
        _add(writer, key, value)
    finer = []
    for tensor_name, tensor in gguf_model.tensors(model):
        numbers, kind = encoded(tensor_name, tensor, dtype)
        writer.add_tensor(tensor_name, numbers, raw_dtype=kind)
        finer += [tensor_name] if dtype == "q8_0" and kind.name == "F16" else []
    if finer:
        say(f"{len(finer)} matrices, the first is {finer[0]}, have rows that are no multiple of {Q8_0_WIDTH}, as q8_0 "
            "needs: they are kept in f16")  # fmt: skip
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        if error.errno is not None:
            raise
        # numpy says only how much it wrote
        raise OSError(errno.ENOSPC, "No space left on device", str(file)) from None
    finally:
        writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    """One setting, with the type that llama.cpp expects for it."""
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
           list: writer.add_array}  # fmt: skip
    add[type(value)](key, value)


def encoded(name: str, tensor: Tensor, dtype: str) -> tuple[np.ndarray, Any]:
    """The numbers as the file holds them, and GGUF's name for their type.

    Vectors and positions are few, llama.cpp adds and multiplies with them in float32, and so they stay. Rows that q8_0
    cannot divide into its groups are kept in f16.
    Raises: ValueError if a number is not finite, or too large for float16.
    """
    gguf = gguf_library()
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    if tensor.dim() == 1 or name.startswith("position_embd"):
        kind = gguf.GGMLQuantizationType.F32
    elif dtype == "q8_0" and tensor.size(-1) % Q8_0_WIDTH:
        kind = gguf.GGMLQuantizationType.F16
    numbers = tensor.detach().float().contiguous()
    limit = torch.finfo(torch.float16 if kind == gguf.GGMLQuantizationType.F16 else torch.float32).max
    if not bool((numbers.abs() <= limit).all()):
        raise ValueError(f"{name} holds numbers that are not finite, or beyond the {limit:.5g} of {kind.name}")
    return gguf.quants.quantize(numbers.numpy(), kind), kind
