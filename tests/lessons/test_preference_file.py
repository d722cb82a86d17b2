"""Preference files: three forms in, and errors that name file and line."""

import gzip
import json

import pytest

from minigpt.lessons.preference_file import main, preference, read_preferences

USER = {"role": "user", "content": "Hi"}
GOOD, BAD = {"role": "assistant", "content": "Hello!"}, {"role": "assistant", "content": "What?"}


def test_texts_and_messages_are_the_same_pair():
    """TRL's standard form and its conversational one."""
    texts = preference({"prompt": "Hi", "chosen": "Hello!", "rejected": "What?", "source": "me"})
    assert texts == preference({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]})
    assert texts.prompt == [USER] and texts.chosen == [GOOD] and texts.rejected == [BAD]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "Hi", "chosen": "same", "rejected": "same"}', "chosen and rejected are equal"),
        ('{"prompt": "Hi", "chosen": "Hello!"}', "rejected missing"),
        ('{"prompt": "Hi", "chosen": "Hello!", "rejected": ""}', "prompt and rejected: message 2 .* empty"),
        ('{"prompt": " ", "chosen": "Hello!", "rejected": "What?"}', "content is empty"),
        ('{"prompt": 3, "chosen": "Hello!", "rejected": "What?"}', "prompt must be a text or a list"),
        ('{"prompt": [], "chosen": "Hello!", "rejected": "What?"}', "prompt must be a text or a list"),
        ('{"prompt": [{"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"}', "user's is due"),
        ('{"prompt": "Hi", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"}', "assistant's is due"),
        ('["prompt"]', "expected an object"),
        ('{"prompt": "Hi"', "is not JSON"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, line, said):
    """In a file of ten thousand lines the number is all that helps."""
    file = tmp_path / "pairs.jsonl"
    good = json.dumps({"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"})
    file.write_text(f"{good}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"pairs.jsonl, line 3.*{said}"):
        list(read_preferences(file))


def test_a_file_without_pairs_is_refused(tmp_path):
    """Training on nothing would look like training."""
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no pair"):
        list(read_preferences(tmp_path / "empty.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(ValueError, match="line 1 is not UTF-8"):
        list(read_preferences(tmp_path / "latin.jsonl"))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        list(read_preferences(tmp_path / "nowhere.jsonl"))


def test_a_file_may_be_compressed(tmp_path):
    """As data sets are published."""
    pair = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(json.dumps(pair).encode()))
    assert list(read_preferences(tmp_path / "pairs.jsonl.gz")) == [preference(pair)]


def test_the_command_prints_counts_and_writes_a_file_that_reads_back(capsys, tmp_path):
    """What it writes is the form that it reads."""
    main(["--count", "60", "--noise", "0.2", "--examples", "1", "--out", str(tmp_path / "pairs.jsonl")])
    printed = capsys.readouterr().out
    assert "60 pairs" in printed and "polite: " in printed and "chosen" in printed
    assert len(list(read_preferences(tmp_path / "pairs.jsonl"))) == 60
    with pytest.raises(ValueError, match="--count 0"):
        main(["--count", "0"])
    with pytest.raises(ValueError, match="is a folder"):
        main(["--count", "2", "--out", str(tmp_path)])
    assert not capsys.readouterr().out
