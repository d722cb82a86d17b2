"""Their config.json and ours: what is the same shape, and what is refused with file and key."""

import json

import pytest

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT
from minigpt.model.hf_config import (
    export_problem,
    from_hugging_face,
    misfits,
    model_type,
    plain,
    to_hugging_face,
)
from minigpt.model.pretrained import load_pretrained, read_config, save_pretrained

SIZES = {"vocab_size": 19, "context_length": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
SHAPES = {
    "qwen3": {},
    "llama": {"qk_norm": False, "bias": True, "tied": False},
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "qk_norm": False, "bias": True},
    "minigpt": {"position": "alibi", "mlp": "relu2", "n_kv_head": 1, "window": 3, "dropout": 0.1, "short_conv": 2},
}


@pytest.mark.parametrize(
    "shape, reason",
    [
        ({"position": "alibi"}, "qwen3, needs position=rope (here alibi)"),
        ({"short_conv": 4}, "qwen3, needs short_conv=0 (here 4)"),
        ({"mlp": "relu2"}, "qwen3, needs mlp=swiglu (here relu2)"),
        ({"norm": "layer", "mlp": "relu2"}, "qwen3, needs norm=rms (here layer), mlp=swiglu (here relu2)"),
        ({"position": "sinusoidal", "qk_norm": False}, "llama, needs position=rope (here sinusoidal)"),
        ({"window": 1, "qk_norm": False}, "qwen3, needs qk_norm=on (here off)"),
        ({"bias": True}, "qwen3, needs bias=off (here on)"),
        ({**SHAPES["gpt2"], "window": 1}, "gpt2, needs window=none (here 1)"),
        ({**SHAPES["gpt2"], "n_kv_head": 1}, "gpt2, needs n_kv_head=2 (here 1)"),
        ({**SHAPES["gpt2"], "head_dim": 3}, "gpt2, needs head_dim = n_embd / n_head (here 3)"),
        ({**SHAPES["llama"], "n_embd": 9, "head_dim": 4},
         "llama, needs an n_head that divides n_embd (here 2 and 9)"),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_export_says_why(shape, reason, tmp_path):
    """Trained and sampled here all the same, and kept in our own layout."""
    config = GPTConfig(**{**SIZES, **shape})
    assert export_problem(config) == f"no Hugging Face type has this shape: the nearest, {reason}"
    save_pretrained(GPT(config), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "minigpt"
    assert read_config(tmp_path) == config
    load_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2"])
def test_a_shape_of_theirs_exports(kind):
    """Nothing to say."""
    config = GPTConfig(**SIZES, **SHAPES[kind])
    assert export_problem(config) is None
    assert misfits(config, kind) == []
    assert model_type(config) == to_hugging_face(config)["model_type"] == kind


def test_plain_is_what_a_user_would_type():
    """A number that `none` stands for becomes `none`; any other stays."""
    config = GPTConfig(n_embd=256, n_head=4, n_kv_head=4, head_dim=64, mlp_width=704)
    assert plain(config) == GPTConfig(n_embd=256, n_head=4)
    odd = GPTConfig(n_embd=250, n_head=4, n_kv_head=2, head_dim=64, mlp_width=700)
    assert plain(odd) == odd


# --- theirs -> ours -----------------------------------------------------------------------------------------


def theirs(kind, **changes):
    """A config.json of that type with some keys changed; None takes a key out."""
    data = to_hugging_face(GPTConfig(**SIZES, **SHAPES[kind])) | changes
    return {key: value for key, value in data.items() if value is not None}


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("gpt2", {"model_type": "mistral"}, "model_type='mistral'.*qwen3, llama, gpt2, minigpt"),
        ("gpt2", {"model_type": None}, "model_type is missing"),
        ("gpt2", {"activation_function": "relu"}, "activation_function='relu'.*only 'gelu_new'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"n_layer": "2"}, "n_layer='2' should be of type int"),
        ("gpt2", {"n_head": 3}, "n_head=3 does not divide n_embd=8"),
        ("gpt2", {"minigpt": 3}, "minigpt=3 should be of type dict"),
        ("llama", {"hidden_size": None}, "hidden_size is missing"),
        ("llama", {"tie_word_embeddings": 1}, "tie_word_embeddings=1 should be of type bool"),
        ("llama", {"mlp_bias": False}, "attention_bias=True with mlp_bias=False is not supported"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'.*only 'silu'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config.*unquantized"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: rope_type='yarn'.*'llama3'"),
        ("llama", {"rope_parameters": {}, "rope_scaling": {"type": "linear"}}, "rope_scaling: type='linear'"),
        ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "rope_parameters: factor is missing"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0}},
         "rope_parameters: low_freq_factor=2.0.*only 1.0"),
        ("llama", {"rope_parameters": 3}, "rope_parameters=3 should be of type dict"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("qwen3", {"attention_bias": True}, "attention_bias=True.*only False"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1,
                   "layer_types": None}, "a window in 1 of 2 layers"),
        ("minigpt", {"minigpt": {"n_layers": 3}}, "minigpt: unknown setting 'n_layers'.*n_layer"),
        ("minigpt", {"minigpt": {"n_embd": 7}}, "n_head=4 does not divide n_embd=7"),
        ("minigpt", {"minigpt": None}, "minigpt is missing"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_honoured_is_refused(kind, changes, message):
    """Opening it anyway would give a model that runs and is wrong; the line names the file and the key."""
    with pytest.raises(ValueError, match=message) as refusal:
        from_hugging_face("x/config.json", theirs(kind, **changes))
    assert str(refusal.value).startswith("x/config.json: ")
    assert "\n" not in str(refusal.value)


def test_older_and_newer_names_of_the_same_rope_agree():
    """transformers 4 wrote rope_theta and rope_scaling, transformers 5 writes rope_parameters."""
    config = GPTConfig(**SIZES, rope_theta=5e5, rope_factor=32.0)
    both = to_hugging_face(config)
    old = {key: value for key, value in both.items() if key != "rope_parameters"}
    new = {key: value for key, value in both.items() if key not in ("rope_theta", "rope_scaling")}
    assert from_hugging_face("", old) == from_hugging_face("", new) == config


def test_a_window_set_but_not_used_is_none():
    """Qwen3's own files carry sliding_window beside use_sliding_window=false."""
    unused = theirs("qwen3", sliding_window=4096, layer_types=None)
    assert from_hugging_face("", unused).window is None
    for first, window in [(28, None), (0, 4096)]:
        used = unused | {"use_sliding_window": True, "max_window_layers": first}
        assert from_hugging_face("", used).window == window


