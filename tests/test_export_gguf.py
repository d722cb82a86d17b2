"""Export for llama.cpp: the same weights under its names, the same cuts of a text, the same tokens."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import GPT2, LLAMA, MERGING, SHAPES, exported, read_gguf, run_folder

from minigpt.completion import load_run
from minigpt.compress.folder import save_compressed
from minigpt.compress.grid import INT8
from minigpt.compress.quantize import quantize, to_floats
from minigpt.engine.config import SamplingConfig
from minigpt.engine.generate import generate
from minigpt.export import gguf_tokenizer
from minigpt.export.gguf_model import architecture, interleaved
from minigpt.export.gguf_tokenizer import notes, pre
from minigpt.model.positions import frequencies, stretched
from minigpt.model.pretrained import load_pretrained
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer.patterns import CL100K, KNOWN, NANOCHAT


def their_weights(model):
    """What llama.cpp should load, written down once more: name by name."""
    config, ours = model.config, {name: p.detach() for name, p in model.named_parameters()}
    names = {"token_embd.weight": ours["token_embedding.weight"]}
    if "position_embedding.weight" in ours:
        names["position_embd.weight"] = ours["position_embedding.weight"]
    if "lm_head.weight" in ours:
        names["output.weight"] = ours["lm_head.weight"]
    if config.rope_factor != 1.0:
        plain = frequencies(config.dims_per_head, config.rope_theta, ours["token_embedding.weight"])
        names["rope_freqs.weight"] = plain / stretched(plain, config.rope_factor)
    biased = architecture(config) == "gpt2" or config.bias
    for kind in ("weight", "bias") if biased else ("weight",):

        def get(name, kind=kind):
            blank = torch.zeros(ours[f"{name}.weight"].size(0))
            return ours[f"{name}.{kind}"] if kind == "weight" else ours.get(f"{name}.bias", blank)

        if kind == "weight" or config.norm == "layer":
            names[f"output_norm.{kind}"] = get("final_norm")
        for i in range(config.n_layer):
            norms = {"attn_norm": "attention_norm", "ffn_norm": "mlp_norm"}
            if config.qk_norm:
                norms |= {"attn_q_norm": "attention.q_norm", "attn_k_norm": "attention.k_norm"}
            rest = {"attn_output": "attention.o_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
            if config.mlp == "swiglu":
                rest["ffn_gate"] = "mlp.gate_proj"
            qkv = {x: get(f"blocks.{i}.attention.{x}_proj") for x in "qkv"}
            if architecture(config) == "gpt2":
                names[f"blk.{i}.attn_qkv.{kind}"] = torch.cat(list(qkv.values()))
            else:
                names |= {f"blk.{i}.attn_{x}.{kind}": tensor for x, tensor in qkv.items()}
            for theirs, part in {**(norms if kind == "weight" or config.norm == "layer" else {}), **rest}.items():
                names[f"blk.{i}.{theirs}.{kind}"] = get(f"blocks.{i}.{part}")
    return names


@pytest.mark.parametrize("other", SHAPES.values(), ids=SHAPES)
def test_a_gguf_file_holds_our_weights_under_llama_cpps_names(other, tmp_path, capsys):
    """Nothing missing, nothing left over, and every number as it was; llama's q and k put back into our order."""
    pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    model, _ = run_folder(tmp_path / "run", **other)
    values, tensors = read_gguf(exported(tmp_path / "run", "gguf"))
    expected, half = their_weights(model), model.config.dims_per_head // 2
    assert tensors.keys() == expected.keys()
    assert values["general.architecture"] == architecture(model.config)
    for name, tensor in tensors.items():
        found = torch.from_numpy(np.array(tensor.data))
        if values["general.architecture"] == "llama" and name.split(".")[-2] in ("attn_q", "attn_k"):
            found = found.view(-1, half, 2, *found.shape[1:]).transpose(1, 2).reshape(found.shape)
        assert torch.equal(found, expected[name]), name


def test_llama_cpp_turns_neighbours_where_we_turn_halves():
    """Rows 0 and 4 of a head of 8 turn together here, so they must stand beside each other there; heads do not mix."""
    assert interleaved(torch.arange(16), 8).tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_the_settings_say_the_shape(tmp_path):
    """A number that is missing here becomes llama.cpp's default, and the model talks nonsense."""
    run_folder(tmp_path / "run", **LLAMA, head_dim=32, rope_theta=5e5, norm_eps=1e-6, mlp_width=96)
    values, _ = read_gguf(exported(tmp_path / "run", "gguf", dtype="f16"))
    said = {key.removeprefix("llama."): value for key, value in values.items() if key.startswith("llama.")}
    assert said.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert said == {
        "vocab_size": 320, "context_length": 64, "embedding_length": 64, "block_count": 2, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 32,
        "attention.value_length": 32, "rope.dimension_count": 32, "rope.freq_base": 5e5,
    }  # fmt: skip
    assert (values["GGUF.version"], values["general.file_type"], values["general.name"]) == (3, 1, "out-gguf")


def test_the_tokenizer_goes_along(tmp_path):
    """Tokens in their letters, merges in their order, special tokens as control; ids beyond the tokenizer unused."""
    _, tokenizer = run_folder(tmp_path / "run")
    values, _ = read_gguf(exported(tmp_path / "run", "gguf"))
    theirs = {key.removeprefix("tokenizer.ggml."): value for key, value in values.items() if "ggml" in key}
    assert (theirs["model"], theirs["pre"]) == ("gpt2", "dbrx")
    letters = list(json.loads((tmp_path / "run/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    assert theirs["tokens"][:309] == letters and theirs["tokens"][309] == "<|endoftext|>"
    assert theirs["token_type"] == [1] * 309 + [3] + [5] * 10 and len(set(theirs["tokens"])) == 320
    merges = tokenizer.vocabulary.merges
    assert theirs["merges"] == [f"{letters[left]} {letters[right]}" for left, right, _ in merges] and len(merges) == 53
    assert [theirs[f"{x}_token_id"] for x in ("bos", "eos", "padding")] == [309] * 3
    assert theirs["add_bos_token"] is False


def test_without_an_end_generation_stops_at_a_byte_that_never_comes(tmp_path):
    """llama.cpp's default end is id 11, which is a byte of text; FF is no byte of UTF-8. No merges are no error."""
    run_folder(tmp_path / "run")
    Tokenizer.bytes_only().save(tmp_path / "run")
    values, _ = read_gguf(exported(tmp_path / "run", "gguf"))
    assert values["tokenizer.ggml.eos_token_id"] == 255
    assert values["tokenizer.ggml.merges"] == [""]


def test_a_compressed_run_is_exported_as_what_its_integers_stand_for(tmp_path, monkeypatch, capsys):
    """Loaded once, and no layer is timed: nobody computes with its integers here."""
    model, tokenizer = run_folder(tmp_path / "run", **LLAMA)
    integers = quantize(model, INT8)
    save_compressed(integers, tokenizer, tmp_path / "run", {}, tmp_path / "small")
    monkeypatch.setattr("minigpt.completion.for_engine", lambda model: pytest.fail("layers were timed"))
    exported(tmp_path / "small", "hf", dtype="f32", check=False)
    plain, found = to_floats(integers).state_dict(), load_pretrained(tmp_path / "out-hf").state_dict()
    assert plain.keys() == found.keys() and all(torch.equal(plain[name], found[name]) for name in plain)
    Tokenizer.train([Path(__file__).read_text(encoding="utf-8")], 330).save(tmp_path / "small")
    with pytest.raises(ValueError, match="do not belong together"):
        exported(tmp_path / "small", "gguf")


def test_ends_come_from_the_run(tmp_path):
    """A model that chats ends its turns with another token than its documents: generation_config.json knows."""
    run_folder(tmp_path / "run")
    (tmp_path / "run/generation_config.json").write_text('{"eos_token_id": [309, 12]}', encoding="utf-8")
    folder = exported(tmp_path / "run", "hf", check=False)
    said = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert said == {"bos_token_id": 309, "eos_token_id": [309, 12], "pad_token_id": 309}
    values, _ = read_gguf(exported(tmp_path / "run", "gguf"))
    assert (values["tokenizer.ggml.eos_token_id"], values["tokenizer.ggml.eot_token_id"]) == (309, 12)


@pytest.mark.parametrize(("dtype", "rounding"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_halves_are_rounded_as_torch_rounds(dtype, rounding, tmp_path):
    """To the nearest, ties to even; vectors and positions stay exact, as llama.cpp wants them."""
    gguf = pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    model, _ = run_folder(tmp_path / "run", **GPT2)
    _, tensors = read_gguf(exported(tmp_path / "run", "gguf", dtype=dtype))
    for name, exact in their_weights(model).items():
        found = torch.from_numpy(gguf.quants.dequantize(np.array(tensors[name].data), tensors[name].tensor_type))
        stays = exact.dim() == 1 or name == "position_embd.weight"
        assert torch.equal(found.view(exact.shape), exact if stays else exact.to(rounding).float()), name


def test_q8_0_is_off_by_half_a_step(tmp_path, capsys):
    """32 numbers share a scale of their largest / 127. Rows that are no multiple of 32 stay in f16, said aloud."""
    gguf = pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    model, _ = run_folder(tmp_path / "run", **SHAPES["llama, odd width"])
    _, tensors = read_gguf(exported(tmp_path / "run", "gguf", dtype="q8_0"))
    exact, found = model.blocks[0].mlp.down_proj.weight.detach(), tensors["blk.0.ffn_down.weight"]  # rows of 96
    numbers = torch.from_numpy(gguf.quants.dequantize(np.array(found.data), found.tensor_type))
    step = exact.view(72, 3, 32).abs().amax(-1, keepdim=True) / 127
    off = (numbers - exact).view(72, 3, 32).abs()
    assert bool((off <= step * (0.5 + 127 * 2**-11)).all()), "the scale itself is a float16"
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "F16"  # rows of 72
    assert "13 matrices, the first is token_embd.weight, have rows that" in capsys.readouterr().err


def test_patterns_get_the_name_under_which_llama_cpp_knows_them():
    """Its file holds no pattern. Where it has none of that kind, or only nearly, that is said."""

    def vocabulary(pattern, **how):
        plain = Tokenizer.bytes_only().vocabulary
        fields = {"tokens": plain.tokens, "merges": [], "special": {}, "pattern": pattern}
        return type(plain)(**{**fields, **how})

    assert set(gguf_tokenizer.PRE) == set(KNOWN) - {NANOCHAT}
    assert pre(vocabulary(CL100K)) == "dbrx" and pre(vocabulary(CL100K, whole_words=True)) == "llama-bpe"
    assert notes(vocabulary(CL100K)) == []
    with pytest.raises(ValueError, match="knows no pattern that splits text like"):
        pre(vocabulary(NANOCHAT))
    loud = vocabulary(gguf_tokenizer.O200K, normalization="NFC", tokens={
        **Tokenizer.bytes_only().vocabulary.tokens, 256: b"</s>",
    })  # fmt: skip
    assert [" ".join(note.split()[:3]) for note in notes(loud)] == [
        "llama.cpp reads o200k's", "llama.cpp does not", "llama.cpp ends generation",
    ]  # fmt: skip
    whole = vocabulary(gguf_tokenizer.GPT2, whole_words=True)
    assert "llama.cpp merges words that are tokens" in notes(whole)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("other", "pattern"), [
    *((other, "cl100k") for other in SHAPES.values()), ({}, "gpt2"), ({}, "o200k"), (GPT2, "gpt2"),
])  # fmt: skip
def test_llama_cpp_writes_what_we_write(other, pattern, tmp_path):
    """The whole of it: ids of a text, logits, and the likeliest tokens one after the other.

    Its GELU is a table in float16, so GPT-2's logits are further off than rounding alone.
    """
    llama_cpp = pytest.importorskip("llama_cpp", reason="the oracle is not installed: pip install llama-cpp-python")
    run_folder(tmp_path / "run", pattern, **other)
    file, kind = exported(tmp_path / "run", "gguf"), llama_cpp.GGML_TYPE_F32
    model, tokenizer = load_run(tmp_path / "run", MachineConfig(device="cpu", dtype="float32", threads=1))
    llama = llama_cpp.Llama(str(file), n_ctx=64, n_threads=1, n_threads_batch=1, type_k=kind, type_v=kind,
                            logits_all=True, verbose=False)  # fmt: skip
    assert llama.tokenize(MERGING.encode(), add_bos=False) == tokenizer.encode_ordinary(MERGING)
    for prompt in ("the cat", "a dog sees\n", MERGING[:20], "🙂"):
        ids = tokenizer.encode_ordinary(prompt)
        llama.reset()
        llama.eval(ids)
        off = np.abs(llama.scores[: len(ids)] - model(torch.tensor([ids]))[0].detach().numpy()).max()
        assert off < (1e-2 if model.config.mlp == "gelu" else 1e-4)
        ours = list(generate(model, ids, SamplingConfig(max_new_tokens=24, temperature=0)))
        llama.reset()
        assert list(islice(llama.generate(ids, temp=0.0, repeat_penalty=1.0), 24)) == ours
