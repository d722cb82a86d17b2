"""Adapters: put on from outside, trained alone, merged without a trace."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from scripts import run_script
from small_gpt import VARIANTS, VOCAB, made_gpt

from minigpt import presets
from minigpt.finetune.adapter_file import load_adapters, save_adapters
from minigpt.finetune.config import LoraConfig
from minigpt.finetune.lora import adapters, add_lora, base_digest, merged
from minigpt.model.gpt import GPT
from minigpt.model.pretrained import load_pretrained
from minigpt.optim.groups import build_optimizer
from minigpt.runtime.checkpoint import file_digest, load_tensors

IDS = torch.arange(10)[None]  # (1, T)
SHORT = ("--max-steps", "6", "--warmup-steps", "2", "--eval-every", "3", "--eval-batches", "2", "--save-every", "2",
         "--sample-every", "3", "--batch-size", "4", "--threads", "1", "--device", "cpu")  # fmt: skip


def trained(gpt: GPT, **settings) -> GPT:
    """With adapters that are no longer zero, as after some steps."""
    add_lora(gpt, LoraConfig(**settings), seed=3)
    for number, layer in enumerate(adapters(gpt).values()):
        draw = torch.Generator().manual_seed(number)
        layer.lora_B.data.copy_(torch.randn(layer.lora_B.shape, generator=draw).mul(0.1))
    return gpt


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_step_begins_at_the_base_model(variant):
    """B is zero: nothing of what was learned is lost by putting adapters on."""
    expected = made_gpt(**VARIANTS[variant])(IDS)
    assert torch.equal(add_lora(made_gpt(**VARIANTS[variant]), LoraConfig(), seed=1)(IDS), expected)


@pytest.mark.parametrize(("layers", "count"), [("all", 7), ("attention", 4), ("mlp", 3)])
def test_the_chosen_layers_get_one_and_no_other(layers, count):
    """Per block: q, k, v, o; gate, up, down. Never the head, which may be the embedding too."""
    names = adapters(add_lora(made_gpt(), LoraConfig(lora_layers=layers), seed=1))
    assert len(names) == 2 * count and all(name.startswith("blocks.") for name in names)


def test_the_optimizer_gets_adapters_only_and_the_rest_never_moves():
    """Weight decay alone would move a frozen weight that is in a group."""
    gpt = trained(made_gpt())
    before = {name: p.clone() for name, p in gpt.named_parameters()}
    optimizer = build_optimizer(gpt, presets.lora().optim)
    assert all(".lora_" in name for name in optimizer.named) and len(optimizer.named) == 2 * len(adapters(gpt))
    gpt(IDS, IDS).sum().backward()
    optimizer.step()
    moved = {name for name, p in gpt.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(optimizer.named)


def test_the_preset_trains_less_than_two_percent_of_quick():
    """The promise of the method, on the smallest model of the house."""
    gpt = add_lora(GPT(presets.quick().model), presets.lora().stage, seed=1)
    n_trained = sum(p.numel() for p in gpt.parameters() if p.requires_grad)
    assert n_trained < 0.02 * sum(p.numel() for p in gpt.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_merged_is_the_same_model_without_adapters(variant):
    """To 1e-5 in float32, as W x + s B A x and (W + s B A) x round differently; and the adapters stay on the first."""
    gpt = trained(made_gpt(**VARIANTS[variant]).float(), lora_rank=3, lora_alpha=5.0)
    for parameter in gpt.parameters():
        parameter.data /= 8.0 if parameter.ndim == 2 and not parameter.requires_grad else 1.0  # weights of a usual size
    plain, before = merged(gpt), gpt(IDS)
    assert not adapters(plain) and all(p.requires_grad for p in plain.parameters())
    torch.testing.assert_close(plain(IDS), before, atol=1e-5, rtol=0)
    assert torch.equal(gpt(IDS), before)
    assert not torch.allclose(before, made_gpt(**VARIANTS[variant]).float()(IDS), atol=1e-3)
    assert (plain.lm_head.weight is plain.token_embedding.weight) == plain.config.tied


def test_alpha_over_rank_scales_the_sum():
    """By hand: W = 0, A = 1, B = 1, R = 2, alpha = 6: y = 6/2 · 2 · sum of x."""
    layer = next(iter(adapters(add_lora(made_gpt(), LoraConfig(lora_rank=2, lora_alpha=6.0), seed=1)).values()))
    for parameter, value in ((layer.linear.weight, 0.0), (layer.lora_A, 1.0), (layer.lora_B, 1.0)):
        parameter.data.fill_(value)
    x = torch.arange(16.0).double()
    torch.testing.assert_close(layer(x), torch.full((16,), 6.0 * float(x.sum())).double())


def test_dropout_is_off_where_nobody_trains():
    """Or every look at held-out text would be another."""
    gpt = trained(made_gpt(), lora_dropout=0.5)
    assert torch.equal(gpt.eval()(IDS), gpt(IDS)) and not torch.equal(gpt.train()(IDS), gpt(IDS))


# --- files --------------------------------------------------------------------------------------------------------


def test_adapters_come_back_as_they_went_and_only_onto_their_base(tmp_path):
    """On other weights they would be noise, and nobody would see it but in the loss."""
    gpt, config = trained(made_gpt()), LoraConfig()
    save_adapters(adapters(gpt), gpt.config, config, tmp_path, tmp_path, base_digest(gpt))
    fresh = add_lora(made_gpt(), config, seed=9)
    load_adapters(adapters(fresh), fresh.config, tmp_path, base_digest(fresh))
    assert torch.equal(fresh(IDS), gpt(IDS))
    fresh.token_embedding.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="not the one that these adapters were trained on"):
        load_adapters(adapters(fresh), fresh.config, tmp_path, base_digest(fresh))
    with pytest.raises(ValueError, match=r"needs .*lora_A.* of shape \[2, 16\], found \[8, 16\]"):
        wrong = add_lora(made_gpt(), replace(config, lora_rank=2), seed=9)
        load_adapters(adapters(wrong), wrong.config, tmp_path, base_digest(gpt))


def test_the_files_have_pefts_names_where_peft_knows_the_model(tmp_path):
    """Golden: peft 0.x names the module in transformers' model, with base_model.model before it."""
    gpt = trained(made_gpt())
    save_adapters(adapters(gpt), gpt.config, LoraConfig(), tmp_path, tmp_path / "base", "0")
    saved = load_tensors(tmp_path / "adapter_model.safetensors")
    assert saved["base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight"].shape == (8, 16)
    assert saved["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"].shape == (16, 8)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 16.0)
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_a_shape_that_peft_cannot_name_has_no_config_of_its(tmp_path):
    """GPT-2's file fuses q, k and v: an adapter of each has no place there, and none is claimed."""
    gpt = trained(made_gpt(**VARIANTS["gpt2"]))
    save_adapters(adapters(gpt), gpt.config, LoraConfig(), tmp_path, tmp_path, base_digest(gpt))
    assert not (tmp_path / "adapter_config.json").exists()
    fresh = add_lora(made_gpt(**VARIANTS["gpt2"]), LoraConfig(), seed=9)
    load_adapters(adapters(fresh), fresh.config, tmp_path, base_digest(fresh))
    assert torch.equal(fresh(IDS), gpt(IDS))


# --- as a user meets it -------------------------------------------------------------------------------------------


@pytest.fixture
def lora(monkeypatch, tmp_path, base, jsonl):
    def run(*argv, init=base, out="lora"):
        argv = ["lora", "--init", init, "--data", jsonl, "--out-dir", tmp_path / out, *SHORT, *argv]
        return run_script("train.py", argv, monkeypatch)

    return run


def test_a_run_leaves_adapters_and_a_model_that_just_loads(lora, tmp_path, base, monkeypatch):
    """sample.py and chat need to know nothing of adapters."""
    result = lora()
    assert result.status == 0 and "parameters of these" in result.err, result.err
    assert "control tokens are frozen" in result.err  # this base has never chatted
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in (tmp_path / "lora").iterdir()}
    ours, theirs = load_pretrained(tmp_path / "lora"), load_pretrained(base)
    assert torch.equal(ours.token_embedding.weight[:300], theirs.token_embedding.weight)
    assert not torch.equal(ours.blocks[0].attention.q_proj.weight, theirs.blocks[0].attention.q_proj.weight)
    argv = ["--run", tmp_path / "lora", "--prompt", "the", "--max-new-tokens", "5", "--device", "cpu"]
    assert run_script("sample.py", argv, monkeypatch).status == 0


@pytest.mark.parametrize("flags", [["--lora-dropout", "0.1"], ["--optimizer", "muon"], ["--dtype", "bfloat16"]])
def test_a_run_that_was_stopped_ends_in_the_same_bits(lora, tmp_path, flags):
    """Base anew, adapters from the checkpoint: not the merged model with adapters on top of it again."""
    lora(*flags)
    before = [file_digest(tmp_path / "lora" / name) for name in ("model.safetensors", "adapter_model.safetensors")]
    shutil.rmtree(tmp_path / "lora" / "checkpoint-6")
    assert (result := lora(*flags)).status == 0, result.err
    after = [file_digest(tmp_path / "lora" / name) for name in ("model.safetensors", "adapter_model.safetensors")]
    assert after == before


def test_a_base_that_has_changed_meanwhile_is_refused(lora, tmp_path, base):
    """Somebody trains the base on, and the adapters stand on other weights."""
    shutil.copytree(base, tmp_path / "mine")
    lora(init=tmp_path / "mine")
    shutil.rmtree(tmp_path / "lora" / "checkpoint-6")
    gpt = load_pretrained(tmp_path / "mine")
    gpt.final_norm.weight.data += 0.5
    (tmp_path / "mine" / "model.safetensors").unlink()
    from minigpt.model.pretrained import save_pretrained

    save_pretrained(gpt, tmp_path / "mine")
    result = lora(init=tmp_path / "mine")
    assert result.status == 2 and "not the one that these adapters were trained on" in result.err, result.err


@pytest.mark.parametrize(("argv", "message"), [
    (["--lora-rank", "0"], "--lora-rank 0"), (["--lora-alpha", "0"], "--lora-alpha 0"),
    (["--lora-dropout", "1"], "--lora-dropout 1"), (["--lora-layers", "heads"], "--lora-layers cannot be 'heads'"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(lora, argv, message):
    """As everywhere in the house."""
    result = lora(*argv)
    assert result.status == 2 and message in result.err, result.err


def test_peft_opens_what_a_run_leaves(lora, tmp_path, base):
    """The same logits from transformers with peft as from our merged model."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    lora(out="first")  # a base with control tokens, as peft needs the rows on disk
    lora("--lora-layers", "all", init=tmp_path / "first", out="second")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "second").eval()
    ours = load_pretrained(tmp_path / "second").eval()
    ids = torch.arange(VOCAB)[None, :16]
    torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-4, rtol=0)
