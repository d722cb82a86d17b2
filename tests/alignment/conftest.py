"""Models that took a second to train: of text, after a little chat, one that guesses; and pairs as short as they."""

import json
from pathlib import Path

import pytest
from scripts import read_a_story, run_script
from vowels import FEW_ROUNDS, guessing_model, known_family


@pytest.fixture(scope="session")
def text_model(tmp_path_factory) -> Path:
    """A finished run of pre-training: it has never chatted."""
    return read_a_story(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def chat_model(text_model) -> Path:
    """The same after a little fine-tuning."""
    lines = [json.dumps({"instruction": f"say {i}", "output": f"{i}"}) for i in range(40)]
    file, out = text_model.parent / "talk.jsonl", text_model.parent / "chat"
    file.write_text("\n".join(lines), encoding="utf-8")
    argv = ["sft", "--init", text_model, "--data", file, "--out-dir", out, "--max-steps", "4", "--warmup-steps", "1",
            "--batch-size", "4", "--eval-every", "4", "--sample-every", "0", "--threads", "1", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        result = run_script("train.py", argv, patch)
    assert result.status == 0, result.err
    return out


@pytest.fixture
def jsonl(tmp_path) -> Path:
    """Forty pairs, in which the shorter answer is the better one."""
    file = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"say {i}", "chosen": f"{i}", "rejected": f"{i} {i} {i}"} for i in range(40)]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def guessing(tmp_path_factory) -> Path:
    """A folder with a model that guesses at vowels; see `vowels`."""
    return guessing_model(tmp_path_factory.mktemp("guessing"))


@pytest.fixture
def vowels(monkeypatch) -> None:
    """What it guesses at is one of the problems to choose from."""
    known_family(monkeypatch)


@pytest.fixture
def train_guessing(monkeypatch, tmp_path, guessing, vowels):
    """A run of a preset that begins with it, in a folder of the preset's name."""

    def run(preset, *argv, out=None):
        argv = [preset, "--init", guessing, "--out-dir", tmp_path / (out or preset), *FEW_ROUNDS, *argv]
        return run_script("train.py", argv, monkeypatch)

    return run
