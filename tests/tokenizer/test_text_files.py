"""Files as texts, in pieces that leave no trace."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from minigpt.tokenizer import naive, text_files
from minigpt.tokenizer.count import count_words
from minigpt.tokenizer.patterns import CL100K, GPT2
from minigpt.tokenizer.text_files import read_files

UNKNOWN = r"\w+|\W+"


def written(folder: Path, texts: Sequence[str]) -> list[Path]:
    paths = [folder / f"{i}.txt" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    return paths


@pytest.mark.parametrize("pattern", [GPT2, CL100K, UNKNOWN])
@pytest.mark.parametrize("block", [1, 7, 300, 1 << 22])
def test_pieces_of_files_hold_the_words_of_the_whole(texts, tmp_path, monkeypatch, pattern, block):
    """Blocks end inside characters, words and line ends, and none of that may show; nor may two files join."""
    some = [texts[-1], texts[0][:2000], "", "no end of line", "a\r\nb\r\n"]
    monkeypatch.setattr(text_files, "BLOCK", block)
    monkeypatch.setattr("minigpt.tokenizer.patterns.PIECE", max(1, block // 3))
    pieces = list(read_files(written(tmp_path, some), pattern))
    assert "".join(pieces) == "".join(some)
    words = [word for text in some for word in naive.split(text, pattern)]
    assert [word for piece in pieces for word in naive.split(piece, pattern)] == words
    assert sum(count_words(pieces, pattern).counts) == len(words)


def test_a_file_is_not_held_whole(tmp_path, monkeypatch):
    """Only until the next place where every pattern cuts."""
    monkeypatch.setattr(text_files, "BLOCK", 1 << 18)
    (path,) = written(tmp_path, ["some words in a line\n" * 400_000])  # 8.4 MB
    tracemalloc.start()
    assert sum(map(len, read_files([path], CL100K))) == path.stat().st_size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


@pytest.mark.parametrize("at", [0, 9, 10, 11, 25])
def test_what_is_not_utf_8_is_named_with_file_and_byte(tmp_path, monkeypatch, at):
    """Wherever blocks of 10 bytes end, the offset is that in the file."""
    monkeypatch.setattr(text_files, "BLOCK", 10)
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a" * at + b"\xe9t\xe9")
    with pytest.raises(ValueError, match=rf"latin.txt is not UTF-8: byte {at} \("):
        list(read_files([path], CL100K))
    assert "".join(read_files([path], CL100K, errors="replace")) == "a" * at + "\ufffdt\ufffd"


def test_a_character_that_the_end_of_file_cuts_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK", 4)
    (tmp_path / "cut.txt").write_bytes("abc€".encode()[:-1])
    with pytest.raises(ValueError, match=r"cut.txt is not UTF-8: byte 3 \(unexpected end of data\)"):
        list(read_files([tmp_path / "cut.txt"], CL100K))


def test_other_ways_with_errors_are_refused(tmp_path):
    """"ignore" would glue words together."""
    with pytest.raises(ValueError, match="errors='ignore' is unknown"):
        list(read_files([tmp_path], CL100K, errors="ignore"))
