"""Counts survive in a file, or the file says why not."""

import os

import pytest

from minigpt.tokenizer.patterns import CL100K, GPT2
from minigpt.tokenizer.word_counts import CountsFile, SavedCounts, WordCounts

COUNTS = {b"the": 3, b"\xff\x00": 2**40, b"a": 1}


def test_counts_come_back_as_they_went(tmp_path):
    file = CountsFile(tmp_path / "state", CL100K)
    assert file.read() is None
    file.write(SavedCounts(WordCounts.of(COUNTS), 7, True))
    saved = file.read()
    assert (list(saved.words.as_dict().items()), saved.texts, saved.complete) == (list(COUNTS.items()), 7, True)
    assert os.listdir(tmp_path) == ["state"]


def test_a_write_that_fails_leaves_the_last_state(tmp_path, monkeypatch):
    """A full disk or a kill in the middle of writing must not cost what was there."""
    file = CountsFile(tmp_path / "state", CL100K)
    file.write(SavedCounts(WordCounts.of(COUNTS), 7, False))

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        file.write(SavedCounts(WordCounts.of({}), 8, False))
    assert file.read().texts == 7


@pytest.mark.parametrize("damage", [b"", b"not a state", b"PK\x03\x04 half of one"])
def test_a_damaged_file_is_named(tmp_path, damage):
    (tmp_path / "state").write_bytes(damage)
    with pytest.raises(ValueError, match="state holds no counts of words .*: delete it to count again"):
        CountsFile(tmp_path / "state", CL100K).read()


def test_half_a_file_is_named(tmp_path):
    """A copy that was cut off."""
    file = CountsFile(tmp_path / "state", CL100K)
    file.write(SavedCounts(WordCounts.of(COUNTS), 7, True))
    file.path.write_bytes(file.path.read_bytes()[:300])
    with pytest.raises(ValueError, match="holds no counts of words"):
        file.read()


def test_counts_by_another_pattern_are_refused(tmp_path):
    """They are of other words."""
    CountsFile(tmp_path / "state", CL100K).write(SavedCounts(WordCounts.of(COUNTS), 7, True))
    with pytest.raises(ValueError, match="counted with another split pattern"):
        CountsFile(tmp_path / "state", GPT2).read()
