"""A model that learns problems from nothing, as a user starts it."""

import json

import pytest
import torch
from scripts import run_script

from minigpt.finetune.from_nothing import learned_tokenizer
from minigpt.lessons.families_context import KEYS
from minigpt.lessons.tasks import FAMILIES, problem_at
from minigpt.lessons.words import DIGITS, LETTERS, NAMES, SIZES
from minigpt.presets import tasks as tasks_preset
from minigpt.runtime.checkpoint import load_tensors
from minigpt.tokenizer import Tokenizer
from minigpt.training.run_folder import text_home

SMALL = ("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--mlp-width", "16", "--batch-size", "2",
         "--warmup-steps", "1", "--save-every", "2", "--eval-every", "9", "--device", "cpu",
         "--schedule", "constant", "--families", "copy,addition")  # fmt: skip
NEVER_TAUGHT = ["field", "library"]  # held out by both families that have places


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    def run(*flags, out="run"):
        return run_script("train.py", ["tasks", *SMALL, "--out-dir", tmp_path / out, *flags], monkeypatch)

    return run


@pytest.fixture(scope="module")
def tokenizer():
    return learned_tokenizer(tasks_preset().model.vocab_size, "gpt2")


def test_a_letter_a_digit_or_a_name_is_one_token(tokenizer):
    """What a problem is made of is what the model sees; else it would have to learn spelling before sorting."""
    words = [*LETTERS, *map(str.upper, LETTERS), *DIGITS, *NAMES, *KEYS, *SIZES, "47"]
    assert [word for word in words if len(tokenizer.encode(f" {word}")) > 1] == NEVER_TAUGHT


@pytest.mark.parametrize("side", ["train", "test", "compositional", "longer"])
def test_every_problem_fits_the_context(tokenizer, side):
    """The preset's context is 128, and a prompt that slides out of it cannot be answered."""
    drawn = [problem_at(family, side, 0, index) for family in FAMILIES for index in range(20)]
    assert max(len(tokenizer.encode(one.prompt + one.answer)) + 5 for one in drawn) < 128


def test_a_run_is_judged_by_exact_match_and_resumes_bit_for_bit(tasks, tmp_path):
    """Stopped after 2 of 4 steps: the same weights as without a stop, so the same problems were seen."""
    whole = tasks("--max-steps", "4")
    assert whole.status == 0, whole.err
    assert "problems of 2 families" in whole.err and "minigpt grade" in whole.err
    final = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert final["split"] == "final" and final["right"] == (final["copy"] + final["addition"]) / 2
    assert final["worst"] == min(final["copy"], final["addition"])
    assert [tasks("--max-steps", steps, out="parts").status for steps in ("2", "4")] == [0, 0]
    parts, one = (load_tensors(tmp_path / name / "model.safetensors") for name in ("parts", "run"))
    assert all(torch.equal(parts[name], tensor) for name, tensor in one.items())


def test_what_it_makes_is_a_chat_model_without_a_text_behind_it(tasks, tmp_path):
    """A later stage begins with it, and finds nothing to replay instead of falling over."""
    assert tasks("--max-steps", "1").status == 0
    assert "<|assistant|>" in Tokenizer.load(tmp_path / "run").special_tokens
    assert text_home(tmp_path / "run") is None


def test_an_unknown_family_or_size_is_refused_before_training(tasks, tmp_path):
    assert "did you mean addition" in tasks("--families", "adition").err
    result = tasks("--families", "addition", "--size", "2")
    assert result.status == 2 and "no problems of size 2 on side test" in result.err
    result = tasks("--context-length", "16")
    assert result.status == 2 and "more than the context: choose --context-length" in result.err
    assert not (tmp_path / "run").exists()


def test_it_begins_from_nothing(tasks, tmp_path):
    """A base model would be passed over, its weights and its tokenizer, without a word."""
    assert tasks("--max-steps", "1").status == 0
    argv = ["tasks", "--families", "copy", "--init", tmp_path / "run", "--out-dir", tmp_path / "second"]
    with pytest.MonkeyPatch.context() as patch:
        result = run_script("train.py", argv, patch)
    assert result.status == 2 and "this preset begins from nothing" in result.err
