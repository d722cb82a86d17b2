"""The same folder means the same model here and in transformers, in both directions."""

import os
import random

import pytest
import torch
from torch import nn

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.hf_config import plain
from minigpt.model.pretrained import load_pretrained, read_config, save_pretrained

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

TYPES = ("gpt2", "llama", "qwen3")
SEEDS = range(20)


def shake(model: nn.Module) -> None:
    """Weights of the size of trained ones: at 0.02 all logits are near 0, and anything would agree."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(mean=1.0 if parameter.dim() == 1 else 0.0, std=0.3)


def their_config(kind: str, pick: random.Random):
    """A random small configuration of a Hugging Face type, through its own class."""
    heads = pick.choice([1, 2, 4])
    common = {"vocab_size": pick.randint(5, 50), "tie_word_embeddings": pick.random() < 0.5}
    common |= {"bos_token_id": None, "eos_token_id": None}
    if kind == "gpt2":
        return transformers.GPT2Config(
            **common, n_positions=16, n_embd=heads * pick.choice([3, 4, 8]), n_layer=pick.randint(1, 3),
            n_head=heads, n_inner=pick.choice([None, 20]), layer_norm_epsilon=pick.choice([1e-5, 1e-3]),
            activation_function=pick.choice(["gelu_new", "gelu_pytorch_tanh"]),
        )  # fmt: skip
    factor, window = pick.choice([None, None, 8.0, 32.0]), pick.choice([None, 3, 7])
    rope = {"rope_type": "default", "rope_theta": pick.choice([1e3, 1e4, 5e5])}
    if factor:
        rope |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope |= {"original_max_position_embeddings": 8192}
    bias = pick.random() < 0.5
    cls, own = {
        "llama": (transformers.LlamaConfig, {"attention_bias": bias, "mlp_bias": bias}),
        "qwen3": (transformers.Qwen3Config, {"use_sliding_window": window is not None,
                                             "sliding_window": window, "max_window_layers": 0}),
    }[kind]
    return cls(
        **common, **own, hidden_size=heads * 8, intermediate_size=pick.choice([12, 40]), rope_parameters=rope,
        num_hidden_layers=pick.randint(1, 3), num_attention_heads=heads, head_dim=pick.choice([4, 8]),
        num_key_value_heads=pick.choice([g for g in (1, 2, 4) if heads % g == 0]),
        max_position_embeddings=16, rms_norm_eps=pick.choice([1e-6, 1e-3]),
    )  # fmt: skip


def our_config(kind: str, pick: random.Random) -> GPTConfig:
    """A random small configuration here that has the shape of a Hugging Face type."""
    heads = pick.choice([1, 2, 4])
    common = {"vocab_size": pick.randint(5, 50), "context_length": 16, "n_layer": pick.randint(1, 3)}
    common |= {"n_head": heads, "n_embd": heads * 8, "mlp_width": pick.choice([None, 20])}
    common |= {"tied": pick.random() < 0.5, "norm_eps": pick.choice([1e-6, 1e-3])}
    common |= {"dropout": pick.choice([0.0, 0.25])}
    if kind == "gpt2":
        bias = pick.random() < 0.5
        return GPTConfig(**common, position="learned", norm="layer", mlp="gelu", qk_norm=False, bias=bias)
    common |= {"n_kv_head": pick.choice([None, 1]), "head_dim": pick.choice([None, 4])}
    common |= {"rope_theta": pick.choice([1e3, 1e6]), "rope_factor": pick.choice([1.0, 8.0])}
    if kind == "llama":
        return GPTConfig(**common, qk_norm=False, bias=pick.random() < 0.5)
    return GPTConfig(**common, window=pick.choice([None, 3]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", TYPES)
def test_a_folder_of_transformers_opens_here(kind, seed, tmp_path):
    """Logits within 1e-4 for whatever their config class can say within our reach; also several files."""
    torch.manual_seed(seed)
    pick = random.Random(seed)
    theirs = transformers.AutoModelForCausalLM.from_config(their_config(kind, pick)).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path, max_shard_size=pick.choice(["1GB", "3KB"]))
    ours = load_pretrained(tmp_path).eval()
    ids = torch.randint(theirs.config.vocab_size, (2, 11))  # (B, T)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", TYPES)
def test_a_folder_of_ours_opens_in_transformers_and_here(kind, seed, tmp_path):
    """Logits within 1e-4 there; the same config and the very same logits back here."""
    torch.manual_seed(seed)
    config = our_config(kind, random.Random(seed))
    ours = GPT(config).eval()
    shake(ours)
    save_pretrained(ours, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert theirs.config.model_type == kind
    ids = torch.randint(config.vocab_size, (2, 11))  # (B, T)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    assert read_config(tmp_path) == plain(config)
    assert torch.equal(load_pretrained(tmp_path).eval()(ids), ours(ids))


def test_what_transformers_fine_tuned_comes_back(tmp_path):
    """Open there, save there, open here: our own key survives, and a bias that grew there is not dropped."""
    config = GPTConfig(
        vocab_size=7, context_length=8, n_layer=1, n_head=1, n_embd=8, position="learned", norm="layer",
        mlp="gelu", qk_norm=False, bias=False, dropout=0.0,
    )  # fmt: skip
    save_pretrained(GPT(config), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    assert read_config(tmp_path) == config
    load_pretrained(tmp_path)
    with torch.no_grad():
        theirs.transformer.h[0].mlp.c_fc.bias.fill_(0.5)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"mlp.c_fc.bias.*minigpt.bias"):
        load_pretrained(tmp_path)
