"""What are a model's weights called in a Hugging Face file?

One direction, ours -> theirs, serves reading and writing alike: both walk over our weights and ask where each
of them lies.
"""

from typing import NamedTuple

from minigpt.model.hf_config import OWN_TYPE


class Place(NamedTuple):
    """Where one of our weights lies in their file."""

    key: str
    part: int | None = None   # which third of a fused q, k, v
    transposed: bool = False  # GPT-2 came from TensorFlow, which keeps matrices as (in, out)


LLAMA_PARTS = {
    "token_embedding": "embed_tokens",
    "blocks": "layers",
    "attention_norm": "input_layernorm",
    "attention": "self_attn",
    "mlp_norm": "post_attention_layernorm",
    "final_norm": "norm",
}
GPT2_PARTS = {
    "token_embedding": "wte",
    "position_embedding": "wpe",
    "blocks": "h",
    "attention_norm": "ln_1",
    "attention": "attn",
    "mlp_norm": "ln_2",
    "final_norm": "ln_f",
    "q_proj": "c_attn",
    "k_proj": "c_attn",
    "v_proj": "c_attn",
    "o_proj": "c_proj",
    "up_proj": "c_fc",
    "down_proj": "c_proj",
}
FUSED = ("q_proj", "k_proj", "v_proj")


def place(name: str, kind: str) -> Place:
    """`blocks.0.attention.q_proj.weight` -> where a file of model type `kind` keeps it."""
    parts = name.split(".")
    if kind == OWN_TYPE or parts[0] == "lm_head":
        return Place(name)
    if kind != "gpt2":
        return Place(".".join(["model", *(LLAMA_PARTS.get(part, part) for part in parts)]))
    module, last = parts[-2:]
    return Place(
        key=".".join(["transformer", *(GPT2_PARTS.get(part, part) for part in parts)]),
        part=FUSED.index(module) if module in FUSED else None,
        transposed=module.endswith("_proj") and last == "weight",
    )


def short(key: str) -> str:
    """A key without the name of the body: files of a body without its head leave it out."""
    return key.removeprefix("transformer.").removeprefix("model.")


def is_constant(key: str) -> bool:
    """Whether a key of theirs holds no weight but a mask or a table, as older files do."""
    return key.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"))
