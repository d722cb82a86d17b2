"""Which Hugging Face model is this config?

Three of their model types have the shape of a GPT here: `gpt2`, `llama` and `qwen3`. A shape that none of
them can express is kept under our own type `minigpt`, with our own names, and `export_problem` says why.
"""

from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeVar

from minigpt.config import from_dict
from minigpt.model.config import GPTConfig

Value = TypeVar("Value", int, float, bool, str, dict, list)

OWN_TYPE = "minigpt"
# What a type has no setting for, and therefore needs to be so.
NEEDS: dict[str, dict[str, Any]] = {
    "qwen3": {"position": "rope", "short_conv": 0, "norm": "rms", "mlp": "swiglu", "qk_norm": True, "bias": False},
    "llama": {"position": "rope", "short_conv": 0, "norm": "rms", "mlp": "swiglu", "qk_norm": False, "window": None},
    "gpt2": {"position": "learned", "short_conv": 0, "norm": "layer", "mlp": "gelu", "qk_norm": False, "window": None},
}
# The same in Llama 3.1, 3.2 and 3.3; only the factor differs.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def misfits(config: GPTConfig, model_type: str) -> list[str]:
    """What keeps a config from being of a Hugging Face type: `position=rope (here alibi)`."""
    wrong = [
        f"{name}={_shown(needed)} (here {_shown(getattr(config, name))})"
        for name, needed in NEEDS[model_type].items()
        if getattr(config, name) != needed
    ]
    if model_type == "gpt2" and config.kv_heads != config.n_head:
        wrong.append(f"n_kv_head={config.n_head} (here {config.kv_heads})")
    if model_type == "gpt2" and config.dims_per_head * config.n_head != config.n_embd:
        wrong.append(f"head_dim = n_embd / n_head (here {config.dims_per_head})")
    if model_type == "llama" and config.n_embd % config.n_head:
        wrong.append(f"an n_head that divides n_embd (here {config.n_head} and {config.n_embd})")
    return wrong


def _shown(value: Any) -> str:
    """As on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def model_type(config: GPTConfig) -> str:
    """gpt2, llama or qwen3, where one of them has this shape; else minigpt."""
    return next((name for name in NEEDS if not misfits(config, name)), OWN_TYPE)


def export_problem(config: GPTConfig) -> str | None:
    """Why no Hugging Face type can express this shape; None if one does."""
    if model_type(config) != OWN_TYPE:
        return None
    nearest = min(NEEDS, key=lambda name: len(misfits(config, name)))
    needs = ", ".join(misfits(config, nearest))
    return f"no Hugging Face type has this shape: the nearest, {nearest}, needs {needs}"


# --- ours -> theirs -----------------------------------------------------------------------------------------


def to_hugging_face(config: GPTConfig) -> dict[str, Any]:
    """What config.json holds, but for the dtype of the weights."""
    kind = model_type(config)
    if kind == OWN_TYPE:
        return {"model_type": OWN_TYPE, OWN_TYPE: asdict(config)}
    shared = {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,  # this room knows no text: generation_config.json says where it begins and ends
        "eos_token_id": None,
    }
    return shared | (_to_gpt2(config) if kind == "gpt2" else _to_llama(config, kind))


def _to_gpt2(config: GPTConfig) -> dict[str, Any]:
    theirs: dict[str, Any] = {
        "architectures": ["GPT2LMHeadModel"],
        "n_positions": config.context_length,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }
    if not config.bias:
        theirs[OWN_TYPE] = {"bias": False}  # gpt2 always has biases: zeros are written, and this says why
    return theirs


def _to_llama(config: GPTConfig, kind: str) -> dict[str, Any]:
    """llama and qwen3 share their keys, but for where biases and a window can be."""
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_factor != 1.0:
        rope = {"rope_type": "llama3", "factor": config.rope_factor, **LLAMA3_ROPE}
    theirs: dict[str, Any] = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[kind]],
        "max_position_embeddings": config.context_length,
        "hidden_size": config.n_embd,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.dims_per_head,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": config.dropout,
        "attention_bias": config.bias,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},  # transformers 5 reads this one,
        "rope_theta": config.rope_theta,                               # transformers 4 the other two
        "rope_scaling": None if config.rope_factor == 1.0 else rope,
    }
    if kind == "llama":
        return theirs | {"mlp_bias": config.bias}
    sliding = config.window is not None
    return theirs | {
        "use_sliding_window": sliding,
        "sliding_window": config.window,
        "max_window_layers": 0 if sliding else config.n_layer,
        "layer_types": ["sliding_attention" if sliding else "full_attention"] * config.n_layer,
    }


# --- theirs -> ours -----------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """Someone else's settings, read key by key; every refusal names the key."""

    data: dict[str, Any]
    place: str = ""  # "rope_scaling: " inside of an inner object

    def take(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """The value of a key. Absent and null stand for the default; without one they are an error."""
        value = self.data.get(key)
        if value is None:
            if default is None:
                raise ValueError(f"{self.place}{key} is missing; it should be of type {kind.__name__}")
            return default
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{self.place}{key}={value!r} should be of type {kind.__name__}")
        return kind(value)

    def insist(self, key: str, *supported: Any) -> None:
        """The key holds one of the supported values, or nothing."""
        value = self.data.get(key)
        if value is not None and value not in supported:
            choices = " or ".join(repr(choice) for choice in supported)
            raise ValueError(f"{self.place}{key}={value!r} is not supported; only {choices} is")


def from_hugging_face(file: str, data: dict[str, Any]) -> GPTConfig:
    """A GPTConfig from the contents of config.json.

    Dropout matters to training alone. There is one here where they have up to three: the residual one counts.

    Raises: ValueError naming the file and the key for whatever cannot be expressed here.
    """
    try:
        return _translate(Reader(data))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _translate(read: Reader) -> GPTConfig:
    kind = read.take("model_type", str)
    if kind == OWN_TYPE:
        return from_dict(GPTConfig(), read.take(OWN_TYPE, dict), OWN_TYPE)
    if kind not in NEEDS:
        raise ValueError(f"model_type={kind!r} is not supported; these are: {', '.join([*NEEDS, OWN_TYPE])}")
    if read.data.get("quantization_config") is not None:
        raise ValueError("quantization_config is not supported; take the model's unquantized weights")
    return plain(GPTConfig(**(_from_gpt2(read) if kind == "gpt2" else _from_llama(read, kind))))


def _from_gpt2(read: Reader) -> dict[str, Any]:
    read.insist("activation_function", "gelu_new", "gelu_pytorch_tanh")
    read.insist("scale_attn_weights", True)
    read.insist("scale_attn_by_inverse_layer_idx", False)
    read.insist("add_cross_attention", False)
    n_embd = read.take("n_embd", int, 768)
    return {
        "vocab_size": read.take("vocab_size", int, 50257),
        "context_length": read.take("n_positions", int, 1024),
        "n_layer": read.take("n_layer", int, 12),
        "n_head": read.take("n_head", int, 12),
        "n_embd": n_embd,
        "mlp_width": read.take("n_inner", int, 4 * n_embd),
        "norm_eps": read.take("layer_norm_epsilon", float, 1e-5),
        "dropout": read.take("resid_pdrop", float, 0.1),
        "tied": read.take("tie_word_embeddings", bool, True),
        "bias": Reader(read.take(OWN_TYPE, dict, {}), f"{OWN_TYPE}: ").take("bias", bool, True),
        **NEEDS["gpt2"],
    }


def _from_llama(read: Reader, kind: str) -> dict[str, Any]:
    read.insist("hidden_act", "silu", "swish")
    n_embd, n_head = read.take("hidden_size", int), read.take("num_attention_heads", int)
    n_layer, bias = read.take("num_hidden_layers", int), read.take("attention_bias", bool, False)
    if kind == "qwen3":
        read.insist("attention_bias", False)
    elif read.take("mlp_bias", bool, False) != bias:
        raise ValueError(f"attention_bias={bias} with mlp_bias={not bias} is not supported; both or none is")
    theta, factor = _rope(read)
    return {
        "vocab_size": read.take("vocab_size", int),
        "context_length": read.take("max_position_embeddings", int),
        "n_layer": n_layer,
        "n_head": n_head,
        "n_kv_head": read.take("num_key_value_heads", int, n_head),
        "n_embd": n_embd,
        "head_dim": read.take("head_dim", int, n_embd // max(n_head, 1) if kind == "llama" else 128),
        "mlp_width": read.take("intermediate_size", int),
        "norm_eps": read.take("rms_norm_eps", float, 1e-6),
        "dropout": read.take("attention_dropout", float, 0.0),
        "tied": read.take("tie_word_embeddings", bool, False),
        "rope_theta": theta,
        "rope_factor": factor,
        **NEEDS[kind],
        **({"bias": bias} if kind == "llama" else {"window": _window(read, n_layer)}),
    }


def plain(config: GPTConfig) -> GPTConfig:
    """The same shape with `none` wherever it stands for the same number: as a user would have typed it."""
    for name, number in (("n_kv_head", "kv_heads"), ("head_dim", "dims_per_head"), ("mlp_width", "hidden")):
        try:
            shorter = replace(config, **{name: None})
        except ValueError:  # head_dim=none wants an n_head that divides n_embd
            continue
        if getattr(shorter, number) == getattr(config, number):
            config = shorter
    return config


def _rope(read: Reader) -> tuple[float, float]:
    """(theta, factor), from `rope_parameters` or, before transformers 5, `rope_theta` and `rope_scaling`."""
    key = "rope_parameters" if read.data.get("rope_parameters") else "rope_scaling"
    rope = Reader(read.take(key, dict, {}), f"{key}: ")
    theta = rope.take("rope_theta", float, read.take("rope_theta", float, 10000.0))
    read.insist("partial_rotary_factor", 1.0)
    rope.insist("partial_rotary_factor", 1.0)
    name = "rope_type" if "rope_type" in rope.data else "type"  # the older name
    rope.insist(name, "default", "llama3")
    if rope.take(name, str, "default") == "default":
        return theta, 1.0
    for setting, value in LLAMA3_ROPE.items():
        rope.insist(setting, value)
    return theta, rope.take("factor", float)


def _window(read: Reader, n_layer: int) -> int | None:
    """Qwen3's window, if all layers have it. A mixture of layers with and without is refused."""
    if not read.take("use_sliding_window", bool, False) or read.data.get("sliding_window", 4096) is None:
        return None
    first = read.take("max_window_layers", int, 28)  # from this layer on, unless layer_types says it for each
    counted = ["sliding_attention" if layer >= first else "" for layer in range(n_layer)]
    sliding = read.take("layer_types", list, counted).count("sliding_attention")
    if sliding not in (0, n_layer):
        raise ValueError(
            f"a window in {sliding} of {n_layer} layers (use_sliding_window, max_window_layers, layer_types) "
            "is not supported; in all or in none is"
        )
    return read.take("sliding_window", int, 4096) if sliding else None
