"""What llama.cpp calls a model of ours, its settings and its weights.

Three of its architectures have the shape of a GPT here, as in `hf_config`: `llama`, `qwen3` and `gpt2`.

Its `llama` turns neighbouring channels (0, 1), (2, 3), ... where we, Hugging Face, and its own `qwen3` turn the two
halves of a head, (0, D/2), (1, D/2 + 1), ...; so for `llama` the rows of q and k are put into the other order. Scores
are sums over channels: they do not notice.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.hf_config import NEEDS, misfits
from minigpt.model.positions import frequencies, stretched

NAMES = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "attention_norm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "mlp_norm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "final_norm": "output_norm",
    "lm_head": "output",
}
FUSED = ("q_proj", "k_proj", "v_proj")


def architecture(config: GPTConfig) -> str:
    """llama, qwen3 or gpt2. Raises: ValueError if llama.cpp has none of this shape, naming the settings at fault."""
    wrong = {name: _misfits(config, name) for name in NEEDS}
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    if wrong[nearest]:
        needs = ", ".join(wrong[nearest])
        raise ValueError(f"llama.cpp has no model of this shape: the nearest, {nearest}, needs {needs}")
    return nearest


def _misfits(config: GPTConfig, name: str) -> list[str]:
    """As for Hugging Face; but llama.cpp's qwen3 has no window, and its llama takes any head_dim."""
    wrong = misfits(config, name)
    if name == "llama":
        return [need for need in wrong if not need.startswith("an n_head that divides")]
    return wrong + (["window=none"] if name == "qwen3" and config.window is not None else [])


def settings(config: GPTConfig) -> dict[str, int | float]:
    """The shape, under llama.cpp's keys."""
    name = architecture(config)
    norm = "layer_norm_rms_epsilon" if config.norm == "rms" else "layer_norm_epsilon"
    ours: dict[str, int | float] = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.hidden,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.dims_per_head,
        "attention.value_length": config.dims_per_head,
        f"attention.{norm}": config.norm_eps,
    }
    if config.position == "rope":
        ours |= {"rope.dimension_count": config.dims_per_head, "rope.freq_base": config.rope_theta}
    return {f"{name}.{key}": value for key, value in ours.items()}


def tensors(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) as llama.cpp loads them, matrices as (out, in). Tied weights appear once."""
    config, name = model.config, architecture(model.config)
    if name == "gpt2":
        yield from _gpt2_tensors(model)
        return
    for ours, parameter in model.named_parameters():
        turned = name == "llama" and ours.split(".")[-2] in ("q_proj", "k_proj")
        yield gguf_name(ours), interleaved(parameter, config.dims_per_head) if turned else parameter
    if config.rope_factor != 1.0:
        plain = frequencies(config.dims_per_head, config.rope_theta, model.token_embedding.weight)  # (D/2,)
        yield "rope_freqs.weight", plain / stretched(plain, config.rope_factor)                     # what divides them


def _gpt2_tensors(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """q, k and v are one matrix, and every block and norm has biases: zeros where ours has none."""
    for ours, parameter in model.named_parameters():
        module, name = ours.split(".")[-2], gguf_name(ours)
        if module in FUSED[1:]:
            continue
        if module == FUSED[0]:
            parameter = torch.cat([model.get_parameter(ours.replace(module, part)) for part in FUSED])  # (3C, C)
            name = name.replace("attn_q.", "attn_qkv.")
        yield name, parameter
        if not model.config.bias and ours.startswith(("blocks.", "final_norm.")):
            yield name.replace(".weight", ".bias"), parameter.new_zeros(parameter.size(0))


def gguf_name(name: str) -> str:
    """`blocks.0.attention.q_proj.weight` -> `blk.0.attn_q.weight`"""
    *parts, module, kind = name.split(".")
    block = f"blk.{parts[1]}." if parts else ""
    return f"{block}{NAMES[module]}.{kind}"


def interleaved(rows: Tensor, head_dim: int) -> Tensor:
    """Rows (H·D, ...) of q or k with the halves of each head put beside each other: 0, D/2, 1, D/2 + 1, ..."""
    heads = rows.view(-1, 2, head_dim // 2, *rows.shape[1:])  # (H, 2, D/2, ...)
    return heads.transpose(1, 2).reshape(rows.shape)          # (H·D, ...)
