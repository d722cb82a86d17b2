"""A base model that took a second to train and has the tokens of a chat, and pairs as short as its context."""

import json
from pathlib import Path

import pytest
from scripts import TINY, run_script, some_text


@pytest.fixture(scope="session")
def text_model(tmp_path_factory) -> Path:
    """A finished run of pre-training: it has never chatted."""
    folder = tmp_path_factory.mktemp("base")
    story = folder / "story.txt"
    story.write_text(some_text(4000), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        result = run_script("train.py", ["quick", *TINY, "--data", story, "--out-dir", folder / "run"], patch)
    assert result.status == 0, result.err
    return folder / "run"


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
