"""Supervised fine-tuning as a stage, as a user meets it."""

import json
import re
import shutil
import sys

import pytest
import torch
from scripts import run_script, some_text, start

from minigpt.chat.template import Template
from minigpt.finetune.base_text import bits_before, find_base_text
from minigpt.finetune.sft import answer_tokens
from minigpt.model.pretrained import load_pretrained, read_config
from minigpt.runtime.checkpoint import file_digest
from minigpt.runtime.logbook import read_events
from minigpt.tokenizer import Tokenizer

SHORT = ("--max-steps", "6", "--warmup-steps", "2", "--eval-every", "3", "--eval-batches", "2", "--save-every", "2",
         "--sample-every", "3", "--batch-size", "4", "--threads", "1", "--device", "cpu")  # fmt: skip


@pytest.fixture
def sft(monkeypatch, tmp_path, base, jsonl):
    def run(*argv, init=base, data=jsonl, out="sft", preset="sft"):
        argv = [preset, "--init", init, "--data", data, "--out-dir", tmp_path / out, *SHORT, *argv]
        return run_script("train.py", argv, monkeypatch)

    return run


def weights(folder):
    return file_digest(folder / "model.safetensors")


# --- the good path ------------------------------------------------------------------------------------------------


def test_a_base_model_learns_to_chat_and_others_can_open_it(sft, tmp_path, base):
    """Control tokens, template, where to stop: all that the folder needs, said aloud where something was added."""
    result = sft()
    assert result.status == 0, result.err
    assert "<|system|> <|user|> <|assistant|> <|end|> are added" in result.err
    assert "38 conversations" in result.err and "2 held out" in result.err and "minigpt chat" in result.err
    assert "<|user|>Hello! Who are you?<|end|><|assistant|>" in result.err  # a sample on the way
    assert f"{bits_before(base):.3f} before" in result.err
    tokenizer, shape = Tokenizer.load(tmp_path / "sft"), read_config(tmp_path / "sft")
    assert shape.vocab_size == tokenizer.n_vocab == 304
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "sft")
    talk = [{"role": "user", "content": "say 3"}, {"role": "assistant", "content": "3 3"}]
    ours = Template(tokenizer).render(talk)
    both = theirs.apply_chat_template(talk, return_assistant_tokens_mask=True, return_dict=True)
    assert both["input_ids"] == ours.ids and both["assistant_masks"] == list(map(int, ours.mask))
    generation = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sft").generation_config
    assert Template(tokenizer).end in generation.eos_token_id and generation.pad_token_id != Template(tokenizer).end


def test_forty_questions_are_learned(sft, tmp_path):
    """Sixty steps of one tiny layer: the loss of answers falls far below that of guessing, 5.7 nats."""
    assert sft("--max-steps", "60", "--save-every", "60", "--lr", "0.02", "--sample-every", "0").status == 0
    train = [event["loss"] for event in read_events(tmp_path / "sft") if event["split"] == "train"]
    assert train[-1] < 0.6 * train[0]


def test_rows_that_replay_text_do_not_count_as_conversations(sft):
    """With half of the rows, the same steps go half as often through the conversations."""
    def times(*argv):
        result = sft("--max-steps", "20", "--batch-size", "16", "--eval-every", "20", "--save-every", "20",
                     "--sample-every", "0", *argv)  # fmt: skip
        return float(re.search(r"([\d.]+) times the data", result.err)[1])

    assert times("--replay", "0.5", "--overwrite") == pytest.approx(times("--replay", "0", "--overwrite") / 2, abs=0.1)


def test_a_run_that_was_stopped_ends_in_the_same_bits(sft, tmp_path):
    """--max-steps 4, then 6 would have another schedule; a lost checkpoint is a crash after step 4."""
    sft("--dropout", "0.1", "--accumulate", "2")
    before = weights(tmp_path / "sft")
    shutil.rmtree(tmp_path / "sft" / "checkpoint-6")
    result = sft("--dropout", "0.1", "--accumulate", "2")
    assert result.status == 0 and weights(tmp_path / "sft") == before
    assert "are added" not in result.err  # a checkpoint has its control tokens
    assert "6 steps of 256 tokens, " in result.err  # 4 rows of 32, twice
    assert "has finished its 6 steps" in sft("--dropout", "0.1", "--accumulate", "2").err


def test_a_chat_model_is_tuned_further_and_its_first_text_is_found(sft, tmp_path, base):
    """Stage after stage: forgetting is seen on the text of the very first."""
    sft()
    result = sft("--replay", "0.5", init=tmp_path / "sft", out="again")
    assert result.status == 0 and "are added" not in result.err, result.err
    text = find_base_text(tmp_path / "again" / "checkpoint-6", Tokenizer.load(tmp_path / "again"))
    assert len(text.train) == len(find_base_text(base, Tokenizer.load(base)).train)
    assert "bits_per_byte" in read_events(tmp_path / "again")[-1]


def test_a_chat_model_can_be_compressed(sft, tmp_path):
    """It is judged by the text of its pre-training, and keeps its control tokens."""
    from minigpt.compress.command import compress_run
    from minigpt.compress.config import CompressConfig

    sft()
    smaller = compress_run(tmp_path / "sft", CompressConfig(weights="int8", speed_tokens=8, threads=1)).folder
    assert Tokenizer.load(smaller).fingerprint == Tokenizer.load(tmp_path / "sft").fingerprint


def test_a_folder_without_text_is_tuned_without_replay(sft, tmp_path, base):
    """What somebody else has trained: nothing to replay, nothing to be judged by."""
    (tmp_path / "theirs").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "theirs" / name)
    refused = sft(init=tmp_path / "theirs")
    assert refused.status == 2 and "it read none, as after train.py tasks" in refused.err
    assert "has no text to replay" in refused.err and "--replay 0" in refused.err
    assert not (tmp_path / "sft").exists()
    result = sft("--replay", "0", init=tmp_path / "theirs")
    assert result.status == 0 and "bits per byte" not in result.err
    assert "bits_per_byte" not in read_events(tmp_path / "sft")[-1]


def test_the_projects_own_lessons_need_no_file(sft, tmp_path, monkeypatch):
    """Problems whose answers are known, in a context that holds them."""
    flags = ["--n-layer", "1", "--n-head", "2", "--n-kv-head", "1", "--n-embd", "16", "--vocab-size", "256"]
    story = tmp_path / "story.txt"
    story.write_text(some_text(3000), encoding="utf-8")
    argv = ["quick", *flags, *SHORT, "--max-steps", "1", "--data", story, "--out-dir", tmp_path / "wide"]
    assert run_script("train.py", argv, monkeypatch).status == 0
    result = sft("--examples", "40", data="copy,addition", init=tmp_path / "wide")
    assert result.status == 0 and "40 conversations" in result.err, result.err


@pytest.mark.skipif(sys.platform == "win32", reason="gloo is tested on POSIX systems")
def test_two_processes_learn_what_one_learns(sft, base, jsonl, tmp_path):
    """Unequal numbers of targets on the two: the mean of their means would be another model."""
    assert sft("--dtype", "float64", out="one").status == 0
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py", "sft",
                    "--init", base, "--data", jsonl, "--out-dir", tmp_path / "two", *SHORT, "--dtype", "float64")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    one, two = (load_pretrained(tmp_path / out) for out in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "message"), [
    ('{"messages": [', "my.jsonl, line 2 is not JSON"),
    ('{"messages": [{"role": "user", "content": "Hi"}]}', "my.jsonl, line 2: the assistant says nothing"),
    ('{"messages": [{"role": "assistant", "content": "Hi"}]}', "my.jsonl, line 2: message 1 is the assistant's"),
    ('{"text": "once upon a time"}', "my.jsonl, line 2: expected"),
])  # fmt: skip
def test_a_bad_line_is_named_and_nothing_is_left_behind(sft, tmp_path, line, message):
    """File and line, status 2, no run."""
    good = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    file = tmp_path / "my.jsonl"
    file.write_text(f"{good}\n{line}\n", encoding="utf-8")
    result = sft(data=file)
    assert result.status == 2 and message in result.err, result.err
    assert not (tmp_path / "sft").exists()


def test_conversations_that_are_all_too_long_are_refused(sft, tmp_path):
    """Whoever brings a small context must be told that it is the context."""
    file = tmp_path / "long.jsonl"
    lines = [json.dumps({"instruction": f"{i} " + "word " * 50, "output": "b"}) + "\n" for i in range(9)]
    file.write_text("".join(lines), encoding="utf-8")
    result = sft(data=file)
    assert result.status == 2 and "none has an answer within the context of 32 tokens" in result.err, result.err


@pytest.mark.parametrize(("argv", "message"), [
    (["--init", "none"], "name its folder with --init"),
    (["--init", "nowhere"], "--init nowhere: there is no such folder"),
    (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
    (["--data", "curse"], "did you mean course?"),
    (["--data", " "], "--data is empty"),
    (["--val-data", "nowhere.jsonl"], "nowhere.jsonl"),
    (["--replay", "1"], "--replay 1.0: is a share"),
    (["--examples", "0"], "--examples 0"),
    (["--n-layer", "2"], "--n-layer cannot be combined with --init"),
    (["--quality"], "unknown flag --quality"),
    (["--kind", "lora"], "--kind lora: this preset is of kind sft"),
])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_status_two(sft, tmp_path, argv, message):
    """And no folder with half a run in it."""
    result = sft(*argv)
    assert result.status == 2 and message in result.err, result.err
    assert not (tmp_path / "sft" / "run.json").exists()


def test_a_run_of_another_kind_is_not_gone_on_with(sft, tmp_path, base):
    """--out-dir of the pre-training run: one line, and the run untouched."""
    before = weights(base)
    result = sft("--out-dir", base)
    assert result.status == 2 and "holds a run of kind pretrain, not sft" in result.err and weights(base) == before


def test_text_of_another_tokenizer_is_no_replay(sft, tmp_path, base, monkeypatch):
    """Its ids would be other words: a model that is trained on them forgets what it was meant to remember."""
    other = tmp_path / "other.txt"
    other.write_text(some_text(3000, seed=5).upper(), encoding="utf-8")
    argv = ["quick", "--n-layer", "1", "--n-head", "2", "--n-kv-head", "1", "--n-embd", "16", "--context-length", "32",
            "--vocab-size", "300", "--max-steps", "1", "--data", other, "--out-dir", tmp_path / "other"]  # fmt: skip
    assert run_script("train.py", argv, monkeypatch).status == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, tmp_path / "other" / name)
    result = sft(init=tmp_path / "other")
    assert result.status == 2 and "cut by another tokenizer" in result.err, result.err


def test_the_users_words_have_no_gradient(base):
    """Trap: prompt in the mask. Of a batch without an answer nothing is learned."""
    gpt = load_pretrained(base)
    ids = torch.arange(8)[None]
    batch = type("Batch", (), {"ids": ids, "targets": torch.full_like(ids, -100), "document": torch.zeros_like(ids),
                               "n_targets": torch.tensor(1.0)})  # fmt: skip
    answer_tokens(gpt, batch).value.backward()
    assert all(not parameter.grad.any() for parameter in gpt.parameters())
