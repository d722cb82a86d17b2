"""python train.py and python sample.py, as a user meets them: good input, bad input, stopping and going on."""

import json
import re
import shutil

import pytest
from scripts import TINY, run_script, some_text
from small_gpt import made_gpt

from minigpt.completion import preview
from minigpt.runtime.checkpoint import file_digest
from minigpt.tokenizer import Tokenizer


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "story.txt"
    file.write_text(some_text(4000), encoding="utf-8")
    return file


@pytest.fixture
def train(monkeypatch, tmp_path, text):
    def run(*argv, data=text, out="run"):
        return run_script("train.py", ["quick", *TINY, "--data", data, "--out-dir", tmp_path / out, *argv], monkeypatch)

    return run


@pytest.fixture
def sample(monkeypatch, tmp_path):
    def run(*argv, stdin="", out="run"):
        argv = ["--run", tmp_path / out, "--max-new-tokens", "12", "--device", "cpu", *argv]
        return run_script("sample.py", argv, monkeypatch, stdin)

    return run


def weights(folder):
    return file_digest(folder / "model.safetensors")


# --- the good path ------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_folder_that_others_can_open(train, tmp_path):
    """The newest model on top in Hugging Face's layout, two whole checkpoints, the settings, the log."""
    result = train()
    assert result.status == 0, result.err
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "run.json", "metrics.jsonl", "data", "checkpoint-4", "checkpoint-6", "config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    }  # fmt: skip
    assert {path.name for path in (folder / "checkpoint-6").iterdir()} >= {"state", "digest.json", "model.safetensors"}
    assert "bits per byte" in result.err and "xz -9e" in result.err and f"sample.py --run {folder}\n" in result.err
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen3"
    assert tokenizer.decode(tokenizer.encode("the cat sees")) == "the cat sees"
    assert model.generation_config.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])


def test_a_finished_run_says_so_and_may_be_made_longer(train, tmp_path):
    """The same line again trains nothing; a larger --max-steps goes on from the last step."""
    train()
    before = weights(tmp_path / "run")
    again = train()
    assert (again.status, weights(tmp_path / "run")) == (0, before) and "has finished its 6 steps" in again.err
    assert train("--max-steps", "8").status == 0
    assert (tmp_path / "run" / "checkpoint-8").exists() and weights(tmp_path / "run") != before


def test_the_same_line_gives_the_same_weights_and_the_same_text(train, sample, tmp_path):
    """Reproducible down to the last bit: the first thing to check before any comparison."""
    train()
    train(out="again")
    assert weights(tmp_path / "run") == weights(tmp_path / "again")
    texts = [sample("--prompt", "the cat", "--seed", "5", out=out).out for out in ("run", "run", "again")]
    assert texts[0] == texts[1] == texts[2] and texts[0].startswith("the cat")
    assert sample("--prompt", "the cat", "--seed", "6").out != texts[0]


@pytest.mark.parametrize("flags", [
    ["--optimizer", "adamw", "--schedule", "trapezoid"],
    ["--position", "alibi", "--norm", "layer", "--mlp", "relu2"],
    ["--position", "learned", "--mlp", "gelu", "--norm", "layer", "--bias", "--qk-norm", "off"],
    ["--position", "sinusoidal", "--window", "8", "--dropout", "0.1", "--tied", "off"],
    ["--dtype", "bfloat16"],
    ["--dtype", "float16"],
    ["--dtype", "float64"],
    ["--vocab-size", "256", "--accumulate", "2"],
    ["--clean", "off", "--pattern", "gpt2", "--mask-documents"],
])  # fmt: skip
def test_every_choice_trains_resumes_and_writes(train, sample, flags):
    """Each variant goes the whole way: train, go on, sample."""
    assert (result := train(*flags)).status == 0, result.err
    assert (result := train(*flags, "--max-steps", "8")).status == 0, result.err
    assert (result := sample("--prompt", "the ")).status == 0, result.err


def test_a_shape_that_hugging_face_lacks_is_said_before_training(train):
    """Squared ReLU trains and samples here; who wants to export should know it at once, not after a night."""
    assert "cannot be opened by transformers" in train("--mlp", "relu2").err


def test_init_starts_from_a_folder_and_brings_its_tokenizer(train, tmp_path, monkeypatch):
    """Fine-tuning: shape and tokenizer come with the weights, the data is the user's."""
    train()
    other = tmp_path / "other.txt"
    other.write_text(some_text(3000, seed=9), encoding="utf-8")
    (tmp_path / "base").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "run" / name, tmp_path / "base" / name)
    tuned = ["quick", "--data", other, "--out-dir", tmp_path / "tuned", "--init", tmp_path / "base",
             "--max-steps", "4", "--warmup-steps", "1", "--batch-size", "4"]  # fmt: skip
    assert (result := run_script("train.py", tuned, monkeypatch)).status == 0, result.err
    assert (result := run_script("train.py", [*tuned, "--max-steps", "5"], monkeypatch)).status == 0, result.err
    assert (tmp_path / "tuned/tokenizer.json").read_bytes() == (tmp_path / "run/tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "tuned/config.json").read_text())["hidden_size"] == 16
    clash = run_script("train.py", [*tuned, "--n-layer", "2"], monkeypatch)
    assert clash.status == 2 and "--n-layer cannot be combined with --init" in clash.err
    nowhere = run_script("train.py", ["quick", "--init", tmp_path / "nowhere"], monkeypatch)
    assert nowhere.status == 2 and "nowhere" in nowhere.err


def test_another_tokenizer_than_the_weights_know_is_said(train, tmp_path, monkeypatch, text):
    """Row 300 of the embedding is what their own tokenizer calls 300: with another one, all that was learnt is lost."""
    train()
    Tokenizer.train(["other words, other merges; " * 9], 270).save(tmp_path / "other")
    tuned = ["quick", "--data", text, "--init", tmp_path / "run", "--max-steps", "1", "--warmup-steps", "0"]
    for name, said in (("other", True), ("run", False)):
        argv = [*tuned, "--tokenizer", tmp_path / name, "--out-dir", tmp_path / f"tuned-{name}"]
        result = run_script("train.py", argv, monkeypatch)
        assert result.status == 0 and ("whose weights know its tokens alone" in result.err) == said, result.err


# --- sampling -----------------------------------------------------------------------------------------------------


def test_prompts_come_from_flags_files_and_standard_input(train, sample, tmp_path):
    """Each prompt is continued --num-samples times; none at all begins from nothing."""
    train()
    file = tmp_path / "prompt.txt"
    file.write_text("one bird", encoding="utf-8")
    out = sample("--prompt", "the cat", "--prompt", "-", "--prompt-file", file, "--num-samples", "2", stdin="a dog").out
    assert [out.count(prompt) >= 2 for prompt in ("the cat", "a dog", "one bird")] == [True] * 3
    assert sample().status == 0
    assert sample("--prompt", "").status == 0


def test_a_full_context_slides_and_says_so(train, sample):
    """40 tokens do not fit into a context of 32: the text goes on, and the user knows what the model still sees."""
    train()
    result = sample("--max-new-tokens", "60", "--prompt", "the cat")
    assert result.status == 0 and "newest 16 tokens" in result.err


def test_a_stop_string_ends_the_text_before_it(train, sample):
    """Chat templates and tests need it; the stop string itself is not printed."""
    train()
    whole = sample("--prompt", "the cat", "--max-new-tokens", "30").out
    stop = whole[20:22]
    cut = sample("--prompt", "the cat", "--max-new-tokens", "30", "--stop", stop).out
    assert cut == whole[: whole.index(stop, len("the cat"))] + "\n"


def test_the_number_of_samples_changes_no_sample(train, sample):
    """They are written together, and each must be what it is alone."""
    train()
    alone = [sample("--prompt", "the cat", "--seed", seed).out for seed in ("5", "6", "7")]
    assert sample("--prompt", "the cat", "--seed", "5", "--num-samples", "3").out == "".join(alone)


def test_a_text_can_be_held_to_a_pattern_or_a_schema(train, sample, tmp_path):
    """What the model would rather say does not matter, nor where the limit cuts it."""
    train()
    assert re.fullmatch(r"x = [0-9]{2,}!\n", sample("--prompt", "x = ", "--matching", "[0-9]{2,}!").out)
    assert sample("--prompt", "x = ", "--matching", "").out == "x = \n"
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    assert type(json.loads(sample("--schema", schema, "--max-new-tokens", "20").out)["n"]) is int


def test_a_sample_on_the_way_leaves_each_module_in_its_mode():
    """A frozen part that does not drop out must not begin to after the first sample."""
    model = made_gpt(vocab_size=256).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    preview(model, Tokenizer.bytes_only())
    assert [module.training for module in model.modules()] == modes


# --- bad input: one line, exit status 2, nothing half-written -------------------------------------------------------


@pytest.mark.parametrize(("argv", "message"), [
    (["--n-layers", "4"], "unknown flag --n-layers: did you mean --n-layer?"),
    (["--optimizer", "mun"], "did you mean muon?"),
    (["--max-steps", "0"], "--max-steps 0: needs at least 1"),
    (["--n-head", "3"], "n_head=3 does not divide n_embd=16"),
    (["--n-head", "4", "--n-kv-head", "3"], "n_kv_head=3 cannot serve n_head=4"),
    (["--device", "cuda:7"], "--device cuda:7: this machine offers cpu"),
    (["--vocab-size", "100000"], "vocab"),
    (["--vocab-size", "200"], "vocab"),
    (["--data", "nowhere.txt"], "nowhere.txt"),
    (["--data", "http://127.0.0.1:9/text.txt"], "127.0.0.1:9"),
    (["--tokenizer", "nowhere"], "nowhere"),
    (["--config", "nowhere.json"], "nowhere.json"),
    (["--lr", "-1"], "--lr -1"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(train, tmp_path, argv, message):
    """What is wrong, and what would work; no traceback, no folder with half a run in it."""
    result = train(*argv)
    assert result.status == 2 and message in result.err, result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert not (tmp_path / "run" / "run.json").exists()
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize(("content", "message"), [
    (b"", "no text"),
    (b"\x00\x01\x02" * 1000, "binary"),
    (b"\xff\xfe\xfa" * 1000, "UTF-8"),
    (b"too short", ""),
])  # fmt: skip
def test_data_that_is_no_text_is_refused(train, tmp_path, content, message):
    """Empty, binary, in another encoding, or shorter than one context."""
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    result = train("--vocab-size", "256", data=file)
    assert result.status == 2 and message in result.err, result.err


def test_an_unknown_preset_is_named_with_its_neighbour(monkeypatch):
    """The first word of the command line is the easiest to mistype."""
    result = run_script("train.py", ["quik"], monkeypatch)
    assert result.status == 2 and "did you mean quick?" in result.err


def test_another_setting_for_an_existing_run_is_refused_and_the_run_is_untouched(train, tmp_path):
    """A run that changed its learning rate on the way would be neither the old experiment nor the new one."""
    train()
    before = weights(tmp_path / "run")
    result = train("--lr", "0.5")
    assert result.status == 2 and "--lr" in result.err and weights(tmp_path / "run") == before


def test_a_mistake_in_the_new_run_costs_nothing_of_the_old(train, tmp_path):
    """--overwrite with a file that is not there, or too small for the vocabulary."""
    train()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("a few words\n" * 3)
    for data in (tmp_path / "nowhere.txt", tiny):
        assert train("--overwrite", data=data).status == 2
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_overwrite_begins_again(train, tmp_path):
    """With the same settings this must give the same weights: nothing of the old run is left in them."""
    train()
    before = weights(tmp_path / "run")
    train("--overwrite", "--lr", "0.001")
    assert weights(tmp_path / "run") != before
    result = train("--overwrite")
    assert result.status == 0 and weights(tmp_path / "run") == before


def test_a_damaged_checkpoint_is_passed_over_aloud_and_the_run_ends_the_same(train, tmp_path):
    """Bits do rot; the checkpoint before is whole, and the steps after it are done again exactly."""
    train("--max-steps", "8")
    before = weights(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoint-8" / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.unlink()  # the run's top level shows the same file by a hard link: write another
    newest.write_bytes(data)
    result = train("--max-steps", "8")
    assert result.status == 0 and "checkpoint-8 is damaged" in result.err
    assert weights(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["train-00000-of-00001.bin", "tokenizer.json", "prepared.json"])
@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_damaged_data_is_found_before_it_is_learnt(train, tmp_path, name, harm):
    """A shard, a tokenizer, a receipt: cut short or with one bit flipped."""
    train()
    file = tmp_path / "run" / "data" / name
    before = {path: path.read_bytes() for path in file.parent.iterdir() if path != file}
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 8
    file.write_bytes(data[: len(data) // 2] if harm == "truncate" else data)
    result = train("--max-steps", "8")
    if name != "prepared.json" or result.status:  # a letter of the recipe may be another: no matter to what is there
        assert result.status == 2 and (name in result.err or "data" in result.err), result.err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_sampling_says_what_is_missing(sample, train, tmp_path, monkeypatch):
    """No run yet, a folder that is no run, a prompt file that is not there, a wrong number."""
    monkeypatch.chdir(tmp_path)
    assert "train one with `python train.py`" in run_script("sample.py", [], monkeypatch).err
    assert (result := sample(out="nowhere")).status == 2 and "holds no model" in result.err
    train()
    assert (result := sample("--prompt-file", "nowhere.txt")).status == 2 and "nowhere.txt" in result.err
    assert (result := sample("--temperature", "-1")).status == 2 and "--temperature -1" in result.err
    for flags, message in [
        (["--schema", "nowhere"], "error: --schema nowhere: No such file"),
        (["--prompt-file", tmp_path], f"error: --prompt-file {tmp_path}: Is a directory"),
        (["--matching", "(a"], "never closed"), (["--matching", "a", "--schema", "b"], "one of them"),
        (["--schema", "nowhere.json"], "nowhere.json"), (["--schema", "run/model.safetensors"], "is not JSON"),
        (["--matching", "abcdefgh" * 9], "needs"), (["--stop", ""], "--stop is empty"),
        (["--drafts", "9"], "--drafts 9"), (["--page", "0"], "--page 0"),
    ]:  # fmt: skip
        assert (result := sample(*flags)).status == 2 and message in result.err, result.err
        assert "parameters" not in result.err or "needs" in message, "what needs no model is said before one is loaded"
    (tmp_path / "run" / "model.safetensors").write_bytes(b"short")
    assert (result := sample()).status == 2 and "model.safetensors" in result.err
