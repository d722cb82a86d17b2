"""Small runs of every shape to export, and llama.cpp's own reader of what came of them."""

import pytest
import torch
from scripts import some_text

from minigpt.export.command import export_run
from minigpt.export.config import ExportConfig
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import save_pretrained
from minigpt.tokenizer import Tokenizer

LLAMA = {"qk_norm": False}
GPT2 = {"position": "learned", "norm": "layer", "mlp": "gelu", "qk_norm": False, "n_kv_head": None, "bias": True}
SHAPES = {
    "qwen3": {},
    "qwen3, wide heads": {"head_dim": 32, "rope_theta": 1e6},
    "llama": LLAMA,
    "llama, untied": {**LLAMA, "tied": False, "norm_eps": 1e-6},
    "llama, biases": {**LLAMA, "bias": True},
    "llama, stretched": {**LLAMA, "rope_factor": 8.0},
    "llama, odd width": {**LLAMA, "n_embd": 72, "n_head": 3, "n_kv_head": 1, "head_dim": 16, "mlp_width": 96},
    "llama, odd heads": {**LLAMA, "n_head": 5, "n_kv_head": 1, "head_dim": 16},
    "gpt2": GPT2,
    "gpt2, no biases": {**GPT2, "bias": False, "tied": False},
}
MERGING = "the cat sees a dog. It's 2048 friends'\n\n\tnaïve 中文 🙂  "


def shape(**other):
    small = {"vocab_size": 320, "context_length": 64, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
    return GPTConfig(**{**small, **other})


def run_folder(folder, pattern="cl100k", **other):
    """A model with something in every weight, also where norms begin at 1 and biases at 0, and its tokenizer."""
    torch.manual_seed(1)
    model = GPT(shape(**other)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir()
    save_pretrained(model, folder)
    tokenizer = Tokenizer.train([some_text(2000), 9 * MERGING], 310, pattern=pattern)  # ten ids less than the model has
    tokenizer.save(folder)
    return model, tokenizer


def exported(run, to, **wish):
    return export_run(run, ExportConfig(to=to, out=str(run.parent / f"out-{to}"), **wish))


def read_gguf(file):
    """({key: value}, {name: tensor}), through llama.cpp's own reader."""
    gguf = pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    reader = gguf.GGUFReader(file)
    values = {key: field.contents() for key, field in reader.fields.items()}
    return values, {tensor.name: tensor for tensor in reader.tensors}
