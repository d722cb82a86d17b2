"""A compressed folder: the same bits back, the promised size, and one clear sentence for whatever is wrong."""

import json

import pytest
import torch
from compress.small import KINDS, small_gpt, some_batches
from safetensors.torch import load_file, save_file
from scripts import run_script, some_text

from minigpt.completion import load_run
from minigpt.compress.folder import is_compressed, load_compressed, save_compressed
from minigpt.compress.grid import GRIDS, INT4, INT8
from minigpt.compress.quantize import quantize
from minigpt.model.pretrained import load_pretrained, save_pretrained
from minigpt.runtime.config import MachineConfig
from minigpt.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([some_text(2000)], 290)


def written(folder, tokenizer, grid=INT8, **other):
    """(integer model, folder with it)"""
    model = quantize(small_gpt(**{"vocab_size": 320, **other}), grid)
    save_compressed(model, tokenizer, folder, {"weights": "int8"}, folder / "small")
    return model, folder / "small"


@pytest.mark.parametrize("other", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_same_logits_come_back_to_the_last_bit(grid, other, tmp_path, tokenizer):
    """Every shape, tied or not, with biases, with learned positions."""
    model, folder = written(tmp_path, tokenizer, grid, **other)
    again, ids = load_compressed(folder), some_batches(1)[0].ids
    assert again.config == model.config and is_compressed(folder)
    with torch.inference_mode():
        assert torch.equal(again(ids), model(ids))


def test_a_tied_matrix_is_stored_once_and_sizes_are_as_promised(tmp_path, tokenizer):
    """A wide model, where norms and headers are as small a share as in a real one."""
    shape = {"n_embd": 256, "mlp_width": 512, "n_layer": 2, "vocab_size": 1024}
    model = small_gpt(**shape)
    (tmp_path / "float").mkdir()
    save_pretrained(model, tmp_path / "float")
    whole = (tmp_path / "float" / "model.safetensors").stat().st_size
    for grid, share in ((INT8, 0.27), (INT4, 0.17)):
        save_compressed(quantize(model, grid), tokenizer, tmp_path, {}, tmp_path / str(grid.bits))
        assert (tmp_path / str(grid.bits) / "model.safetensors").stat().st_size <= share * whole
    assert not any(name.startswith("lm_head") for name in load_file(tmp_path / "8" / "model.safetensors"))


def test_load_run_and_sample_open_it(tmp_path, tokenizer, monkeypatch):
    """What `sample.py --run` does with any run."""
    model, folder = written(tmp_path, tokenizer, vocab_size=tokenizer.n_vocab)
    loaded, theirs = load_run(folder, MachineConfig(threads=1))
    assert theirs.fingerprint == tokenizer.fingerprint
    ids = some_batches(1)[0].ids
    with torch.inference_mode():
        assert (loaded(ids) - model(ids)).norm() < 0.03 * model(ids).norm()
    argv = ["--run", folder, "--prompt", "the cat", "--max-new-tokens", "5", "--threads", "1"]
    result = run_script("sample.py", argv, monkeypatch)
    assert result.status == 0 and result.out.startswith("the cat")


def test_without_c_the_fastest_way_in_torch_is_chosen(tmp_path, tokenizer, monkeypatch):
    """`sample.py --compiled off` multiplies in torch, so its layers must be chosen for that."""
    asked = []
    monkeypatch.setattr("minigpt.completion.for_engine", lambda model, engine: asked.append(engine.compiled))
    _, folder = written(tmp_path, tokenizer, vocab_size=tokenizer.n_vocab)
    argv = ["--run", folder, "--prompt", "the cat", "--max-new-tokens", "2", "--threads", "1", "--compiled", "off"]
    assert run_script("sample.py", argv, monkeypatch).status == 0 and asked == [False]


@pytest.mark.parametrize("wish", [{"device": "meta"}, {"dtype": "bfloat16"}])
def test_another_device_or_dtype_is_refused_with_the_reason(wish, tmp_path, tokenizer):
    """Integers are computed with on the CPU; silently doing something else would be a surprise."""
    _, folder = written(tmp_path, tokenizer)
    with pytest.raises(ValueError, match="computed with on the CPU and in float32"):
        load_run(folder, MachineConfig(**wish))


def test_others_refuse_it_politely(tmp_path, tokenizer):
    """A program that does not know the format must not read bytes as weights: ours for plain folders, transformers."""
    _, folder = written(tmp_path, tokenizer)
    with pytest.raises(ValueError, match="is compressed: begin with the run it was made from"):
        load_pretrained(folder)
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="does not recognize this architecture"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def cut(tensors):
    tensors["blocks.0.mlp.up_proj.weight"] = tensors["blocks.0.mlp.up_proj.weight"][:-1].clone()
    tensors["blocks.0.mlp.up_proj.scale"] = tensors["blocks.0.mlp.up_proj.scale"][:-1].clone()


def spoil(tensors):
    tensors["token_embedding.scale"][5] = torch.nan


DAMAGES = {
    "lacks blocks.1.mlp.down_proj.scale": lambda tensors: tensors.pop("blocks.1.mlp.down_proj.scale"),
    "lacks final_norm.weight": lambda tensors: tensors.pop("final_norm.weight"),
    "has no stranger": lambda tensors: tensors.update(stranger=torch.ones(1)),
    r"is a matrix of \[95, 64\], but config.json asks for \[96, 64\]": cut,
    "scale holds what is no finite float": spoil,
    "needs a scale": lambda tensors: tensors.update({"token_embedding.scale": torch.ones(3)}),
    "not torch.float32": lambda tensors: tensors.update({"token_embedding.weight": torch.ones(320, 64)}),
    "asks for finite floats": lambda tensors: tensors.update({"final_norm.weight": torch.ones(64).int()}),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_file_that_does_not_fit_is_named(message, tmp_path, tokenizer):
    """One sentence with the file and the tensor; never a model that talks nonsense."""
    _, folder = written(tmp_path, tokenizer)
    tensors = load_file(folder / "model.safetensors")
    DAMAGES[message](tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=message) as caught:
        load_compressed(folder)
    assert "model.safetensors" in str(caught.value)


def test_a_file_cut_short_or_gone_and_a_config_of_nonsense(tmp_path, tokenizer):
    """What a full disk, a lost download or an editor leaves."""
    _, folder = written(tmp_path, tokenizer)
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        load_compressed(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing"):
        load_compressed(folder)
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"minigpt": said["minigpt"] | {"n_layer": "two"}}))
    with pytest.raises(ValueError, match="n_layer"):
        load_compressed(folder)
    config.write_text("{")
    assert not is_compressed(folder) and not is_compressed(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not JSON"):
        load_run(folder, MachineConfig(threads=1))
