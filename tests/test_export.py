"""Export: other programs must hold the same weights, cut text in the same way, and write the same tokens."""

import json
import sys
from pathlib import Path

import pytest
import torch
from exporting import LLAMA, SHAPES, exported, run_folder, shape

from minigpt.commands import main
from minigpt.export import hugging_face
from minigpt.export.config import ExportConfig
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained, save_pretrained
from minigpt.runtime.console import one_line_errors
from minigpt.tokenizer import Tokenizer


@pytest.mark.parametrize("other", [shape for name, shape in SHAPES.items() if name != "llama, odd heads"])
def test_transformers_reads_the_folder_as_we_do(other, tmp_path, capsys):
    """The same ids and logits, and nothing beside what serving needs."""
    pytest.importorskip("transformers", reason="the oracle is not installed: pip install minigpt[test]")
    run_folder(tmp_path / "run", **other)
    folder = exported(tmp_path / "run", "hf")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert "gives the same ids, and logits within" in capsys.readouterr().err


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_a_folder_of_half_the_size(dtype, kind, tmp_path):
    """Weights rounded once; the config says so, and the run itself is untouched."""
    model, _ = run_folder(tmp_path / "run")
    folder = exported(tmp_path / "run", "hf", dtype=dtype, check=False)
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"] == str(kind).removeprefix("torch.")
    for name, parameter in load_pretrained(folder).named_parameters():
        assert torch.equal(parameter, model.get_parameter(name).to(kind).float()), name
    assert torch.equal(load_pretrained(tmp_path / "run").lm_head.weight, model.lm_head.weight)


def test_the_check_finds_what_is_wrong(tmp_path, monkeypatch, capsys):
    """Other ids or other logits end the export, and nothing is left; without transformers it says so."""
    pytest.importorskip("transformers", reason="the oracle is not installed: pip install minigpt[test]")
    run_folder(tmp_path / "run")
    other = GPT(shape())
    with monkeypatch.context() as patch:
        patch.setattr(hugging_face, "load_pretrained", lambda folder: other)
        with pytest.raises(ValueError, match="gives other logits: off by"):
            exported(tmp_path / "run", "hf")
    with monkeypatch.context() as patch:
        patch.setattr(hugging_face, "load_pretrained", None)
        patch.setattr(Tokenizer, "encode_ordinary", lambda self, text: [1])
        with pytest.raises(ValueError, match="gives other ids for"):
            exported(tmp_path / "run", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    monkeypatch.setitem(sys.modules, "transformers", None)
    exported(tmp_path / "run", "hf")
    assert "transformers is not installed: not checked" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "other", "message"), [
    ("hf", {"position": "alibi"}, r"no Hugging Face type .* needs position=rope \(here alibi\)"),
    ("gguf", {"position": "alibi"}, r"llama.cpp has no model .* needs position=rope \(here alibi\)"),
    ("gguf", {"mlp": "relu2", **LLAMA}, r"the nearest, llama, needs mlp=swiglu \(here relu2\)"),
    ("gguf", {"window": 16}, r"the nearest, qwen3, needs window=none"),
])  # fmt: skip
def test_a_shape_without_a_name_is_refused_with_the_setting_at_fault(to, other, message, tmp_path):
    """And nothing is left behind."""
    pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    run_folder(tmp_path / "run", **other)
    with pytest.raises(ValueError, match=message):
        exported(tmp_path / "run", to)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_what_is_there_is_never_overwritten(to, tmp_path):
    """It may be somebody's only copy. What a killed export left aside is no obstacle."""
    pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    run_folder(tmp_path / "run")
    (tmp_path / f".out-{to}.unfinished").mkdir()
    place = exported(tmp_path / "run", to, check=False)
    before = place.stat().st_mtime_ns
    with pytest.raises(ValueError, match=f"out-{to} exists already: .* another place"):
        exported(tmp_path / "run", to, check=False)
    assert place.stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out-{to}", "run"]


@pytest.mark.parametrize(("to", "value", "message"), [
    ("gguf", float("nan"), "blk.0.attn_q.weight holds numbers that are not finite"),
    ("gguf", 1e6, "beyond the 65504 of F16"),
    ("hf", 1e6, "blocks.0.attention.q_proj.weight holds .* too large for f16"),
])  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(to, value, message, tmp_path):
    """An infinity in the file would come out as nonsense, far from its cause."""
    pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    model, _ = run_folder(tmp_path / "run")
    model.blocks[0].attention.q_proj.weight.data[3, 3] = value
    save_pretrained(model, tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        exported(tmp_path / "run", to, dtype="f16")


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_full_disk_leaves_nothing_and_says_so(to, tmp_path):
    """numpy alone would say `5120 requested and 3328 written`. A limit on the size of files stands in for the disk."""
    pytest.importorskip("gguf", reason="needs the extra: pip install minigpt[export]")
    run_folder(tmp_path / "run")
    resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="No space left|too large"):
            exported(tmp_path / "run", to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mistakes_are_one_clear_sentence(tmp_path, monkeypatch):
    """What is missing, and what would work."""
    run_folder(tmp_path / "run")
    with pytest.raises(ValueError, match="q8_0 is a type of GGUF files"):
        ExportConfig(to="hf", dtype="q8_0")
    with pytest.raises(FileNotFoundError, match="not the folder of a saved model"):
        exported(tmp_path / "nowhere", "hf")
    with pytest.raises(FileNotFoundError, match="not the folder of a saved model"):
        exported(tmp_path / "run/config.json", "hf")
    (tmp_path / "run/generation_config.json").write_text('{"eos_token_id": 999}', encoding="utf-8")
    with pytest.raises(ValueError, match="eos_token_id names 999, which is no id"):
        exported(tmp_path / "run", "hf")
    (tmp_path / "run/generation_config.json").unlink()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r'need the extra "export": pip install "minigpt\[export\]"'):
        exported(tmp_path / "run", "gguf")


def test_the_command_names_what_it_wrote(tmp_path, monkeypatch, capsys):
    """By default into out/export/, where no run is looked for; a mistake ends with status 2."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    run_folder(Path("out/mine"))
    main(["export", "out/mine", "--check", "off", "--dtype", "bf16"])
    assert capsys.readouterr().out.strip() == str(Path("out/export/mine-bf16"))
    Path("out/mine").rename("out/checkpoint-7")
    main(["export", "out/checkpoint-7", "--check", "off"])
    assert capsys.readouterr().out.strip() == str(Path("out/export/out-checkpoint-7-f32"))
    for argv in ([], ["--to", "hf"]):
        with pytest.raises(ValueError, match="export needs one run folder"):
            main(["export", *argv])
    with pytest.raises(SystemExit) as ended, one_line_errors():
        main(["export", "nowhere"])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: ")
