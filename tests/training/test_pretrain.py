"""Data, model and objective of the first stage."""

import gzip
import lzma
import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from minigpt import presets
from minigpt.batches.loader import Batch
from minigpt.batches.packing import tokenize_corpus
from minigpt.runtime.checkpoint import read_json, write_json
from minigpt.runtime.distributed import Group
from minigpt.training import pretrain

ALONE = Group(0, 1, torch.device("cpu"))


@pytest.fixture
def run(tmp_path):
    """The quick preset on a folder of forty small files, as plain bytes."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02}.txt").write_text(f"document number {i}: " + "word " * (50 + i), encoding="utf-8")
    run = presets.quick()
    return replace(run, out_dir=str(tmp_path / "run"), corpus=replace(run.corpus, data=str(folder)),
                   model=replace(run.model, vocab_size=256, context_length=32, n_layer=1, n_embd=32))  # fmt: skip


class Half(nn.Module):
    """Gives every target a probability of one half."""

    def forward(self, ids, targets, *, document=None):
        return torch.full(targets.shape, math.log(2))


def test_the_objective_is_the_mean_loss_of_all_tokens():
    """-ln 1/2, whatever the shape; logged as it is descended."""
    batch = Batch(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), None)
    loss = pretrain.next_token(Half(), batch)
    torch.testing.assert_close(loss.value, torch.tensor(math.log(2)))
    assert loss.metrics["loss"] == loss.value


def test_data_is_prepared_once_and_again_only_for_another_recipe(run, tmp_path):
    """Resuming must not tokenize again; another cleaning must."""
    first = pretrain.prepare_data(run, ALONE)
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "data").iterdir()}
    second = pretrain.prepare_data(run, ALONE)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "data").iterdir()} == made
    assert (first.train[0 : len(first.train)] == second.train[0 : len(second.train)]).all()
    pretrain.prepare_data(replace(run, corpus=replace(run.corpus, clean=False)), ALONE)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "data").iterdir()} != made


def test_an_edited_file_is_noticed_and_a_begun_run_refuses_it(run, tmp_path):
    """Before the first checkpoint the data is made again; behind one, tokens would change their meaning unseen."""
    before = pretrain.prepare_data(run, ALONE)
    edited = tmp_path / "texts" / "07.txt"
    edited.write_text(edited.read_text().replace("word", "ward"))
    after = pretrain.prepare_data(run, ALONE)
    assert (before.train[:].tolist(), before.val[:].tolist()) != (after.train[:].tolist(), after.val[:].tolist())
    edited.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "newest_whole", lambda folder: folder / "checkpoint-1")
        pretrain.prepare_data(run, ALONE)  # only touched
        edited.write_text(edited.read_text().upper())
        with pytest.raises(ValueError, match="have changed since .* began to learn from them"):
            pretrain.prepare_data(run, ALONE)
    (tmp_path / "texts").rename(tmp_path / "moved")
    pretrain.prepare_data(run, ALONE)  # the receipt is all there is


def test_a_begun_run_keeps_its_data_under_another_python(run, tmp_path, monkeypatch):
    """Another version's library is another text, and another tokenizer: trained weights would meet other ids."""
    first = pretrain.prepare_data(run, ALONE)
    receipt = tmp_path / "run" / "data" / "prepared.json"
    made = read_json(receipt)
    write_json(receipt, made | {"recipe": made["recipe"] | {"python": "3.9.0"}})
    edited = tmp_path / "texts" / "07.txt"
    edited.unlink()
    edited.with_name("08.txt").unlink()
    monkeypatch.setattr(pretrain, "is_unchanged", lambda config, files: True)  # Python's library has no stamps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "newest_whole", lambda folder: folder / "checkpoint-1")
        assert pretrain.prepare_data(run, ALONE).train[:].tolist() == first.train[:].tolist()
    assert pretrain.prepare_data(run, ALONE).train[:].tolist() != first.train[:].tolist()  # nothing has begun


def test_prepared_data_does_not_need_the_tokenizer_it_was_made_with(run, tmp_path):
    """The run's folder holds a copy; the folder that --tokenizer named may be gone when the run is resumed."""
    named = tmp_path / "named"
    pretrain.Tokenizer.bytes_only().save(named)
    run = replace(run, tokenizer=replace(run.tokenizer, tokenizer=str(named)))
    pretrain.prepare_data(run, ALONE)
    named.rename(tmp_path / "gone")
    assert pretrain.prepare_data(run, ALONE).tokenizer.n_vocab == 256


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    """Tokens, borders, receipt: a second machine must be able to check the first."""
    contents = []
    for name in ("a", "b"):
        pretrain.prepare_data(replace(run, out_dir=str(tmp_path / name)), ALONE)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_preparation_goes_on(run, tmp_path, monkeypatch, error):
    """Ctrl+C leaves the tokenizer, and nothing is trained twice; a mistake leaves nothing. The end is the same."""
    run = replace(run, model=replace(run.model, vocab_size=300))
    pretrain.prepare_data(replace(run, out_dir=str(tmp_path / "peace")), ALONE)

    def stop(documents, tokenizer, folder, side, **how):
        if side == "train":
            raise error
        return tokenize_corpus(documents, tokenizer, folder, side, **how)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(pretrain, "tokenize_corpus", stop)
        pretrain.prepare_data(run, ALONE)
    left = tmp_path / "run" / ".data.unfinished"
    assert left.exists() == (error is KeyboardInterrupt) and not (tmp_path / "run" / "data").exists()
    if left.exists():
        monkeypatch.setattr(pretrain.Tokenizer, "train", None)  # whoever calls it fails
    pretrain.prepare_data(run, ALONE)
    both = [{path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()}
            for name in ("run", "peace")]  # fmt: skip
    assert both[0] == both[1] and not left.exists()


def test_held_out_text_is_compared_with_xz_and_gzip_of_itself():
    """The bar to beat: what general compressors need for the same bytes alone."""
    text = "abc" * 1000
    sizes = pretrain.compressed_size(iter([text[:1000], text[1000:]]))
    xz, gz = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME), gzip.compress(text.encode(), 9)
    assert sizes == {"bytes": 3000, "xz -9e": 8 * len(xz) / 3000, "gzip -9": 8 * len(gz) / 3000}


def test_the_seed_decides_the_weights(run):
    """Two seeds, two models; one seed, one model."""
    data = pretrain.prepare_data(run, ALONE)
    models = [pretrain.build_model(replace(run, machine=replace(run.machine, seed=seed)), data.tokenizer, None)
              for seed in (1, 1, 2)]  # fmt: skip
    first, same, other = (model.token_embedding.weight for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_init_from_the_hub_names_the_extra_or_the_network(monkeypatch):
    """Without huggingface_hub: how to get it. Without a network: what else would work."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "minigpt\[hf\]"'):
        pretrain.init_folder("hf:gpt2")
    monkeypatch.undo()
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(OSError, match="cannot be fetched .* local folder"):
        pretrain.init_folder("hf:gpt2")
