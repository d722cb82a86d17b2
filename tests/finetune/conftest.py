"""A base model that took a second to train, and conversations as short as its context."""

import json
from pathlib import Path

import pytest
from scripts import read_a_story


def write_jsonl(file: Path, conversations: list[list[tuple[str, str]]]) -> Path:
    """Each conversation as (question, answer) turns."""
    lines = []
    for turns in conversations:
        messages = [{"role": role, "content": text} for turn in turns
                    for role, text in zip(("user", "assistant"), turn, strict=True)]  # fmt: skip
        lines.append(json.dumps({"messages": messages}) + "\n")
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A finished run of pre-training."""
    return read_a_story(tmp_path_factory.mktemp("base"))


@pytest.fixture
def jsonl(tmp_path) -> Path:
    """Forty questions with answers of one to three words."""
    return write_jsonl(tmp_path / "my.jsonl", [[(f"say {i}", f"{i} " * (1 + i % 3))] for i in range(40)])
