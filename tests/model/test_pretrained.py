"""Folders: what comes back, and one clear line for each that cannot be opened."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, Undrawn
from minigpt.model.pretrained import load_pretrained, read_config, save_pretrained

SIZES = {"vocab_size": 19, "context_length": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
SHAPES = {
    "qwen3": {},
    "llama": {"qk_norm": False, "bias": True, "tied": False},
    "gpt2": {"position": "learned", "norm": "layer", "mlp": "gelu", "qk_norm": False, "bias": True},
    "minigpt": {"position": "alibi", "mlp": "relu2", "n_kv_head": 1, "window": 3, "dropout": 0.1, "short_conv": 2},
}


@pytest.fixture(params=SHAPES)
def saved(request, tmp_path):
    """A folder of each type, and the model it was written from."""
    torch.manual_seed(1)
    gpt = GPT(GPTConfig(**SIZES, **SHAPES[request.param])).eval()
    save_pretrained(gpt, tmp_path)
    return tmp_path, gpt


def save(folder, **shape):
    folder.mkdir(exist_ok=True)
    save_pretrained(GPT(GPTConfig(**SIZES, **shape)), folder)
    return folder


def test_what_is_saved_comes_back(saved):
    """The same config and, to the bit, the same logits: the weights of a run and its samples rest on this."""
    folder, gpt = saved
    assert read_config(folder) == gpt.config
    again = load_pretrained(folder).eval()
    ids = torch.randint(19, (2, 8))
    assert torch.equal(again(ids), gpt(ids))


def test_loading_draws_no_weight(saved):
    """What is overwritten at once need not be drawn: that was most of the time that loading took."""
    folder, gpt = saved
    before = torch.get_rng_state()
    again = load_pretrained(folder)
    assert torch.equal(before, torch.get_rng_state())
    with Undrawn():
        assert GPT(gpt.config).state_dict().keys() == again.state_dict().keys()
    assert torch.equal(before, torch.get_rng_state())
    GPT(gpt.config)
    assert not torch.equal(before, torch.get_rng_state())  # and outside weights are drawn


def test_saving_twice_writes_the_same_bytes(saved):
    """A checkpoint's digest is only worth something if the same weights are the same file."""
    folder, _ = saved
    before = [(folder / name).read_bytes() for name in ("config.json", "model.safetensors")]
    save_pretrained(load_pretrained(folder), folder)
    assert before == [(folder / name).read_bytes() for name in ("config.json", "model.safetensors")]


def test_tied_weights_are_stored_once(tmp_path):
    """One tensor for embedding and head in the file as in the model."""
    tensors = load_file(save(tmp_path) / "model.safetensors")
    assert not [key for key in tensors if "lm_head" in key]
    assert sum(tensor.shape == (19, 8) for tensor in tensors.values()) == 1


def test_weights_come_back_in_float32_whatever_they_were(tmp_path):
    """Masters are float32; a folder of bfloat16 weights is a starting point like any other."""
    save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in tensors.items()}, tmp_path / "model.safetensors")
    weights = list(load_pretrained(tmp_path).parameters())
    assert {w.dtype for w in weights} == {torch.float32}
    torch.testing.assert_close(weights[0], tensors["model.embed_tokens.weight"], atol=1e-3, rtol=1e-2)


def test_a_config_can_be_given_beside_the_weights(tmp_path):
    """Dropout belongs to a run, not to the weights."""
    gpt = load_pretrained(save(tmp_path), GPTConfig(**SIZES, dropout=0.3))
    assert gpt.config.dropout == 0.3


def test_a_body_without_its_head_opens(tmp_path):
    """OpenAI's own GPT-2 files name weights without `transformer.`, and carry masks that are no weights."""
    save(tmp_path, **SHAPES["gpt2"])
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {key.removeprefix("transformer."): tensor for key, tensor in tensors.items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 8, 8).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    expected = load_pretrained(tmp_path)
    save_file(bare, tmp_path / "model.safetensors")
    for name, parameter in load_pretrained(tmp_path).named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name))


# --- what cannot be opened ----------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    """Also the folder that is no model at all."""
    with pytest.raises(FileNotFoundError, match=r"config.json is missing: this is not the folder"):
        load_pretrained(tmp_path)
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor .*index.json"):
        load_pretrained(tmp_path)
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"model-00001-of-00002.safetensors is missing"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"a"', "\x00"])
def test_a_damaged_config_is_named(text, tmp_path):
    """Half a file, another kind of JSON, no JSON."""
    save(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json (is not JSON|should hold an object)"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("weight_map", [None, 3, {"a": 3}])
def test_a_damaged_index_is_named(weight_map, tmp_path):
    """The list of files is read before any of them."""
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = json.dumps({"weight_map": weight_map})
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(ValueError, match=r"index.json: weight_map should name a file"):
        load_pretrained(tmp_path)


def test_truncated_weights_are_refused(tmp_path):
    """Cut anywhere: in the header's length, in the header, in the numbers."""
    file = save(tmp_path) / "model.safetensors"
    whole = file.read_bytes()
    for length in [0, 1, 7, 8, 9, 50, 500, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model.safetensors is damaged \(.*\); copy or download"):
            load_pretrained(tmp_path)


def test_a_flipped_bit_in_the_header_is_refused_or_harmless(tmp_path):
    """Never another exception or another shape. (Flipped numbers are for a checkpoint's digest to find.)"""
    file = save(tmp_path) / "model.safetensors"
    whole, pick = file.read_bytes(), random.Random(1)
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[pick.randrange(header)] ^= 1 << pick.randrange(8)
        file.write_bytes(damaged)
        try:
            load_pretrained(tmp_path)
        except ValueError as refusal:
            assert str(tmp_path) in str(refusal) and "\n" not in str(refusal)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model.norm.weight": None}, "the weights lack model.norm.weight, which config.json asks for"),
        ({"model.norm.weight": torch.ones(9)}, r"model.norm.weight is .* of shape \[9\].*shape \[8\]"),
        ({"model.norm.weight": torch.ones(8).to(torch.int8)}, "model.norm.weight is torch.int8.*floats"),
        ({"model.layers.2.mlp.up_proj.weight": torch.ones(2)}, "layers.2.mlp.up_proj.weight.*no such weight"),
        ({"lm_head.weight": torch.ones(19, 8)}, "lm_head.weight.*tie_word_embeddings is true"),
        ({"model.norm.bias": torch.ones(8)}, "norm.bias.*no biases, but this one is not zero"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_named(change, message, tmp_path):
    """Nothing is dropped silently and nothing is left as it was initialised."""
    file = save(tmp_path) / "model.safetensors"
    tensors = load_file(file) | change
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, file)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    """A full or read-only disk reaches the caller as such, not as a safetensors matter."""
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(OSError, match=r"model.safetensors could not be written"):
        save(tmp_path)
