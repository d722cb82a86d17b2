"""The command: from a run's folder to another, with the truth about it in a table."""

import json
import re
from pathlib import Path

import pytest
import torch
from compress.small import small_gpt, some_batches
from scripts import TINY, run_script, some_text

from minigpt import presets
from minigpt.commands import main
from minigpt.compress import command
from minigpt.compress.command import compress_run, packed, target_of
from minigpt.compress.config import CompressConfig
from minigpt.compress.folder import is_compressed, load_compressed
from minigpt.compress.prune import apply_masks, weight_masks
from minigpt.compress.recover import Masked
from minigpt.model.pretrained import load_pretrained
from minigpt.runtime.console import one_line_errors
from minigpt.training.loop import Stopped

WIDE = ("--n-embd", "64", "--head-dim", "32", "--mlp-width", "96")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of a minute's work, less a minute: it has read a little, and has its data beside it."""
    place = tmp_path_factory.mktemp("run")
    (place / "text.txt").write_text(some_text(6000), encoding="utf-8")
    (place / "val.txt").write_text(some_text(1500, seed=1), encoding="utf-8")
    argv = [*TINY, "--max-steps", "30", *WIDE, "--data", place / "text.txt", "--val-data", place / "val.txt"]
    with pytest.MonkeyPatch.context() as patch:
        assert run_script("train.py", [*argv, "--out-dir", place / "tiny"], patch).status == 0
    return place / "tiny"


def asked(run, out, *flags):
    """What the command prints."""
    main(["compress", str(run), "--out-dir", str(out), "--threads", "1", "--speed-tokens", "4", *flags])


def row(text, name):
    """The numbers of a row of the table."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [float(x.replace(",", "")) for x in re.findall(r"[-+]?[\d,.]*\d", line.removeprefix(f"| {name}"))]


@pytest.mark.parametrize("flags", [["--int8"], ["--int4"], ["--int4", "--gptq"], ["--int3"]], ids=" ".join)
def test_quantizing_writes_a_folder_and_says_what_it_cost(flags, run, tmp_path, capsys, monkeypatch):
    """Before, after, and where torch computes the kernel of every shape; the folder opens, and says what was done."""
    if in_torch := "--gptq" not in flags:
        monkeypatch.setattr("minigpt.compress.choose.uncovered", lambda model, config: "no compiler")
    asked(run, tmp_path / "out", *flags)
    text = capsys.readouterr().out
    old, new, times = row(text, "bytes of weights")
    assert old == (run / "model.safetensors").stat().st_size and new < 0.5 * old and times == round(new / old, 3)
    old, new, more = row(text, "held-out bits per byte")
    assert abs(more) < 0.05 and more == pytest.approx(new - old, abs=2e-4)
    assert all(number > 0 for number in row(text, "tokens/s, alone"))
    chosen = re.findall(r"^\| (?:q_proj|o_proj|gate|down|lm_head).* (?:int8|int4|float32) \|", text, re.M)
    assert len(chosen) == 5 * in_torch
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert said["bits"] == int(flags[0][-1]) and said["rounding"] == ("gptq" if "--gptq" in flags else "nearest")
    argv = ["--run", tmp_path / "out", "--prompt", "a dog", "--max-new-tokens", "4", "--threads", "1"]
    assert run_script("sample.py", argv, monkeypatch).out.startswith("a dog")


@pytest.mark.parametrize("how", ["structured", "magnitude", "wanda", "2:4"])
def test_pruning_writes_an_ordinary_run_folder(how, run, tmp_path, capsys):
    """No masks, no format of ours: it could be trained on."""
    asked(run, tmp_path / "out", "--prune", "0.5", "--how", how)
    old, new, _ = row(capsys.readouterr().out, "bytes of weights")
    assert (new < 0.9 * old) if how == "structured" else (new == pytest.approx(old, rel=0.01))
    model = load_pretrained(tmp_path / "out")
    zeros = (model.blocks[0].mlp.up_proj.weight == 0).float().mean().item()
    assert zeros == (0 if how == "structured" else 0.5) and not is_compressed(tmp_path / "out")


@pytest.mark.parametrize("flags", [["--how", "structured", "--int8"], ["--how", "magnitude"],
                                   ["--how", "structured", "--teacher", "none"]], ids=" ".join)  # fmt: skip
def test_recovery_wins_back_most_of_what_pruning_lost(flags, run, tmp_path, capsys):
    """And what was pruned stays so."""
    asked(run, tmp_path / "cut", "--prune", "0.5", *flags[:2])
    lost = row(capsys.readouterr().out, "held-out bits per byte")[2]
    asked(run, tmp_path / "out", "--prune", "0.5", "--recover", "20", *flags)
    assert row(capsys.readouterr().out, "held-out bits per byte")[2] < lost
    if "magnitude" in flags:
        weight = load_pretrained(tmp_path / "out").blocks[0].mlp.up_proj.weight
        assert (weight == 0).float().mean() == 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "out"]


def test_a_masked_weight_gets_no_gradient_and_no_say():
    """Whatever stands under the mask: the model computes as if it were zero, in training and in evaluation."""
    model, batch = small_gpt(), some_batches(1)[0]
    masks = weight_masks(model, "magnitude", 0.5, [])
    loss = Masked(model, masks)(batch.ids, batch.targets).mean()
    loss.backward()
    name = "blocks.0.mlp.up_proj.weight"
    assert not model.get_parameter(name).grad[~masks[name]].any()
    apply_masks(model, masks)
    torch.testing.assert_close(model(batch.ids, batch.targets).mean(), loss)


def test_recovery_goes_through_the_one_fit_with_the_runs_own_recipe(run, tmp_path, monkeypatch):
    """Its optimizer, gentler; its batches; a teacher where one was asked for."""
    seen = {}

    def fit(stage, optimizer, settings, group, *, scaler):
        seen.update(stage=stage, settings=settings, optimizer=optimizer)

    monkeypatch.setattr("minigpt.compress.recover.fit", fit)
    monkeypatch.setattr("minigpt.compress.recover.distill", lambda stage, who: seen.setdefault("t", (stage, who))[0])
    wish = CompressConfig(prune=0.5, recover=40, speed_tokens=0, out_dir=str(tmp_path / "out"))
    compress_run(run, wish)
    settings, own = seen["settings"], command.run_settings(run, wish)
    assert settings.optim.lr == pytest.approx(0.3 * own.optim.lr) and settings.optim.warmup_steps == 2
    assert settings.train.max_steps == 40 and settings.batches == own.batches
    assert seen.pop("t")[1].config == load_pretrained(run).config != settings.model
    compress_run(run, CompressConfig(prune=0.5, how="2:4", recover=4, speed_tokens=0, out_dir=str(tmp_path / "b")))
    masks = seen["stage"].model.masks
    assert len(masks) == 7 and all(mask.float().mean() == 0.5 for mask in masks.values()), "zeros would be trained"


def test_a_signal_during_recovery_leaves_nothing_behind(run, tmp_path, monkeypatch):
    """A recovery cannot be resumed, so half of one is of no use."""

    def stop(*args, **kwargs):
        raise Stopped(15)

    monkeypatch.setattr("minigpt.compress.recover.fit", stop)
    with pytest.raises(KeyboardInterrupt):
        compress_run(run, CompressConfig(prune=0.5, recover=4, out_dir=str(tmp_path / "out")))
    assert not list(tmp_path.iterdir())


def test_gptq_makes_other_numbers_of_the_same_weights(run, tmp_path):
    """Asked for and not done, it would show in no table."""
    numbers = []
    for rounding in ("nearest", "gptq"):
        wish = CompressConfig(weights="int4", rounding=rounding, speed_tokens=0, out_dir=str(tmp_path / rounding))
        compress_run(run, wish)
        numbers.append(load_compressed(tmp_path / rounding).blocks[0].mlp.up_proj.weight)
    assert 0.01 < (numbers[0] != numbers[1]).float().mean() < 0.9


def test_other_text_can_be_given(run, tmp_path, capsys):
    """For a folder that is no run's, and to judge by something else."""
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (alone / name).write_bytes((run / name).read_bytes())
    with pytest.raises(ValueError, match="no text to judge by: name some with --data"):
        compress_run(alone, CompressConfig(weights="int8", speed_tokens=0))
    (tmp_path / "more.txt").write_text(some_text(3000, seed=5), encoding="utf-8")
    asked(alone, tmp_path / "out", "--int8", "--data", str(tmp_path / "more.txt"), "--speed-tokens", "0")
    text = capsys.readouterr().out
    assert row(text, "held-out bits per byte")[0] > 0 and "tokens/s" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "more.txt", "out"]


def test_a_checkpoint_knows_its_run(run, tmp_path, capsys):
    """Its folder has weights; settings and text are those of the folder above."""
    checkpoint = next(run.glob("checkpoint-*"))
    asked(checkpoint, tmp_path / "out", "--int8")
    assert row(capsys.readouterr().out, "held-out bits per byte")[0] > 0


def test_three_bits_are_counted_as_three(run):
    """Block matrices at 3 + 1/2 bits, embedding at 4 + 1/2, vectors at 32."""
    model = load_pretrained(run)
    embedding, every = model.token_embedding.weight.numel(), sum(p.numel() for p in model.parameters())
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert packed(model) == (every - embedding - vectors) * 3.5 / 8 + embedding * 4.5 / 8 + 4 * vectors


@pytest.mark.parametrize(("flags", "message"), [
    ([], "nothing to do: choose --int8"),
    (["--gptq"], "it needs --int8, --int4 or --int3"),
    (["--prune", "1.5"], "is a share"),
    (["--prune", "0.3", "--how", "2:4"], "needs --prune 0.5"),
    (["--int4", "--gptq", "--prune", "0.3", "--how", "wanda"], "has set to zero"),
    (["--int8", "--recover", "5"], "it needs --prune"),
    (["--int8", "--int4"], "--int4 and --int8: weights have one width"),
    (["--int4", "--weights", "int8"], "--int4 and --weights: weights have one width"),
    (["--int9"], "unknown flag --int9"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_sentence(flags, message, run, tmp_path, capsys):
    """Before anything is computed or written."""
    with pytest.raises(SystemExit), one_line_errors():
        asked(run, tmp_path / "out", *flags)
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_is_taken_missing_or_compressed_already_is_refused(run, tmp_path):
    """Nobody's only copy is overwritten, and errors do not add up."""
    wish = CompressConfig(weights="int8", speed_tokens=0, out_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="compress needs one run folder"):
        main(["compress", "--int8"])
    with pytest.raises(FileNotFoundError, match="not the folder of a saved model"):
        compress_run(tmp_path / "nowhere", wish)
    compress_run(run, wish)
    with pytest.raises(ValueError, match="exists already"):
        compress_run(run, wish)
    with pytest.raises(ValueError, match="is compressed already"):
        compress_run(tmp_path / "out", wish)
    with pytest.raises(ValueError, match="is compressed: begin with the run it was made from"):
        presets.from_command_line(["--init", str(tmp_path / "out")])


def test_the_folder_stands_beside_the_run_as_it_was_named(run, monkeypatch):
    """A path that nobody typed is no line to copy; `.` has no name of its own, and is looked up."""
    monkeypatch.chdir(run.parent)
    assert target_of(Path(run.name), CompressConfig(weights="int8")) == Path(f"{run.name}-int8")
    monkeypatch.chdir(run)
    assert target_of(Path("."), CompressConfig(weights="int8")) == run.parent / f"{run.name}-int8"


def test_the_folder_is_named_after_what_was_done():
    """So that several stand beside the run."""
    assert CompressConfig(weights="int4", rounding="gptq", prune=0.3).label == "structured-0.3-int4-gptq"
    assert CompressConfig(prune=0.5, how="2:4").label == "2of4-0.5"
