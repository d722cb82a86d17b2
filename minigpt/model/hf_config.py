"""Which Hugging Face model is this config?

Three of their model types have the shape of a GPT here: `gpt2`, `llama` and `qwen3`. A shape that none of them can
express is kept under our own type `minigpt`, with our own names, and `export_problem` says why.
"""

from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeVar

from minigpt.config import from_dict
from minigpt.model.config import GPTConfig

Value = TypeVar("Value", int, float, bool, str)

# What a type has no setting for, and therefore needs to be so.
NEEDS: dict[str, dict[str, Any]] = {
    "qwen3": {"position": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": True, "bias": False},
    "llama": {"position": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": False, "window": None},
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "qk_norm": False, "window": None},
}
OWN_TYPE = "minigpt"
# The same in Llama 3.1, 3.2 and 3.3; only the factor differs.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def misfits(config: GPTConfig, model_type: str) -> list[str]:
    """What keeps a config from being of a Hugging Face type: `position=rope (here alibi)`."""
    wrong = [
        f"{name}={str(needed).lower()} (here {str(getattr(config, name)).lower()})"
        for name, needed in NEEDS[model_type].items()
        if getattr(config, name) != needed
    ]
    if model_type == "gpt2" and config.kv_heads != config.n_head:
        wrong.append(f"n_kv_head={config.n_head} (here {config.kv_heads})")
    if model_type == "gpt2" and config.dims_per_head * config.n_head != config.n_embd:
        wrong.append(f"n_head * head_dim = n_embd (here {config.n_head} * {config.dims_per_head} and {config.n_embd})")
    if model_type == "llama" and config.n_embd % config.n_head:
        wrong.append(f"an n_head that divides n_embd (here {config.n_head} and {config.n_embd})")
    return wrong


def model_type(config: GPTConfig) -> str:
    """gpt2, llama or qwen3, where one of them has this shape; else minigpt."""
    return next((name for name in NEEDS if not misfits(config, name)), OWN_TYPE)


def export_problem(config: GPTConfig) -> str | None:
    """Why no Hugging Face type can express this shape; None if one does."""
    if model_type(config) != OWN_TYPE:
        return None
    nearest = min(NEEDS, key=lambda name: len(misfits(config, name)))
    return f"no Hugging Face type has this shape; the nearest, {nearest}, needs {', '.join(misfits(config, nearest))}"


# --- config: ours -> theirs -------------------------------------------------------------------------------------


def to_hugging_face(config: GPTConfig) -> dict[str, Any]:
    """What config.json holds, but for the dtype of the weights."""
    kind = model_type(config)
    if kind == OWN_TYPE:
        return {"model_type": OWN_TYPE, OWN_TYPE: asdict(config)}
    shared = {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,  # the room knows no text: generation_config.json says where it begins and ends
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
        theirs[OWN_TYPE] = {"bias": False}  # there all biases exist, and are written as zeros
    return theirs


def _to_llama(config: GPTConfig, kind: str) -> dict[str, Any]:
    """llama and qwen3: the same keys, but for where biases and a window can be."""
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
        "rope_theta": config.rope_theta,  # transformers 4 reads these two,
        "rope_scaling": None if config.rope_factor == 1.0 else rope,
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},  # transformers 5 this one
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


# --- config: theirs -> ours -------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """Someone else's config.json, read key by key; every refusal names the file and the key."""

    file: str
    data: dict[str, Any]

    def take(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """The value of a key. Absent or null counts as the default, and as an error without one."""
        value = self.data.get(key)
        if value is None:
            if default is None:
                raise ValueError(f"{self.file}: {key} is missing; it should be of type {kind.__name__}")
            return default
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{self.file}: {key}={value!r} should be of type {kind.__name__}")
        return kind(value)

    def insist(self, key: str, *supported: Any) -> None:
        """The key holds one of the supported values (the first is what its absence means), or is refused."""
        value = self.data.get(key)
        if value is not None and value not in supported:
            choices = " or ".join(repr(choice) for choice in supported)
            raise ValueError(f"{self.file}: {key}={value!r} is not supported; only {choices} is")


def from_hugging_face(file: str, data: dict[str, Any]) -> GPTConfig:
    """A GPTConfig from the contents of config.json.

    Dropout matters to training alone, and there is one here where they have up to three: the residual one is taken.

    Raises: ValueError naming the file and the key for whatever cannot be expressed here.
    """
    read = Reader(file, data)
    kind = read.take("model_type", str)
    if data.get("quantization_config") is not None:
        raise ValueError(f"{file}: quantization_config: quantized weights are not read; take the full-precision ones")
    if kind == OWN_TYPE:
        return from_dict(GPTConfig(), data.get(OWN_TYPE), f"{file}: {OWN_TYPE}")
    if kind not in NEEDS:
        known = ", ".join([*NEEDS, OWN_TYPE])
        raise ValueError(f"{file}: model_type={kind!r} is not supported; these are: {known}")
    try:
        return _from_gpt2(read) if kind == "gpt2" else _from_llama(read, kind)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(file) else f"{file}: {message}") from None


def _from_gpt2(read: Reader) -> GPTConfig:
    read.insist("activation_function", "gelu_new", "gelu_pytorch_tanh")
    read.insist("scale_attn_weights", True)
    read.insist("scale_attn_by_inverse_layer_idx", False)
    read.insist("add_cross_attention", False)
    own = read.data.get(OWN_TYPE) or {}
    return plain(GPTConfig(
        vocab_size=read.take("vocab_size", int, 50257),
        context_length=read.take("n_positions", int, 1024),
        n_layer=read.take("n_layer", int, 12),
        n_head=read.take("n_head", int, 12),
        n_embd=(n_embd := read.take("n_embd", int, 768)),
        mlp_width=read.take("n_inner", int, 4 * n_embd),
        norm_eps=read.take("layer_norm_epsilon", float, 1e-5),
        dropout=read.take("resid_pdrop", float, 0.1),
        tied=read.take("tie_word_embeddings", bool, True),
        bias=own.get("bias") is not False,
        position="learned", norm="layer", mlp="gelu", qk_norm=False,
    ))  # fmt: skip


def _from_llama(read: Reader, kind: str) -> GPTConfig:
    read.insist("hidden_act", "silu", "swish")
    theta, factor = _rope(read)
    bias = read.take("attention_bias", bool, False)
    if kind == "qwen3":
        read.insist("attention_bias", False)
    elif read.take("mlp_bias", bool, False) != bias:
        raise ValueError(f"{read.file}: attention_bias={bias} with mlp_bias={not bias} is not supported; only both are")
    return plain(GPTConfig(
        vocab_size=read.take("vocab_size", int),
        context_length=read.take("max_position_embeddings", int),
        n_layer=(n_layer := read.take("num_hidden_layers", int)),
        n_head=(n_head := read.take("num_attention_heads", int)),
        n_kv_head=read.take("num_key_value_heads", int, n_head if kind == "llama" else 32),
        n_embd=(n_embd := read.take("hidden_size", int)),
        head_dim=read.take("head_dim", int, n_embd // n_head if kind == "llama" else 128),
        mlp_width=read.take("intermediate_size", int),
        norm_eps=read.take("rms_norm_eps", float, 1e-6),
        dropout=read.take("attention_dropout", float, 0.0),
        tied=read.take("tie_word_embeddings", bool, False),
        window=_window(read, n_layer) if kind == "qwen3" else None,
        position="rope", norm="rms", mlp="swiglu", qk_norm=kind == "qwen3", bias=bias,
        rope_theta=theta, rope_factor=factor,
    ))  # fmt: skip


def plain(config: GPTConfig) -> GPTConfig:
    """The same shape with `none` where that is what it stands for: what a user would have typed."""
    bare = replace(config, n_kv_head=None if config.kv_heads == config.n_head else config.n_kv_head, mlp_width=None)
    if config.head_dim is not None and config.head_dim * config.n_head == config.n_embd:
        bare = replace(bare, head_dim=None)
    return bare if bare.hidden == config.hidden else replace(bare, mlp_width=config.mlp_width)


def _rope(read: Reader) -> tuple[float, float]:
    """(theta, factor) from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (transformers 4)."""
    key = "rope_parameters" if read.data.get("rope_parameters") else "rope_scaling"
    found = read.data.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{read.file}: {key}={found!r} should be an object")
    rope = Reader(f"{read.file}: {key}", found)
    theta = rope.take("rope_theta", float, read.take("rope_theta", float, 10000.0))
    read.insist("partial_rotary_factor", 1.0)
    rope.insist("partial_rotary_factor", 1.0)
    rope.insist("type", "default", "llama3")  # the older name of rope_type
    rope.insist("rope_type", "default", "llama3")
    if found.get("rope_type", found.get("type", "default")) == "default":
        return theta, 1.0
    for name, value in LLAMA3_ROPE.items():
        rope.insist(name, value)
    return theta, rope.take("factor", float)


def _window(read: Reader, n_layer: int) -> int | None:
    """The one window of all layers. A mixture of windowed and full layers is refused."""
    if not read.take("use_sliding_window", bool, False):
        return None
    first = read.take("max_window_layers", int, 28)  # from this layer on, unless layer_types says it one by one
    sliding = read.data.get("layer_types") or ["sliding_attention" if i >= first else "full" for i in range(n_layer)]
    windowed = sum(layer == "sliding_attention" for layer in sliding)
    if windowed not in (0, n_layer):
        raise ValueError(
            f"{read.file}: a window in {windowed} of {n_layer} layers (use_sliding_window, max_window_layers, "
            "layer_types) is not supported; only in all or none is"
        )
    return read.take("sliding_window", int, 4096) if windowed else None
